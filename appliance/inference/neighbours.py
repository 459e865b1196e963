"""What the service needs of those around it: the engine, what it gives after a step, and the workers' links."""

from collections.abc import Iterator
from typing import Protocol

from appliance.messages.engine import RequestRefused, StepTokens
from runtime.request import GenerationRequest, PackedTokens, PromptDelivery, RequestSummary, TokenDelivery


class WorkerLink(Protocol):
    """The link to one life of a gateway worker; compared by identity."""

    @property
    def peer_instance(self) -> int:
        """Its number among the workers, by which tickets name it."""


Sent = list[tuple[WorkerLink, StepTokens | RequestRefused]]
"""Messages in the order in which the caller MUST send them."""


class PlainTokens(Protocol):
    """What `runtime.scheduling.delivery.PlainTokens` gives."""

    def split(self, num_bits: int) -> Iterator[tuple[int, PackedTokens]]:
        """By worker: what stands above `num_bits` of a request's id, and the tokens of those requests."""
        ...


class StepOutput(Protocol):
    """What `runtime.engine` gives after a step."""

    @property
    def prompts(self) -> list[PromptDelivery]:
        """One for each request, with or before its first token."""
        ...

    @property
    def plain(self) -> PlainTokens:
        """Tokens that neither begin nor end an answer and come with nothing else."""
        ...

    @property
    def tokens(self) -> list[TokenDelivery]:
        """All other tokens."""
        ...

    @property
    def summaries(self) -> list[RequestSummary]:
        """Requests of which all choices have ended, and their counts."""
        ...


class Engine(Protocol):
    """What the service needs of `runtime.engine`."""

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. Raises: RequestRejected, QueueFull, EngineUnavailable."""
        ...

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a request or one choice of it; the next step says so. Unknown ids are ignored."""
        ...
