"""The engine with the real runner on a CPU: a text depends on its request alone, to the last bit.

A tiny random Llama answers the same requests under every way in which an engine may come to them. Tokens and logprobs are
compared with `==`: in float32 on one machine nothing may differ.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from tests.support.engine_runs import Answer, ask, build_engine, mixed_requests, run_all

VOCAB_SIZE = 131
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 2, 4, 2, 12, 80
EOS = 2
NUM_PAGES = 80
Answers = dict[tuple[int, int], Answer]


def write_tiny_llama(folder: Path) -> None:
    """A Llama checkpoint with random weights in the Hugging Face layout."""
    random = np.random.default_rng(11)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(0.0, 0.25, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(VOCAB_SIZE, HIDDEN), "model.norm.weight": 1 + matrix(HIDDEN)}
    weights["lm_head.weight"] = matrix(VOCAB_SIZE, HIDDEN)
    shapes = {
        "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
        "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        weights |= {f"{prefix}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        weights |= {
            f"{prefix}.{name}.weight": 1 + matrix(HIDDEN) for name in ("input_layernorm", "post_attention_layernorm")
        }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))


def requests() -> list[GenerationRequest]:
    """Seven of forty tokens each."""
    return mixed_requests(VOCAB_SIZE, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-llama")
    write_tiny_llama(path)
    return path


@pytest.fixture(scope="module")
def runner(folder: Path) -> TorchRunner:
    return build_runner(folder, num_pages=NUM_PAGES)


@pytest.fixture(scope="module")
def alone(runner: TorchRunner) -> Answers:
    """What each request gets in an engine of its own: nothing cached, in one chunk, read after every step."""
    answers: Answers = {}
    for request in requests():
        engine = build_engine(runner, eos_token_ids=[EOS], overlap_schedule=False, disable_radix_cache=True)
        answers |= run_all(engine, [request])
    assert all(len(answer.logprobs) == len(answer.tokens) for answer in answers.values())
    assert len({tuple(answers[3, choice].tokens) for choice in range(3)}) == 3
    return answers


@pytest.mark.parametrize("chunk", [1, 7, 16, 512])
def test_crowd_changes_nothing_with_a_cold_and_a_warm_cache(runner: TorchRunner, alone: Answers, chunk: int) -> None:
    """All at once in chunks of any size; then again, with every prefix in the cache."""
    engine = build_engine(runner, eos_token_ids=[EOS], chunked_prefill_size=chunk)
    assert run_all(engine, requests()) == alone
    cached = engine.stats().cached_tokens
    assert run_all(engine, requests()) == alone
    assert engine.stats().cached_tokens >= cached + 5 * 32


def test_reading_after_every_step_changes_nothing(runner: TorchRunner, alone: Answers) -> None:
    """The same without overlap."""
    assert run_all(build_engine(runner, eos_token_ids=[EOS], overlap_schedule=False), requests()) == alone


def test_retraction_changes_nothing(folder: Path, alone: Answers) -> None:
    """With a fifth of the memory requests are retracted and computed again from where they were."""
    engine = build_engine(
        build_runner(folder, num_pages=16), eos_token_ids=[EOS], chunked_prefill_size=32, schedule_policy="lpm"
    )
    assert run_all(engine, requests()) == alone
    stats = engine.stats()
    assert stats.num_retractions > 0
    assert stats.num_evicted_pages > 0


def test_prompt_logprobs_are_the_same_with_a_warm_cache_and_odd_chunks(runner: TorchRunner) -> None:
    """They are computed anew when asked for, so cached pages change nothing."""
    prompt = requests()[1].prompt
    results = []
    for chunk in (512, 7):
        engine = build_engine(runner, eos_token_ids=[EOS], chunked_prefill_size=chunk)
        run_all(engine, requests()[1:4])
        engine.submit(ask(9, prompt, max_tokens=1, temperature=0.0, prompt_logprobs=3))
        deliveries = []
        while engine.has_work:
            deliveries += engine.step().prompts
        assert [delivery.cached_tokens for delivery in deliveries] == [0]
        results.append(deliveries[0].logprobs)
    assert results[0] == results[1]
    assert results[0] is not None
    assert len(results[0]) == len(prompt)


@pytest.mark.parametrize("overlap", [True, False])
def test_broken_values_of_others_break_no_answer(folder: Path, alone: Answers, *, overlap: bool) -> None:
    """Who shared them starts once more by itself, every choice; and who comes later finds whole values."""
    runner = build_runner(folder, num_pages=NUM_PAGES)
    engine = build_engine(runner, eos_token_ids=[EOS], overlap_schedule=overlap)
    run_all(engine, requests()[1:2])
    with torch.inference_mode():
        runner.pages.fill_(torch.nan)
    sharing = requests()[2:4]
    expected = {key: answer for key, answer in alone.items() if key[0] in (3, 4)}
    assert run_all(engine, sharing) == expected
    stats = engine.stats()
    assert stats.cached_tokens == 0
    assert run_all(engine, sharing) == expected
    assert engine.stats().cached_tokens > 0
    assert engine.stats().num_free_pages + engine.stats().num_evictable_pages == stats.num_pages


def test_probe_proves_the_real_model(runner: TorchRunner) -> None:
    """One token comes out of it, and no page stays taken."""
    engine = build_engine(runner, eos_token_ids=[EOS])
    engine.probe()
    stats = engine.stats()
    assert stats.num_steps == 1
    assert stats.num_free_pages == stats.num_pages
