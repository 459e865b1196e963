"""The whole decoder by our kernels, interpreted: the operations, attention and sampling fit together.

Single kernels are tested by themselves; here a runner over them is compared with one over plain torch.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.attention import shared_prefixes, triton
from runtime.attention.device import DeviceAttention
from runtime.attention.invariant import InvariantAttention
from runtime.attention.pages import allocate_pages
from runtime.attention.shared_decoding import SharedDecoding
from runtime.attention.triton import DEFAULT_BLOCKS, AttentionBlocks, TritonAttention
from runtime.kernels.invariant import InvariantOperations
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.operations import FusedOperations
from runtime.models.fused import FusedDecoder
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.step_buffers import RunnerLimits
from runtime.weights.config import load_model_config
from runtime.weights.loading import build_dummy_weights
from tests.support.device_runners import build_plain_device
from tests.support.step_batches import Chunk, sampling_batch, step_batch

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
PROMPT = np.random.default_rng(0).integers(0, 90, 20).tolist()
LIMITS = RunnerLimits(
    max_rows=128, max_sequences=12, max_table_pages=200, cuda_graph_max_bs=3, piecewise_cuda_graph_max_tokens=32
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def build_fused(
    folder: Path,
    limits: RunnerLimits = LIMITS,
    blocks: AttentionBlocks = DEFAULT_BLOCKS,
    *,
    deterministic: bool = False,
    largest_only: bool = False,
) -> DeviceRunner:
    config = load_model_config(folder)
    device, dtype = torch.device("cpu"), torch.float32
    launcher = JitLauncher()
    kind = InvariantOperations if deterministic else FusedOperations
    operations = kind(launcher, max_samples=12, vocab_size=90, device=device, dependent_launch=False)
    with torch.inference_mode():
        weights = build_dummy_weights(config, device=device, dtype=dtype)
        parameters = {name: parameter.contiguous() for name, parameter in weights.parameters.items()}
        model = FusedDecoder(config, parameters, operations, num_positions=256)
        pages = allocate_pages(num_layers=2, num_pages=16, num_kv_heads=2, head_dim=16, device=device, dtype=dtype)
        pages.fill_(torch.nan)
    attention: DeviceAttention = TritonAttention(
        pages, num_heads=4, layer_windows=config.layer_windows, launcher=launcher, max_decodes=12, num_multiprocessors=4,
        blocks=blocks,
    )  # fmt: skip
    if deterministic:
        attention = InvariantAttention(
            pages, num_heads=4, layer_windows=config.layer_windows, launcher=launcher, max_context_length=256,
            num_multiprocessors=4,
        )  # fmt: skip
    runner = DeviceRunner(config, model, operations, attention, pages, limits, weights_digest=weights.digest)
    runner.capture_graphs(largest_only=largest_only)
    return runner


@pytest.mark.parametrize("deterministic", [False, True])
def test_steps_are_those_of_plain_torch(folder: Path, *, deterministic: bool) -> None:
    """A prefill, a mixed step and decodes, greedy and drawn."""
    fused = build_fused(folder, deterministic=deterministic, largest_only=True)
    plain = build_plain_device(folder, num_pages=16, cuda_graph_max_bs=0, dummy=True).runner
    first = step_batch([Chunk(PROMPT[:5], 0, [1]), Chunk(PROMPT[:18], 0, [2, 3])])
    mixed = step_batch(
        [Chunk([0], 5, [1], previous_row=0), Chunk([0], 18, [2, 3], previous_row=1), Chunk(PROMPT, 0, [4, 5])],
        sampling_batch(3, temperature=[0.0, 0.9, 0.7], seed=[1, 2, 3], position=[6, 19, 20]),
    )
    last = step_batch([Chunk([0], at, pages, previous_row=row) for row, (at, pages) in enumerate(
        [(6, [1]), (19, [2, 3]), (20, [4, 5])])])  # fmt: skip
    for batch in (first, mixed, replace(last, sampling=sampling_batch(3, num_logprobs=3))):
        given, expected = fused.launch(batch).result(), plain.launch(batch).result()
        assert given.token_ids.tolist() == expected.token_ids.tolist()
        assert given.is_finite.all()
        if expected.logprobs is not None and given.logprobs is not None:
            np.testing.assert_allclose(given.logprobs.top_values, expected.logprobs.top_values, atol=1e-4)


@pytest.mark.long
def test_decodes_that_begin_with_the_same_pages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a graph with padding, beside a prompt, and in a graph without groups: every step is that of plain torch."""
    monkeypatch.setattr(shared_prefixes, "_MIN_PAGES", 1)
    monkeypatch.setattr(shared_prefixes, "_MIN_MEMBERS", 2)
    monkeypatch.setattr(triton, "_MIN_SAVED", 0.0)
    limits = replace(LIMITS, cuda_graph_max_bs=4, piecewise_cuda_graph_max_tokens=0)
    fused = build_fused(folder, limits, replace(DEFAULT_BLOCKS, shared_rows=2))
    plain = build_plain_device(folder, num_pages=16, cuda_graph_max_bs=0, dummy=True).runner
    launched: list[int] = []
    decode = SharedDecoding.decode

    def noted(*arguments: Any) -> None:
        launched.append(arguments[1])
        decode(*arguments)

    monkeypatch.setattr(SharedDecoding, "decode", noted)
    shared, own = PROMPT[:16], PROMPT[16:]
    steps = [
        [Chunk([*shared, *own], 0, [1, 2]), Chunk(PROMPT[:7], 0, [4])],
        [Chunk(own[:2], 16, [1, 3])],
        [Chunk([5], 18, [1, 3]), Chunk([6], 7, [4]), Chunk([7], 20, [1, 2])],
        [Chunk([8], 19, [1, 3]), Chunk([9], 21, [1, 2]), Chunk(PROMPT, 0, [5, 6])],
        [Chunk([8], 8, [4]), Chunk([9], 20, [5, 6])],
    ]
    used = []
    for chunks in steps:
        batch = step_batch(chunks, sampling_batch(len(chunks), num_logprobs=3))
        launched.clear()
        given, expected = fused.launch(batch).result(), plain.launch(batch).result()
        assert given.logprobs is not None
        assert expected.logprobs is not None
        np.testing.assert_allclose(given.logprobs.top_values, expected.logprobs.top_values, atol=1e-4)
        used.append((given.captured_size, bool(launched)))
    assert used == [(0, False), (0, False), (4, True), (0, True), (2, False)]
