"""What one forward pass computes: the contract between scheduler and model runner.

The scheduler fills a `StepBatch` with host arrays, vectorized over the batch; a runner launches it and later gives a
`StepResult`. A runner never sees requests, a scheduler never sees tensors, so each is tested without the other, and the
same batch drives the CPU reference, captured graphs and any attention backend.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.step_sizes import MixedSizes

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Sampling parameters of the rows that get a token in this step, one entry a row.

    Dense fields have shape [num_samples]. Penalties and bias are sparse: `bias_rows[i], bias_ids[i], bias_values[i]` adds
    a value to one logit; `seen_rows, seen_ids, seen_prompt_counts, seen_output_counts` list, for rows with a penalty
    only, every distinct token id in the context with how often it occurs in prompt and output.
    """

    temperature: Float32
    top_p: Float32
    top_k: Int32
    """0: no limit."""
    min_p: Float32
    seed: Int64
    position: Int64
    """Position in the sequence of the token to be chosen; part of the noise's hash."""
    frequency_penalty: Float32
    presence_penalty: Float32
    repetition_penalty: Float32
    num_logprobs: Int32
    """-1: none."""
    bias_rows: Int32
    bias_ids: Int32
    bias_values: Float32
    seen_rows: Int32
    seen_ids: Int32
    seen_prompt_counts: Int32
    seen_output_counts: Int32
    banned_rows: Int32
    banned_ids: Int32
    """Ids that cannot be chosen in a row (end-of-sequence before `min_tokens`)."""
    allowed_rows: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """[num_masked]; rows that a grammar constrains."""
    allowed_bits: Int32 = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    """[num_masked, ceil(vocab_size / 32)]; which ids each of them may choose, packed, lowest bit first."""

    def demanding_rows(self) -> Int64:
        """Those whose choice needs more than temperature and noise; ascending."""
        demands = (self.temperature > 0) & ((self.top_p < 1) | (self.top_k > 0) | (self.min_p > 0))
        for rows in (self.bias_rows, self.seen_rows, self.banned_rows, self.allowed_rows):
            demands[rows] = True
        return np.flatnonzero(demands)

    def select(self, rows: Int64) -> "SamplingBatch":
        """Of some rows, ascending, which are all that the sparse fields name."""
        dense = (
            "temperature", "top_p", "top_k", "min_p", "seed", "position", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "num_logprobs",
        )  # fmt: skip
        sparse = ("bias_rows", "seen_rows", "banned_rows", "allowed_rows")
        fields: dict[str, Any] = {name: getattr(self, name)[rows] for name in dense}
        fields |= {name: np.searchsorted(rows, getattr(self, name)).astype(np.int32) for name in sparse}
        return replace(self, **fields)


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """What a step says of its drafts where they form trees."""

    parents: Int32
    """[num_tokens]; behind the first row of a sequence that decodes: which of its rows is the parent, counted from its first,
    always an earlier one. 0 elsewhere, and where the sequence is `continued`: there the device knows."""
    topk: int
    """Children of a node that are looked at as the next drafts are made."""
    num_drafts: int
    """Nodes to keep of them, for each chain."""


BACKLOG_SIZE = 8192
"""Rows whose hidden states a runner keeps for entries that are made later; of Llama-3.1-8B they take 192 MiB."""


@dataclass(frozen=True, slots=True)
class LateEntries:
    """Entries of the head that are made before a step from what earlier steps kept; one entry each."""

    places: Int32
    """In the backlog."""
    positions: Int64
    slots: Int64


@dataclass(frozen=True, slots=True)
class SpeculationBatch:
    """What a step of a speculating engine says beside its tokens. See `runtime.speculative` for what such a step is.

    A *chain* is what one answer gets from the step: one token and, for each draft that it verifies, one more at most. Chain i
    owns samples `chain_starts[i]:chain_starts[i+1]`, of rows that follow each other; its tokens are those up to the first
    that differs from the draft in the row behind it.

    A sequence that continues a chain whose tokens the host has not seen (`continued`) does not know its place: its
    `positions`, `context_lengths` and sampling positions are those it has if that chain gave one token, and the device adds
    how many more there were. Its ids, slots and drafts are found on the device, too; what the batch holds in their place
    means nothing. What comes to lie beyond the pages in its table is of an answer that has ended: it goes to page 0.

    With `tree` a chain's rows are a tree in order of depth: the newest token, then its drafts. Row i has the i-th place behind the
    sequence's first, by slot, and stands at the position of its depth; it attends to what is before the first row, and
    to its ancestors and itself. Where the sequence is `continued`, depths are not known: all its rows have the position of the
    first. `context_lengths` count places. The chain's tokens are those chosen on the path that begins at the first row and goes
    on to the child that is the token chosen; then the runner moves what it cached on the path to its first places.
    """

    num_decodes: int
    """The first so many sequences decode: each has one chain, over all of its rows."""
    num_pages: Int32
    """[num_sequences]; pages in each one's table."""
    chain_starts: Int32
    """[num_chains + 1]"""
    continued: Int32
    """[num_sequences]; chain of the step before, -1 where ids and places are known."""
    num_drafts: Int32
    """[num_sequences]; rows behind the sequence's first that hold drafts to be verified; 0 for prompts' chunks."""
    next_ids: Int64
    """[num_tokens]; the token after each row, for the head's entries; -1 where this step chooses it."""
    num_steps: int
    """Drafts to make after the pass, for every chain; 0: none."""
    drafts: Bool
    """[num_chains]; whose drafts will be used: of the others anything may be given."""
    tree: TreeBatch | None = None
    """None: every draft follows the row before it."""
    deferred: Int32 | None = None
    """[num_tokens]; the step makes no entries: it keeps what each row's follows from at a place of the backlog, below
    `BACKLOG_SIZE`, or drops it (-1). Such a step verifies and makes no drafts. None: it makes all entries."""
    late: LateEntries | None = None
    first_pages: Int32 | None = None
    """[num_chains]; pages at the beginning of its table that the head does not look at for a chain's drafts, since they lack
    entries. None: it looks at all."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One forward pass over the concatenated new tokens of several sequences, prefill chunks and decodes mixed.

    Sequence i owns rows `query_starts[i]:query_starts[i+1]`; its last row stands at position `context_lengths[i] - 1`.
    Before the pass each `(source, destination)` of `page_copies` is copied whole, for forks of a partly filled page.

    A sequence may read pages that another one of the same batch writes, as requests with equal prompts share a prefill in
    progress: all keys and values of a layer are in their slots before any row of the batch attends in it. Steps take effect
    in the order of their launch, so a page may belong to another sequence in the step after.
    """

    token_ids: Int64
    """[num_tokens]; -1 where `previous_rows` says which sample of the step before it is."""
    previous_rows: Int32
    """[num_tokens]; row in the previous step's samples, -1 where `token_ids` holds the id."""
    positions: Int64
    """[num_tokens], from 0."""
    slots: Int64
    """[num_tokens]; where each token's key and value go: page * PAGE_SIZE + offset. 0..15 (page 0) for padding."""
    query_starts: Int32
    """[num_sequences + 1]"""
    context_lengths: Int32
    """[num_sequences]; tokens in the cache after this step, new ones included."""
    page_tables: Int32
    """[num_sequences, max_pages]; filled up with 0."""
    sample_rows: Int32
    """[num_samples]; token rows whose next token is chosen, in the order of `sampling`. A row may occur several times (n > 1)."""
    sampling: SamplingBatch
    page_copies: Int32
    """[num_copies, 2]"""
    prompt_logprob_rows: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """[num_scored]; token rows whose *next prompt token's* logprob is asked for."""
    prompt_logprob_targets: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[num_scored]; that next token's id."""
    prompt_logprob_counts: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """[num_scored]; how many of the most likely to give as well."""
    embedding_rows: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    """[num_embedded]; token rows whose last hidden state is asked for: the ends of prompts."""
    speculation: SpeculationBatch | None = None
    """Of engines with a draft head, in every step; `previous_rows` are all -1 then."""


@dataclass(frozen=True, slots=True)
class TreeResult:
    """What a step with `SpeculationBatch.tree` gave each chain beside its tokens and drafts."""

    paths: Int32
    """[num_chains, at least most tokens]; which of the chain's samples are its tokens, counted from its first; first 0."""
    parents: Int64
    """[num_chains, num_drafts]; of each draft, for the step after: 0 the newest token, i + 1 draft i."""


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What a step of a speculating engine gave each chain."""

    num_tokens: Int32
    """[num_chains]; how many of the chain's samples are its tokens, at least 1."""
    drafts: Int64
    """[num_chains, num_drafts]; the tokens that may follow, for the step after."""
    tree: TreeResult | None = None
    """Where drafts form trees; else a chain's tokens are its first samples."""


@dataclass(frozen=True, slots=True)
class LogprobRows:
    """Logprobs of some rows: `chosen` [n]; `top_ids`, `top_values` [n, k], k the largest count asked for, most likely first."""

    chosen: Float32
    top_ids: Int32
    top_values: Float32

    def select(self, rows: Int64) -> "LogprobRows":
        """Some of the rows, in their order."""
        return LogprobRows(self.chosen[rows], self.top_ids[rows], self.top_values[rows])


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step gave, on the host."""

    token_ids: Int64
    """[num_samples]"""
    is_finite: Bool
    """[num_samples]; False where the row's logits held NaN or no finite value: its token means nothing."""
    logprobs: LogprobRows | None
    """For all samples, if any row asked; rows that did not ask hold zeros."""
    prompt_logprobs: LogprobRows | None
    embeddings: Float32 | None = None
    """[num_embedded, hidden_size], after the last norm, if any were asked for."""
    captured_size: int = 0
    """Rows of the replayed CUDA graphs, padding included; 0 when the step ran outside. Attention of a step with prompt chunks
    always does."""
    busy_s: float = 0.0
    """Seconds that the device spent on the step; 0 where it is not measured."""
    draft_prefill_s: float = 0.0
    """Seconds that the head's entries took in a step with prompts' chunks or with late entries."""
    chains: ChainResult | None = None
    """Of steps with `StepBatch.speculation`; `token_ids`, `is_finite` and `logprobs` are those of all samples."""


class LaunchedStep(Protocol):
    """A step that is running, or has run, on the device."""

    def result(self) -> StepResult:
        """Wait for the step and bring its result to the host. May be called once."""
        ...


class ModelRunner(Protocol):
    """Owner of weights, KV pages and device buffers."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        ...

    @property
    def num_pages(self) -> int:
        """Pages in the pool, the padding page included."""
        ...

    @property
    def mixed_sizes(self) -> MixedSizes:
        """What steps with decodes and prompts are filled up to, if the scheduler may choose."""
        ...

    def launch(self, batch: StepBatch) -> LaunchedStep:
        """Start one forward pass and its sampling; returns without waiting for the device."""
        ...
