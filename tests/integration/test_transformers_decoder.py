"""Our runner against transformers, an outside judge: the same logits and the same greedy tokens.

For each architecture a tiny random checkpoint is written by transformers itself, and read, checked and run by us, with
prompts cut into odd chunks, decodes mixed with prefills, and shared pages. Logits agree within 1e-4 in float32.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from runtime.batch import StepBatch
from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from tests.support.step_batches import Chunk, step_batch

VOCAB_SIZE = 199
PROMPT_LENGTH = 75
TOLERANCE = 1e-4
NUM_PAGES = 40
DATA = os.environ.get("CASEMATE_TEST_DATA")

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_grouped_tied_scaled": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}),
    "llama_untied_biased": (
        "Llama",
        {"num_key_value_heads": 4, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    ),
    "llama_linear_rope_wide_heads": (
        "Llama",
        {"head_dim": 24, "rope_parameters": {"rope_type": "linear", "rope_theta": 5_000.0, "factor": 4.0}},
    ),
    "mistral_sliding": ("Mistral", {"sliding_window": 20, "head_dim": 16}),
    "mistral_full": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_sliding_upper_layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 33, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
    "qwen3_yarn": (
        "Qwen3",
        {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama_yarn_every_parameter": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 500.0,
                "factor": 3.0,
                "original_max_position_embeddings": 48,
                "beta_fast": 8.0,
                "beta_slow": 2.0,
                "mscale": 0.7,
                "mscale_all_dim": 1.4,
                "truncate": False,
            },
        },
    ),
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint, read by both."""

    judge: Any
    runner: TorchRunner
    prompt: list[int]
    expected: torch.Tensor
    """The judge's logits over the prompt, [PROMPT_LENGTH, vocab_size]."""


def write_checkpoint(kind: str, options: dict[str, Any], folder: Path, *, shard_size: str) -> Any:
    """A random model with biases and norms away from their initial values, saved by transformers."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**(SHAPE | options), attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return model


def judge_logits(judge: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = judge(torch.tensor([token_ids]), use_cache=False).logits[0]
    return logits


def judge_greedy(judge: Any, prompt: list[int], count: int) -> list[int]:
    token_ids = list(prompt)
    for _ in range(count):
        token_ids.append(int(judge_logits(judge, token_ids)[-1].argmax()))
    return token_ids[len(prompt) :]


@pytest.fixture(scope="module", params=sorted(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    kind, options = MODELS[request.param]
    folder = tmp_path_factory.mktemp("model")
    sharded = kind in ("Llama", "Qwen3")
    judge = write_checkpoint(kind, options, folder, shard_size="100KB" if sharded else "1GB")
    assert (folder / "model.safetensors.index.json").exists() == sharded
    prompt = np.random.default_rng(3).integers(3, VOCAB_SIZE, PROMPT_LENGTH).tolist()
    return Pair(judge, build_runner(folder, num_pages=NUM_PAGES), prompt, judge_logits(judge, prompt))


def record_logits(runner: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> Callable[[StepBatch], torch.Tensor]:
    """A function that runs a batch and gives the logits of its samples."""
    seen: list[torch.Tensor] = []
    sampler = runner.testing_only_sampler
    sample = sampler.sample

    def spy(logits: torch.Tensor, *arguments: Any) -> Any:
        seen.append(logits.clone())
        return sample(logits, *arguments)

    monkeypatch.setattr(sampler, "sample", spy)

    def run(batch: StepBatch) -> torch.Tensor:
        runner.launch(batch).result()
        return seen.pop()

    return run


@pytest.fixture
def logits_of(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Callable[[StepBatch], torch.Tensor]:
    return record_logits(pair.runner, monkeypatch)


def test_logits_of_a_whole_prompt_agree(pair: Pair, logits_of: Callable[[StepBatch], torch.Tensor]) -> None:
    """Every position of a prompt in one step has the judge's logits within 1e-4."""
    ours = logits_of(step_batch([Chunk(pair.prompt, 0, range(1, 8), sample_all=True)]))
    torch.testing.assert_close(ours, pair.expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [1, 7, 13])
def test_logits_of_odd_chunks_have_the_same_bits(
    pair: Pair, logits_of: Callable[[StepBatch], torch.Tensor], size: int
) -> None:
    """Chunks of any size, beside another sequence that decodes, give the bits of the one-shot prefill at each position."""
    whole = logits_of(step_batch([Chunk(pair.prompt, 0, range(1, 8), sample_all=True)]))
    other = pair.prompt[::-1]
    pair.runner.launch(step_batch([Chunk(other[:20], 0, range(8, 14))])).result()
    pieces = []
    for step, start in enumerate(range(0, PROMPT_LENGTH, size)):
        decode = Chunk([other[(20 + step) % PROMPT_LENGTH]], 20 + step % 60, range(8, 14))
        prefill = Chunk(pair.prompt[start : start + size], start, range(20, 27), sample_all=True)
        chunks = [decode, prefill] if step % 2 else [prefill, decode]
        logits = logits_of(step_batch(chunks))
        pieces.append(logits[1:] if step % 2 else logits[:-1])
    chunked = torch.cat(pieces)
    torch.testing.assert_close(chunked, pair.expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(chunked, whole)


def test_logits_over_shared_pages_agree(pair: Pair, logits_of: Callable[[StepBatch], torch.Tensor]) -> None:
    """A second sequence that reads the first one's pages, computed in the same step or earlier, has the judge's logits."""
    changed = pair.prompt[:48] + pair.prompt[60:45:-1]
    expected = judge_logits(pair.judge, changed)[48:]
    first = Chunk(pair.prompt, 0, [1, 2, 3, 4, 5])
    second = Chunk(changed[48:], 48, [1, 2, 3, 9], sample_all=True)
    together = logits_of(step_batch([first, second]))[1:]
    torch.testing.assert_close(together, expected, rtol=0, atol=TOLERANCE)
    later = logits_of(step_batch([Chunk(changed[48:], 48, [1, 2, 3, 10], sample_all=True)]))
    assert torch.equal(later, together)


def test_greedy_tokens_are_equal(pair: Pair) -> None:
    """Twenty greedy tokens, each step taking its input from the step before on the device, are the judge's."""
    assert run_greedy(pair.runner, pair.prompt, 20) == judge_greedy(pair.judge, pair.prompt, 20)


def run_greedy(runner: TorchRunner, prompt: list[int], count: int) -> list[int]:
    pages = range(1, 2 + (len(prompt) + count) // 16)
    steps = [runner.launch(step_batch([Chunk(prompt, 0, pages)]))]
    for index in range(count - 1):
        steps.append(runner.launch(step_batch([Chunk([0], len(prompt) + index, pages, previous_row=0)])))
    return [int(step.result().token_ids[0]) for step in steps]


@pytest.mark.skipif(DATA is None, reason="CASEMATE_TEST_DATA does not name the folder with outside models")
def test_a_trained_model_writes_the_judges_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """tinystories-656k, written by transformers 4: logits and sixty greedy tokens agree."""
    folder = Path(DATA or "") / "models" / "tinystories-656k"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    judge = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    runner = build_runner(folder, num_pages=NUM_PAGES)
    logits_of = record_logits(runner, monkeypatch)
    for text in ("Once upon a time, there was a little", "The dog and the cat"):
        prompt = tokenizer(text).input_ids
        ours = logits_of(step_batch([Chunk(prompt, 0, [1, 2], sample_all=True)]))
        torch.testing.assert_close(ours, judge_logits(judge, prompt), rtol=0, atol=TOLERANCE)
        assert run_greedy(runner, prompt, 60) == judge_greedy(judge, prompt, 60)
