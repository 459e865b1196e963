"""What the engine's process gives a gateway worker before its tickets have come, and which model it does not start with."""

from pathlib import Path

import pytest
import torch

from appliance.config import parse_configuration
from appliance.processes.engine import hold_limits, verify_probe
from runtime.errors import CheckpointRejected
from runtime.runner.building import build_runner
from runtime.settings import EngineSettings
from tests.support.engine_runs import build_engine
from tests.support.quantized_checkpoints import plain_tensors, write_checkpoint


def test_prompts_without_tickets_fill_an_eighth_of_the_pages_whatever_the_number_of_workers(tmp_path: Path) -> None:
    """What is held of one worker never overruns a mailbox of its own when it is let go at once."""
    raw = (
        b'[[engines]]\nmodel_path = "m"\nmax_queued_requests = 5\n'
        b"[gateway]\nworkers = 4\nmax_unread_tokens = 100\nticket_lifetime_ms = 2500\n"
    )
    limits = hold_limits(parse_configuration(raw, tmp_path), 0, num_pages=3200)
    assert limits.max_prompt_tokens * 4 == 3200 * 16 // 8
    assert (limits.max_output_tokens, limits.max_requests, limits.wait_s) == (50, 5, 2.5)


@pytest.mark.parametrize("quantization", ["auto", "fp8"])
def test_a_model_that_computes_nothing_is_refused_at_start(quantization: str, tmp_path: Path) -> None:
    """One weight that is no number is in every answer: each request would end with an error, of an engine that is ready."""
    tensors = plain_tensors()
    settings = EngineSettings(model_path="models/m", dtype="float16")

    def verify() -> None:
        folder = write_checkpoint(tmp_path, tensors, None)
        runner = build_runner(folder, num_pages=8, quantization=quantization)
        verify_probe(build_engine(runner, eos_token_ids=[2]), settings)

    verify()
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointRejected, match=r"models/m: the model computes logits that are not finite.*'float16'"):
        verify()
