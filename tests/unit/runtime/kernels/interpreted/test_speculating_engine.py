"""A whole engine with drafts by our own kernels: its texts are those of plain decoding, and no kernel reads or writes outside of
what it was given, whatever an earlier step has left there (see `conftest`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.runner.building import build_runner
from runtime.settings import EngineSettings
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_speculating_interpreted
from tests.support.draft_heads import EOS, VOCAB_SIZE, write_head, write_target
from tests.support.engine_runs import ask, build_engine, run_all

CHAIN: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_num_steps": 3,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": 4,
    "speculative_adaptive": False,
    "max_running_requests": 3,
    "chunked_prefill_size": 33,
}
TREE = CHAIN | {"speculative_eagle_topk": 4, "speculative_num_draft_tokens": 8}


@pytest.mark.long
@pytest.mark.parametrize("settings", [CHAIN, TREE], ids=["chains", "trees"])
def test_texts_are_those_of_plain_decoding(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Of one answer, of several beside each other and beside prompts in two chunks; with a graph of one, and none of more."""
    folder, head = write_target(tmp_path / "target"), HeadSource(write_head(tmp_path / "head"))
    ids = np.random.default_rng(0).integers(3, VOCAB_SIZE, 100).tolist()
    asked = [
        ask(1, ids[:40], temperature=0.0, max_tokens=9, ignore_eos=True),
        ask(2, ids[50:60], temperature=0.8, seed=2, max_tokens=7, ignore_eos=True),
        ask(3, ids[60:80], temperature=0.0, max_tokens=5, ignore_eos=True),
    ]
    plain = run_all(build_engine(build_runner(folder, num_pages=40), eos_token_ids=[EOS]), asked)
    runner = build_speculating_interpreted(folder, head, EngineSettings(model_path="", cuda_graph_max_bs=1, **settings))
    engine = build_engine(runner, eos_token_ids=[EOS], **settings)
    for requests in (asked[2:], asked):
        for key, answer in run_all(engine, requests).items():
            assert answer.tokens == plain[key].tokens
    assert engine.stats().num_verified > 5
    assert engine.stats().num_graph_steps > 0
