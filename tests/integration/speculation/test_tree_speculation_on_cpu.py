"""Drafts in trees with the real runner on a CPU: whatever stands in the branches, no text changes by one bit.

The judge is plain decoding; heads are random, or know the texts, or know them and err.
"""

from typing import Any

import pytest
import torch

from runtime.runner.torch_runner import TorchRunner
from tests.support.draft_heads import EOS
from tests.support.draft_trees import TREES, KnowingTrees
from tests.support.engine_runs import build_engine, run_all
from tests.support.speculation_runs import Answers, requests, scored_tokens_of


@pytest.mark.parametrize("overlap", [True, pytest.param(False, marks=pytest.mark.long)])
def test_random_trees_change_nothing(speculating: TorchRunner, plain_answers: Answers, *, overlap: bool) -> None:
    """Tokens, ends and logprobs are equal, greedy and sampled, with penalties, masks, bias and several choices."""
    engine = build_engine(speculating, eos_token_ids=[EOS], overlap_schedule=overlap, **TREES)
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    assert engine.stats().num_verified > 100


@pytest.mark.parametrize("error_in", [pytest.param(1000, marks=pytest.mark.long), 5])
def test_the_right_path_is_found_in_any_branch(
    speculating: TorchRunner, plain_answers: Answers, monkeypatch: pytest.MonkeyPatch, error_in: int
) -> None:
    """Trees that hold the text in changing branches: nearly all of it comes without a pass of its own, to the bit."""
    asked = {request.request_id: list(request.prompt) for request in requests()}
    texts = [asked[request] + answer.tokens for (request, _), answer in plain_answers.items()]
    assert speculating.drafter is not None
    monkeypatch.setattr(speculating.drafter, "draft_trees", KnowingTrees(texts, error_in).draft_trees)
    engine = build_engine(speculating, eos_token_ids=[EOS], **TREES)
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    stats = engine.stats()
    length = 1 + stats.num_accepted / stats.num_verified
    assert length > 4.3 if error_in == 1000 else 2.5 < length < 4.9


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"chunked_prefill_size": 7, "overlap_schedule": False},
        {"chunked_prefill_size": 33, "schedule_policy": "lpm"},
        {"max_running_requests": 4, "speculative_num_steps": 2, "speculative_num_draft_tokens": 13},
        {"disable_radix_cache": True, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 15},
    ],
    ids=["small chunks", "lpm", "few rows, every node", "no sharing, every node"],
)
def test_every_way_to_a_text_is_the_same(
    speculating: TorchRunner, plain_answers: Answers, settings: dict[str, Any]
) -> None:
    """Chunks, order, batch sizes, prefixes that are shared or not, trees of all shapes."""
    engine = build_engine(speculating, eos_token_ids=[EOS], **(TREES | settings))
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    if "disable_radix_cache" not in settings:
        assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers), "from cached prefixes"


def test_drafts_follow_from_the_text_alone(speculating: TorchRunner) -> None:
    """A prompt in one chunk, in many, and from the cache gives the same trees: the head's entries are whole, and moved."""
    (request,) = (request for request in requests() if request.request_id == 2)
    runs: list[list[tuple[list[int], list[int]]]] = []
    for chunk in (512, 9):
        engine = build_engine(speculating, eos_token_ids=[EOS], chunked_prefill_size=chunk, **TREES)
        for _ in range(2):
            drafts: list[tuple[list[int], list[int]]] = []
            engine.submit(request)
            while engine.has_work:
                engine.step()
                table = engine._scheduler._running.table
                drafts += [(table.drafts[r].tolist(), table.parents[r].tolist()) for r in table.decode_rows().tolist()]
            runs.append([entry for entry in drafts if any(entry[0])])
    assert len(runs[0]) > 15
    assert runs == [runs[0]] * 4
    assert torch.tensor([max(parents) for _, parents in runs[0]]).max() > 0, "no tree is deeper than its root"
