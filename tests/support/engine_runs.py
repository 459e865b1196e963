"""Runs requests through an engine to their ends and gives what each choice's client got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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
