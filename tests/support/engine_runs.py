"""Runs requests through an engine to their ends and gives what each choice's client got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.batch import ModelRunner
from runtime.engine.loop import Engine
from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.requests import GrammarSource
from runtime.settings import EngineSettings


@dataclass
class Answer:
    """One choice: its tokens, how it ended, and the logprob of each token if asked for."""

    tokens: list[int] = field(default_factory=list)
    reason: str = ""
    logprobs: list[float] = field(default_factory=list)


def build_engine(
    runner: ModelRunner,
    *,
    eos_token_ids: Sequence[int],
    context_length: int = 256,
    grammars: GrammarSource | None = None,
    **settings: Any,
) -> Engine:
    """An engine over a runner, with settings by name. The clock stands still: nothing here has a deadline."""
    engine_settings = EngineSettings(model_path="unused", **settings)
    return Engine(runner, engine_settings, eos_token_ids, context_length, lambda: 0.0, grammars)


def ask(request_id: int, prompt: Sequence[int], *, n: int = 1, **sampling: Any) -> GenerationRequest:
    """A request with its sampling parameters by name."""
    return GenerationRequest(request_id=request_id, prompt=list(prompt), n=n, sampling=SamplingParams(**sampling))


def run_all(engine: Engine, requests: Sequence[GenerationRequest]) -> dict[tuple[int, int], Answer]:
    """Submit all at once, step to the end with the integrity checked throughout; answers by request and choice."""
    for request in requests:
        engine.submit(request)
    answers = {(request.request_id, choice): Answer() for request in requests for choice in range(request.n)}
    while engine.has_work:
        output = engine.step()
        engine.check_integrity()
        for request_id, choice, token in output.plain:
            answers[request_id, choice].tokens.append(token)
        for delivery in output.tokens:
            answer = answers[delivery.request_id, delivery.choice]
            answer.tokens += delivery.token_ids
            answer.logprobs += [entry.chosen for entry in delivery.logprobs or []]
            answer.reason = "" if delivery.finish is None else delivery.finish.reason
    return answers


def mixed_requests(vocab_size: int, max_tokens: int) -> list[GenerationRequest]:
    """Greedy and sampled, with and without penalties, with shared beginnings, one choice and several."""
    ids = np.random.default_rng(5).integers(3, vocab_size, 120).tolist()
    common: dict[str, Any] = {"max_tokens": max_tokens, "ignore_eos": True, "logprobs": 0}
    return [
        ask(1, ids[:5], temperature=0.0, **common),
        ask(2, ids[:70], temperature=0.0, **common),
        ask(3, ids[:70], temperature=0.9, seed=3, n=3, top_p=0.9, **common),
        ask(4, ids[:75], temperature=1.2, seed=4, top_k=20, repetition_penalty=1.3, **common),
        ask(5, ids[:48] + ids[80:90], temperature=0.0, frequency_penalty=0.7, presence_penalty=0.2, n=2, **common),
        ask(6, ids[40:73], temperature=1.0, seed=6, min_p=0.02, min_tokens=9, max_tokens=25, logprobs=2),
        ask(7, ids[:32], temperature=0.7, seed=7, logit_bias={9: 3.0, 11: -2.0}, **common),
    ]
