"""A model that ranks share computes what one rank computes of the whole model, whatever its form."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from runtime.batch import LaunchedStep, ModelRunner, StepBatch, StepResult
from runtime.errors import EngineMisconfigured
from runtime.parallel.channel import Channel, open_channels
from runtime.parallel.leading import RanksDisagree
from runtime.runner.building import build_runner
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import VOCAB_SIZE, write_head, write_target
from tests.support.engine_runs import Answer, ask, build_engine, mixed_requests, run_all
from tests.support.quantized_checkpoints import (
    CONFIG,
    FORMATS,
    dequantize_stored,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)
from tests.support.ranks import started_ranks
from tests.support.speculation_runs import SPECULATION, tokens_of

Answers = dict[tuple[int, int], Answer]
Tensors = dict[str, torch.Tensor]
TIGHT = 5e-4
"""Logprobs in float32 by sums in another order."""


def write_model(folder: Path, change: Callable[[Tensors], Tensors] = lambda tensors: tensors, **config: Any) -> Path:
    """The small Llama of the quantized checkpoints in float32, with 4 key/value heads."""
    tensors = change({name: tensor.float() for name, tensor in plain_tensors().items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"torch_dtype": "float32"} | config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def with_biases(tensors: Tensors) -> Tensors:
    """Every linear layer has one; the head is the embedding."""
    generator = torch.Generator().manual_seed(5)
    del tensors["lm_head.weight"]
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name.replace("weight", "bias")] = torch.randn(len(tensors[name]), generator=generator) * 0.2
    return tensors


def with_odd_vocabulary(tensors: Tensors) -> Tensors:
    """It cannot be shared out evenly, so each rank computes all logits."""
    names = ("lm_head.weight", "model.embed_tokens.weight")
    return tensors | {name: tensors[name][:91].contiguous() for name in names}


def with_head_norms(tensors: Tensors) -> Tensors:
    """Qwen3's, over queries and keys."""
    norms = (f"model.layers.{layer}.self_attn.{part}_norm.weight" for layer in range(2) for part in "qk")
    return tensors | {name: 1 + torch.arange(32) / 32 for name in norms}


STATIC = FORMATS["compressed-tensors, tensor, static"]
"""Here all ranks round by the same scales; by those of its own part of a row each would come out a little elsewhere."""
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
BIASES = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": write_model,
    "qwen3": lambda folder: write_model(folder, with_head_norms, **QWEN3),
    "biases": lambda folder: write_model(folder, with_biases, **BIASES),
    "odd vocabulary": lambda folder: write_model(folder, with_odd_vocabulary, vocab_size=91),
    "static e4m3": lambda folder: write_checkpoint(folder, quantized_tensors(STATIC), STATIC.declared),
}


def assert_same_answers(got: Answers, expected: Answers) -> None:
    assert tokens_of(got) == tokens_of(expected)
    for key, answer in got.items():
        np.testing.assert_allclose(answer.logprobs, expected[key].logprobs, rtol=0, atol=TIGHT)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_texts_are_those_of_one_rank(name: str, size: int, tmp_path: Path) -> None:
    """Greedy and sampled, with and without penalties, n of several: the same tokens, and logprobs up to rounding."""
    folder = MODELS[name](tmp_path)
    requests = mixed_requests(91, 6)

    def build(channel: Channel | None = None) -> ModelRunner:
        return build_runner(folder, num_pages=60, channel=channel)

    expected = run_all(build_engine(build(), eos_token_ids=[2]), requests)
    with started_ranks(size, build) as ranks:
        got = run_all(build_engine(ranks.leading, eos_token_ids=[2]), requests)
    assert_same_answers(got, expected)


@pytest.mark.parametrize("is_on_device", [False, True])
def test_drafts_of_ranks_are_those_of_one(tmp_path: Path, *, is_on_device: bool) -> None:
    """Every rank has the whole head, drafts the same, and accepts the same; on the reference and in graphs."""
    (tmp_path / "head").mkdir()
    folder, head = write_target(tmp_path / "target"), write_head(tmp_path / "head")
    source = HeadSource(head, is_dummy=False)
    num_steps = SPECULATION["speculative_num_steps"]
    requests = mixed_requests(VOCAB_SIZE, 8)[:4]

    def build(channel: Channel | None = None) -> ModelRunner:
        if is_on_device:
            return build_plain_device(
                folder, num_pages=80, head=source, num_steps=num_steps, cuda_graph_max_bs=2,
                piecewise_cuda_graph_max_tokens=0, channel=channel,
            ).runner  # fmt: skip
        return build_runner(folder, num_pages=80, head=source, channel=channel)

    expected = run_all(build_engine(build(), eos_token_ids=[2], **SPECULATION), requests)
    with started_ranks(2, build) as ranks:
        engine = build_engine(ranks.leading, eos_token_ids=[2], **SPECULATION)
        got = run_all(engine, requests)
    assert_same_answers(got, expected)
    assert engine.stats().num_proposed > 0


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", ["llama", "biases", "odd vocabulary", "static e4m3"])
def test_graphs_of_ranks_compute_what_one_computes(name: str, size: int, tmp_path: Path) -> None:
    """The way of a GPU: parts in memory that all can read, graphs with padding, pieces of steps with prompts."""
    folder = MODELS[name](tmp_path)
    requests = mixed_requests(91, 4)

    def build(channel: Channel | None = None) -> ModelRunner:
        return build_plain_device(
            folder, num_pages=60, cuda_graph_max_bs=4, piecewise_cuda_graph_max_tokens=32, channel=channel
        ).runner

    expected = run_all(build_engine(build(), eos_token_ids=[2]), requests)
    with started_ranks(size, build) as ranks:
        got = run_all(build_engine(ranks.leading, eos_token_ids=[2]), requests)
    assert_same_answers(got, expected)


def prompt_logprobs(runner: ModelRunner) -> np.ndarray:
    engine = build_engine(runner, eos_token_ids=[])
    engine.submit(ask(1, np.random.default_rng(1).integers(3, 96, 150).tolist(), max_tokens=1, prompt_logprobs=0))
    found: list[float] = []
    while engine.has_work:
        found += [
            entry.chosen for told in engine.step().prompts for entry in (told.logprobs or []) if entry is not None
        ]
    return np.array(found)


@pytest.mark.parametrize("name", ["compressed-tensors, tensor, dynamic", "fbgemm_fp8"])
def test_dynamic_scales_of_ranks_are_as_good_as_those_of_one(name: str, tmp_path: Path) -> None:
    """Each rank rounds its own part of a row by its own scale, so texts may differ; those of unrounded inputs are as near."""
    stored, declared = quantized_tensors(FORMATS[name]), FORMATS[name].declared
    modules = [key.removesuffix(".weight") for key, tensor in stored.items() if tensor.dtype == torch.float8_e4m3fn]
    plain = {key: tensor for key, tensor in stored.items() if key.rpartition(".")[0] not in modules}
    plain |= {f"{module}.weight": dequantize_stored(stored, module).bfloat16() for module in modules}
    for folder in ("rounded", "plain"):
        (tmp_path / folder).mkdir()
    rounded = write_checkpoint(tmp_path / "rounded", stored, declared)
    unrounded = prompt_logprobs(build_runner(write_checkpoint(tmp_path / "plain", plain, None), num_pages=40))
    alone = prompt_logprobs(build_runner(rounded, num_pages=40))
    with started_ranks(2, lambda channel: build_runner(rounded, num_pages=40, channel=channel)) as ranks:
        shared = prompt_logprobs(ranks.leading)
    assert np.abs(shared - unrounded).mean() < 1.2 * np.abs(alone - unrounded).mean()
    assert not np.array_equal(shared, alone)


class Contrary:
    """A rank that chooses other tokens from its third step on."""

    def __init__(self, runner: ModelRunner) -> None:
        self.vocab_size, self.num_pages, self.mixed_sizes = runner.vocab_size, runner.num_pages, runner.mixed_sizes
        self._runner, self._num_steps = runner, 0

    def launch(self, batch: StepBatch) -> LaunchedStep:
        self._num_steps += 1
        return Elsewhere(self._runner.launch(batch), int(self._num_steps > 2))


@dataclass
class Elsewhere:
    step: LaunchedStep
    offset: int

    def result(self) -> StepResult:
        result = self.step.result()
        return replace(result, token_ids=result.token_ids + self.offset)


def test_ranks_that_disagree_end_the_engine(tmp_path: Path) -> None:
    """Nothing goes on from two different texts."""
    folder = write_model(tmp_path)

    def build(channel: Channel) -> ModelRunner:
        runner = build_runner(folder, num_pages=60, channel=channel)
        return Contrary(runner) if channel.share.rank == 2 else runner

    requests = [ask(1, [5, 6, 7], max_tokens=20, temperature=0.0, ignore_eos=True)]
    with started_ranks(4, build) as ranks, pytest.raises(RanksDisagree, match="rank 2 chose other tokens"):
        run_all(build_engine(ranks.leading, eos_token_ids=[2]), requests)


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        (3, {}, "tp_size: expected a divisor of the model's 4 key/value heads, found 3"),
        (8, {}, "tp_size: expected a divisor of the model's 4 key/value heads, found 8"),
        (2, {"intermediate_size": 255}, "tp_size: expected a divisor of the model's 255 inner features, found 2"),
    ],
)
def test_a_model_that_cannot_be_shared_out_is_refused_by_name(
    size: int, changes: dict[str, int], message: str, tmp_path: Path
) -> None:
    """Before anything is read."""
    folder = write_model(tmp_path, **changes)
    channels = open_channels(size)
    with pytest.raises(EngineMisconfigured) as refused:
        build_runner(folder, num_pages=60, channel=channels[0])
    assert str(refused.value) == message
    for channel in channels:
        channel.close()
