"""What is told about a request that ended, to whoever observes: never what was said in it, nor by whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.gateway.trace_context import TraceContext

UNMATCHED = "unmatched"
"""All paths together that are no route's."""
OTHER_METHOD = "other"
"""All methods together that no route could have."""


@dataclass(frozen=True, slots=True)
class EndedInference:
    """The part of a request that a model answered; times in seconds."""

    request_id: str
    route: str
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int
    """0: all."""
    frequency_penalty: float
    presence_penalty: float
    num_choices: int
    is_streamed: bool
    is_embedding: bool
    """Nothing was sampled: the rest of the parameters, and the one token, are the engine's own business."""
    finish_reasons: Sequence[str]
    """As the client was told them, in OpenAI's words."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int | None
    """Of those put out; None for models that do not reason, and for APIs that do not tell reasoning from text."""
    duration_s: float
    first_token_s: float | None
    """From the request's arrival to the first token; None if none came."""
    intents: Sequence[int]
    """Indices of its records in the audit log."""


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """One HTTP request."""

    trace: TraceContext
    method: str
    """One that HTTP knows, or `OTHER_METHOD`."""
    route: str
    """The route's template, or `UNMATCHED`: never a path that a client made up."""
    status: int
    duration_s: float
    error: str
    """Stable word for what went wrong; empty if nothing did."""
    inference: EndedInference | None


class ReadAnswer(Protocol):
    """What reading an answer's text found, of all choices."""

    @property
    def finish_reasons(self) -> Sequence[str]:
        """Of the choices that ended."""
        ...

    @property
    def reasoning_tokens(self) -> int | None:
        """None for models that do not reason."""
        ...


class Observer(Protocol):
    """Is told of every request. Must not wait, and must not raise."""

    def request_ended(self, ended: EndedRequest) -> None:
        """One request is over."""
        ...


class Exporting(Observer, Protocol):
    """An observer that has something left to send when it is shut down."""

    def shutdown(self) -> None:
        """Send it, in bounded time."""
        ...
