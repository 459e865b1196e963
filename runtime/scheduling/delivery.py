"""What leaves the engine in one step, and the counts that operators watch."""

from dataclasses import dataclass, field

from runtime.batch import LogprobRows
from runtime.request import PromptDelivery, RequestSummary, TokenDelivery, TokenLogprobs


@dataclass(slots=True)
class StepOutput:
    """Everything that clients are told after a step; may be empty."""

    prompts: list[PromptDelivery] = field(default_factory=list)
    tokens: list[TokenDelivery] = field(default_factory=list)
    summaries: list[RequestSummary] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.prompts or self.tokens or self.summaries)


@dataclass(slots=True)
class Totals:
    """Counts since the start, the engine's own probes excluded."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class LogprobLists:
    """A step's `LogprobRows` as Python lists, converted once."""

    def __init__(self, rows: LogprobRows) -> None:
        self._chosen = rows.chosen.tolist()
        self._top_ids = rows.top_ids.tolist()
        self._top_values = rows.top_values.tolist()

    def at(self, row: int, count: int) -> TokenLogprobs:
        """One row, with its `count` most likely tokens."""
        return TokenLogprobs(self._chosen[row], self._top_ids[row][:count], self._top_values[row][:count])
