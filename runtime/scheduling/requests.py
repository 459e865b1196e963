"""Requests, their choices, and the sequences that compute them: plain state with one owner, the scheduler.

A request has `n` choices. While its prompt is computed one sequence carries all of them; with the prompt's last
chunk it forks, and from then on every choice has a sequence of its own over shared pages. A sequence waits, runs (it has a
row in the table), may be retracted to wait again, and ends.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from runtime.batch import Int32
from runtime.errors import RequestRejected
from runtime.kv.prefixes import PrefixNode
from runtime.request import Finish, GenerationRequest, SamplingParams, TokenLogprobs
from runtime.scheduling.seen import SeenTokens

NOT_RUNNING = -1
SEED_MASK = (1 << 63) - 1


class Matcher(Protocol):
    """A grammar's state along one choice; `runtime.structured.matching` has it."""

    @property
    def fault(self) -> str:
        """A stable word for why it cannot go on, or empty."""
        ...

    def accept(self, token_id: int) -> None:
        """The next token."""
        ...

    def fill(self, mask: Int32) -> None:
        """Write which tokens may come next: packed bits, lowest first."""
        ...

    def fill_along(self, drafts: list[int], parents: list[int], ending_ids: Collection[int], masks: Int32) -> list[int]:
        """Write what may come next, and after each of `drafts` that the grammar allows; it stands where it stood afterwards.

        Args:
            parents: what each draft follows: 0 what there is, i + 1 draft i, an earlier one.
            ending_ids: drafts that nothing may follow.
            masks: see `fill`; those written are the first ones.
        Returns: what each of them is for: first 0, and i + 1 for draft i.
        """
        ...


class GrammarSource(Protocol):
    """Makes matchers; `runtime.structured.matching` has it."""

    @property
    def num_words(self) -> int:
        """Words of a mask."""
        ...

    def matcher(self, grammar: bytes) -> Matcher:
        """A matcher at the beginning of a text. Raises: RequestRejected."""
        ...


@dataclass(slots=True)
class DraftCounts:
    """What speculation did for somebody."""

    num_verified: int = 0
    """Passes of the target that verified drafts."""
    num_proposed: int = 0
    """Drafts that they verified."""
    num_accepted: int = 0
    """Drafts that were the tokens chosen."""

    def add(self, other: "DraftCounts") -> None:
        """Count what another one counted."""
        self.num_verified += other.num_verified
        self.num_proposed += other.num_proposed
        self.num_accepted += other.num_accepted


@dataclass(slots=True, eq=False)
class Choice:
    """One answer to a request."""

    index: int
    seed: int
    output: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """Tokens that were read and delivered, while it waits; those of a running one stand in its row of the table."""
    num_output: int = 0
    """Once it ended: tokens that count, less those that a cut took back."""
    num_delivered: int = 0
    """Once it ended: all tokens that ever left, those that were cut later included."""
    seen: SeenTokens | None = None
    """Occurrences in prompt and output, for penalties only."""
    matcher: Matcher | None = None
    """The grammar that its output follows, if any, told of every token that was read."""
    finish: Finish | None = None
    sequence: "Sequence | None" = None
    """What computes it; None once it ended."""


@dataclass(slots=True, eq=False)
class Request:
    """One submitted request until all its choices have ended."""

    id: int
    prompt: Int32
    sampling: SamplingParams
    namespace: bytes
    priority: int
    deadline: float | None
    caches_output: bool
    wants_embedding: bool
    arrival: int
    """Number of the submission; retraction keeps it, so a retracted request comes before newer ones."""
    start_tag: int
    """Place among tenants, see `runtime.scheduling.fairness`."""
    ending_ids: frozenset[int]
    """Tokens that end a choice."""
    is_internal: bool
    """The engine's own probe: nothing of it is delivered or counted."""
    choices: list[Choice] = field(default_factory=list)
    cached_tokens: int = 0
    num_retractions: int = 0
    prompt_delivered: bool = False
    is_alone: bool = False
    """Pages of others, or drafts, may have broken its values: what is started from now on does without."""
    embedding: bytes = b""
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    drafts: DraftCounts = field(default_factory=DraftCounts)
    """Of all choices, as far as their sequences have stopped."""

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether the prompt must be computed in full: logprobs are asked for and not delivered yet."""
        return self.sampling.prompt_logprobs >= 0 and not self.prompt_delivered

    @property
    def computes_all(self) -> bool:
        """Whether nothing is read that others have computed."""
        return self.is_alone or self.wants_prompt_logprobs


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens whose keys and values are computed for one choice, or for several that still share all of them."""

    request: Request
    choices: list[Choice]
    row: int = NOT_RUNNING
    cursor: PrefixNode | None = None
    """While running: the deepest node of the prefix tree on the sequence's own path."""
    publishes: bool = False
    """Whether its next full page of the prompt goes into the tree as it is launched."""
    reads_others: bool = False
    """Whether it reads pages, since it was started, that the tree had."""
    num_overtaken: int = 0
    """How often a later one was admitted before it."""
    known_prefix: list[PrefixNode] = field(default_factory=list)
    """While waiting: what the tree was found to have of its tokens; the next look goes on from there."""

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Who comes first: higher priority, then the tenant whose turn it is, then earlier arrival, then lower choice."""
        return (-self.request.priority, self.request.start_tag, self.request.arrival, self.choices[0].index)

    def tokens(self) -> Int32:
        """Prompt and output so far: what must be in the cache for the next token."""
        output = self.choices[0].output
        return np.concatenate([self.request.prompt, output]) if len(output) else self.request.prompt


def make_matchers(asked: GenerationRequest, grammars: GrammarSource | None) -> list[Matcher]:
    """One for each choice, if the output follows a grammar. Raises: RequestRejected."""
    if not asked.grammar:
        return []
    if grammars is None:
        raise RequestRejected("invalid_grammar", "this engine constrains no output")
    return [grammars.matcher(asked.grammar) for _ in range(asked.n)]


def build_request(
    asked: GenerationRequest,
    *,
    arrival: int,
    eos_token_ids: Iterable[int],
    is_internal: bool,
    start_tag: int = 0,
    matchers: Iterable[Matcher] = (),
) -> Request:
    """The engine's state for a request that `limits` has accepted."""
    sampling = asked.sampling
    request = Request(
        id=asked.request_id,
        prompt=np.array(asked.prompt, np.int32),
        sampling=sampling,
        namespace=asked.namespace,
        priority=asked.priority,
        deadline=asked.deadline,
        caches_output=asked.caches_output,
        wants_embedding=asked.wants_embedding,
        arrival=arrival,
        start_tag=start_tag,
        ending_ids=frozenset(sampling.stop_token_ids) | frozenset(() if sampling.ignore_eos else eos_token_ids),
        is_internal=is_internal,
    )
    request.choices = [Choice(index, choice_seed(sampling.seed, index)) for index in range(asked.n)]
    sequence = Sequence(request, list(request.choices))
    for choice in request.choices:
        choice.sequence = sequence
        if has_penalty(sampling):
            choice.seen = SeenTokens(request.prompt)
    for choice, matcher in zip(request.choices, matchers, strict=False):
        choice.matcher = matcher
    return request


def has_penalty(sampling: SamplingParams) -> bool:
    """Whether the next token depends on which tokens were there before."""
    return sampling.frequency_penalty != 0.0 or sampling.presence_penalty != 0.0 or sampling.repetition_penalty != 1.0


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one of a request's choices; choice 0 has the request's own.

    The others are spread by a multiplication, so that choice 1 of seed 7 is not choice 0 of seed 8.
    """
    if choice == 0:
        return seed
    mixed = (seed ^ (choice * 0x9E3779B97F4A7C15)) & ((1 << 64) - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & ((1 << 64) - 1)
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & ((1 << 64) - 1)
    return (mixed ^ (mixed >> 31)) & SEED_MASK
