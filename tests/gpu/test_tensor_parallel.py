"""Ranks on GPUs of their own: sums are right and the same on all, and greedy texts are those of one rank up to ties."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.runner.building import build_runner
from tests.support.engine_runs import build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.random_models import write_random_model
from tests.support.shared_requests import NUM_TOKENS, prompts, requests

NUM_GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NUM_GPUS < 2, reason="needs two GPUs")]

MAX_GAP = 0.95
"""As of one rank in bfloat16, see `test_engine_on_gpu`."""
MAX_ROUNDING = 2**-7


def run_ranks(folder: Path, *words: str, limit_s: int = 240) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.shared_engine", str(folder), *words],
        env=os.environ, capture_output=True, text=True, timeout=limit_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("size", [size for size in (2, 4, 8) if size <= max(2, NUM_GPUS)])
def test_sums_are_right_and_the_same_bits_on_every_rank(size: int, tmp_path: Path) -> None:
    """From one row to 8,192, by one kernel and by slices; and rows joined from all ranks are to the bit what they gave."""
    found = run_ranks(tmp_path, str(size), "--sums")
    errors = {name: error for name, error in found.items() if name.startswith("error")}
    assert all(type(error) is float and error <= MAX_ROUNDING for error in errors.values()), errors
    assert all(value for name, value in found.items() if name.startswith("joined"))


@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_greedy_texts_are_those_of_the_reference_up_to_ties(backend: str, tmp_path: Path) -> None:
    """Two ranks, graphs, overlap and prefix cache, against float32 on a CPU."""
    folder = write_random_model(tmp_path, head_dim=128)
    reference = build_runner(folder, num_pages=400, num_threads=None)
    answers = run_ranks(folder, "2", f'attention_backend="{backend}"')
    expected = run_all(build_engine(reference, eos_token_ids=[2], context_length=2048), requests())
    agreed = 0
    for prompt, (request_id, tokens) in zip(prompts(), answers, strict=True):
        assert len(tokens) == NUM_TOKENS
        agreed += assert_equal_up_to_ties(reference, prompt, tokens, expected[request_id, 0].tokens, MAX_GAP)
    assert agreed > len(prompts())
