"""What an engine says of itself."""

from dataclasses import asdict, dataclass

import msgspec

from runtime.batch import StepResult
from runtime.scheduling.batching import StepRecord
from runtime.scheduling.scheduler import Scheduler


@dataclass(slots=True)
class StepCounts:
    """What is known of the steps that were collected; names as in `EngineStats`."""

    last_token_at: float
    num_steps: int = 0
    num_graph_steps: int = 0
    num_draft_steps: int = 0
    num_decodes: int = 0
    draft_prefill_s: float = 0.0
    num_draft_prefill_tokens: int = 0
    busy_s: float = 0.0
    captured_size: int = 0

    def add(self, record: StepRecord, result: StepResult, now: float) -> None:
        """Enter a step. `now` is the engine's clock."""
        if result.is_finite.any():
            self.last_token_at = now
        self.num_steps += 1
        self.num_graph_steps += result.captured_size > 0
        self.num_draft_steps = record.num_steps
        self.num_decodes = record.num_decodes
        self.busy_s += result.busy_s
        self.draft_prefill_s += result.draft_prefill_s
        self.num_draft_prefill_tokens += record.num_prompt_entries
        self.captured_size = result.captured_size


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges of this moment and counts since the start.

    The engine's own probes are in no count of requests and tokens; their steps are steps as any.
    """

    num_running: int
    """Answers that are computed now."""
    num_waiting: int
    """Requests, and answers that were retracted, in the queue."""
    num_pages: int
    """KV pages that requests can have."""
    num_free_pages: int
    num_evictable_pages: int
    """Pages that hold prefixes which nobody reads now."""
    generated_tokens: int
    prompt_tokens: int
    cached_tokens: int
    num_retractions: int
    num_evicted_pages: int
    num_verified: int
    """Passes over an answer's drafts; each gave one token, and one more for every draft that was accepted."""
    num_proposed: int
    """Drafts in these passes."""
    num_accepted: int
    num_draft_steps: int
    """Drafts made for each answer in the last step that was collected."""
    num_decodes: int
    """Answers in the last step that was collected, if it did nothing but decode; else 0."""
    draft_prefill_s: float
    """Of `busy_s`, what the draft head needed in steps with prompts or with late entries: its own prefill."""
    num_draft_prefill_tokens: int
    """Prompt tokens that the head read in the step that computed them."""
    num_late_entries: int
    """Tokens, of prompts and answers, that it read later, as drafts were wanted again."""
    num_lost_entries: int
    """Tokens that it could read no more then: it drafts with what comes behind them."""
    num_steps: int
    num_graph_steps: int
    """Of `num_steps`, those that ran in a graph."""
    busy_s: float
    """Time that steps took on the device; 0.0 where the runner does not measure it."""
    captured_size: int
    """Batch size of the graph that the last step collected ran in; 0: it ran outside a graph."""
    last_token_at: float
    """When a token last came out of the model, a probe's included, on the engine's clock; its start, if none did."""


def gather_stats(scheduler: Scheduler, steps: StepCounts) -> EngineStats:
    """From those who count: the scheduler and its parts, the cache, and the steps that were collected."""
    cache, backlog, totals = scheduler.cache, scheduler.backlog, scheduler.totals
    return EngineStats(
        num_running=scheduler.num_running,
        num_waiting=scheduler.num_waiting,
        num_retractions=scheduler.num_retractions,
        num_pages=cache.num_usable,
        num_free_pages=cache.num_free,
        num_evictable_pages=cache.num_evictable,
        num_evicted_pages=cache.num_evicted,
        generated_tokens=totals.generated_tokens,
        prompt_tokens=totals.prompt_tokens,
        cached_tokens=totals.cached_tokens,
        num_late_entries=backlog.num_late,
        num_lost_entries=backlog.num_lost,
        **asdict(totals.drafts),
        **asdict(steps),
    )
