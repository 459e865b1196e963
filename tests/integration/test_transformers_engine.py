"""The whole engine against transformers, an outside judge: the same greedy tokens, however the engine comes to them.

The decoder alone is compared in `test_transformers_decoder`; here it is what surrounds it: prefix cache, chunks, crowds and
retraction, on a tiny random Llama and on a small trained model.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers

from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from tests.support.engine_runs import ask, build_engine, run_all

DATA = os.environ.get("CASEMATE_TEST_DATA")
NUM_OUTPUT = 60
NO_EOS: list[int] = []


@dataclass(frozen=True)
class Judged:
    """A model folder, prompts, and the judge's greedy continuations."""

    folder: Path
    prompts: list[list[int]]
    expected: list[list[int]]

    def requests(self) -> list[GenerationRequest]:
        return [ask(i, prompt, temperature=0.0, max_tokens=NUM_OUTPUT) for i, prompt in enumerate(self.prompts)]

    def verify(self, **settings: Any) -> dict[str, int]:
        """Run all prompts twice, the second time with a warm cache; returns the engine's counts."""
        runner = build_runner(self.folder, num_pages=settings.pop("num_pages", 100))
        engine = build_engine(runner, eos_token_ids=NO_EOS, **settings)
        for _ in range(2):
            answers = run_all(engine, self.requests())
            assert [answers[i, 0].tokens for i in range(len(self.prompts))] == self.expected
        stats = engine.stats()
        return {"cached": stats.cached_tokens, "retractions": stats.num_retractions}


def judge_greedy(judge: Any, prompt: list[int]) -> list[int]:
    """Greedy tokens from full forward passes, without any cache."""
    token_ids = list(prompt)
    with torch.inference_mode():
        for _ in range(NUM_OUTPUT):
            logits = judge(torch.tensor([token_ids]), use_cache=False).logits[0, -1]
            token_ids.append(int(logits.argmax()))
    return token_ids[len(prompt) :]


def judge_all(judge: Any, folder: Path, vocab_size: int) -> Judged:
    ids = np.random.default_rng(8).integers(3, vocab_size, 100).tolist()
    prompts = [ids[:1], ids[:15], ids[:16], ids[:33], ids[:64], ids[:64] + ids[90:], ids[20:90]]
    return Judged(folder, prompts, [judge_greedy(judge, prompt) for prompt in prompts])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=173,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attn_implementation="eager",
    )
    judge = transformers.LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in judge.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    judge.save_pretrained(folder)
    return judge_all(judge, folder, 173)


@pytest.fixture(scope="module")
def trained() -> Judged:
    if DATA is None:
        pytest.skip("CASEMATE_TEST_DATA is not set: no trained model to compare on")
    folder = Path(DATA) / "models" / "tinystories-656k"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    judge = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return judge_all(judge.eval(), folder, judge.config.vocab_size)


@pytest.fixture(params=["tiny", "trained"])
def judged(request: pytest.FixtureRequest) -> Judged:
    found: Judged = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("chunk", [1, 13, 512])
def test_greedy_tokens_equal_the_judges(judged: Judged, chunk: int) -> None:
    """In chunks of any size, with a cold and then a warm cache."""
    assert judged.verify(chunked_prefill_size=chunk)["cached"] > 150


def test_greedy_tokens_equal_the_judges_after_retraction(judged: Judged) -> None:
    """With pages for one or two of the seven prompts at a time."""
    assert judged.verify(num_pages=10, chunked_prefill_size=32)["retractions"] > 0


def test_embeddings_are_the_judges_last_hidden_states(tiny: Judged) -> None:
    """Of each prompt's last token after the last norm, brought to length 1; in chunks, beside others, and from a warm cache."""
    judge = transformers.AutoModel.from_pretrained(tiny.folder, dtype=torch.float32)
    with torch.inference_mode():
        states = [judge(torch.tensor([prompt])).last_hidden_state[0, -1] for prompt in tiny.prompts]
    expected = [torch.nn.functional.normalize(state, dim=0).numpy() for state in states]
    for chunk in (7, 512):
        runner = build_runner(tiny.folder, num_pages=100)
        engine = build_engine(runner, eos_token_ids=NO_EOS, chunked_prefill_size=chunk)
        for _ in range(2):
            given: dict[int, bytes] = {}
            for index, prompt in enumerate(tiny.prompts):
                asked = ask(index, prompt, temperature=0.0, max_tokens=1)
                engine.submit(msgspec.structs.replace(asked, wants_embedding=True))
            engine.submit(ask(99, tiny.prompts[3], temperature=0.0, max_tokens=5))
            while engine.has_work:
                given |= {prompt.request_id: prompt.embedding for prompt in engine.step().prompts}
            assert given.pop(99) == b""
            for index, vector in enumerate(expected):
                np.testing.assert_allclose(np.frombuffer(given[index], "<f4"), vector, atol=1e-5)
