"""What leaves the engine in one step, and the counts that operators watch.

Nearly all tokens are plain: nothing is said of them but whose they are. They stay arrays from the device to the gateway
worker's socket.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from runtime.batch import Int32, Int64, LogprobRows
from runtime.request import PackedTokens, PromptDelivery, RequestSummary, TokenDelivery, TokenLogprobs
from runtime.scheduling.requests import DraftCounts, Request


@dataclass(frozen=True, slots=True)
class PlainTokens:
    """Tokens of one step that neither began nor ended an answer and have no logprobs; one entry a token."""

    request_ids: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    choices: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    token_ids: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.token_ids)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.request_ids.tolist(), self.choices.tolist(), self.token_ids.tolist(), strict=True)

    def split(self, num_bits: int) -> Iterator[tuple[int, PackedTokens]]:
        """Group the tokens by what stands above the lowest bits of their request ids, which are what is packed."""
        groups = self.request_ids >> num_bits
        own_ids = (self.request_ids & ((1 << num_bits) - 1)).astype("<u8")
        choices, token_ids = self.choices.astype("u1"), self.token_ids.astype("<u4")
        for group in np.unique(groups).tolist():
            mine = groups == group
            packed = PackedTokens(own_ids[mine].tobytes(), choices[mine].tobytes(), token_ids[mine].tobytes())
            yield group, packed


@dataclass(slots=True)
class StepOutput:
    """Everything that clients are told after a step, in this order; may be empty."""

    prompts: list[PromptDelivery] = field(default_factory=list)
    plain: PlainTokens = field(default_factory=PlainTokens)
    tokens: list[TokenDelivery] = field(default_factory=list)
    """What is not plain. No choice has tokens in both."""
    summaries: list[RequestSummary] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.prompts or len(self.plain) or self.tokens or self.summaries)


def prompt_of(request: Request) -> PromptDelivery:
    """What is told of a prompt that was computed."""
    logprobs = request.prompt_logprobs if request.sampling.prompt_logprobs >= 0 else None
    return PromptDelivery(request.id, len(request.prompt), request.cached_tokens, logprobs, request.embedding)


def summary_of(request: Request) -> RequestSummary:
    """What a request took, all of whose choices have ended."""
    return RequestSummary(
        request_id=request.id,
        prompt_tokens=len(request.prompt),
        cached_tokens=request.cached_tokens,
        output_tokens=sum(choice.num_output for choice in request.choices),
        num_retractions=request.num_retractions,
        delivered_tokens=sum(choice.num_delivered for choice in request.choices),
        num_verified=request.drafts.num_verified,
        num_proposed=request.drafts.num_proposed,
        num_accepted=request.drafts.num_accepted,
    )


@dataclass(slots=True)
class Totals:
    """Counts since the start, the engine's own probes excluded."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drafts: DraftCounts = field(default_factory=DraftCounts)


class LogprobLists:
    """A step's `LogprobRows` as Python lists, converted once."""

    def __init__(self, rows: LogprobRows) -> None:
        self._chosen = rows.chosen.tolist()
        self._top_ids = rows.top_ids.tolist()
        self._top_values = rows.top_values.tolist()

    def at(self, row: int, count: int) -> TokenLogprobs:
        """One row, with its `count` most likely tokens."""
        return TokenLogprobs(self._chosen[row], self._top_ids[row][:count], self._top_values[row][:count])
