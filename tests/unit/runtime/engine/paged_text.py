"""A model whose keys and values are the token ids themselves, and the oracle for it.

`PagedTextRunner` writes each token id into its slot and chooses the next token by a hash of all that it reads back through
the page table. So a wrong slot, a page shared or freed too early, a missing copy, a stale length or a wrong sampling row
changes the text. It runs a step only when its result is asked for, from the arrays as they are then: whoever reuses an
array of a launched batch changes the text, too.

Where a step speculates, a second array of pages holds what a head's entries would be made of: at each position the token after
it. The runner drafts its own next tokens, some of them wrong on purpose, and checks that the entries before are whole.

`expected_text` computes the same text from the tokens alone, one choice at a time, without pages, batches or chunks.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from runtime.batch import BACKLOG_SIZE, ChainResult, LogprobRows, SamplingBatch, StepBatch, StepResult, TreeResult
from runtime.identifiers import PAGE_SIZE
from runtime.request import GenerationRequest
from runtime.scheduling.requests import choice_seed
from runtime.speculative.continuing import NO_CHAINS, ChainEnds, depths_of, resolve
from runtime.step_sizes import MIXED_SIZES
from tests.support.draft_trees import plant

VOCAB_SIZE = 24
EOS = 1
POISON = 23
"""Contexts that hold it have no finite logits at every length that is a multiple of 5. The model never says it."""
UNWRITTEN = -1
_TOKENS = np.arange(VOCAB_SIZE, dtype=np.uint64) << np.uint64(33)


@dataclass
class Rules:
    """Sampling parameters of one token, however they were delivered."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    position: int
    frequency_penalty: float
    presence_penalty: float
    repetition_penalty: float
    bias: dict[int, float] = field(default_factory=dict)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)


def scores(context: np.ndarray) -> np.ndarray:
    """A score for each token, from a hash of the context."""
    return _spread(zlib.crc32(np.ascontiguousarray(context, np.int64).tobytes()))


def _noise(*numbers: int) -> np.ndarray:
    return _spread(zlib.crc32(repr(numbers).encode()))


def _spread(digest: int) -> np.ndarray:
    """A number in [0, 1) for each token."""
    mixed = (_TOKENS + np.uint64(digest)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(11)).astype(np.float64) / (1 << 53)


def choose(context: np.ndarray, rules: Rules) -> int:
    """The next token after `context`."""
    logits = 4.0 * scores(context)
    for token, (num_prompt, num_output) in rules.seen.items():
        if num_prompt + num_output:
            logits[token] /= rules.repetition_penalty
        logits[token] -= rules.frequency_penalty * num_output + rules.presence_penalty * (num_output > 0)
    for token, value in rules.bias.items():
        logits[token] += value
    if rules.temperature:
        salt = (round(1000 * rules.top_p), rules.top_k, round(1000 * rules.min_p))
        logits = logits / rules.temperature + _noise(rules.seed, rules.position, *salt)
    logits[[*rules.banned, POISON]] = -np.inf
    return int(logits.argmax())


def is_broken(context: np.ndarray) -> bool:
    """Whether the logits after `context` are not finite."""
    return bool((context == POISON).any()) and len(context) % 5 == 0


class PagedTextRunner:
    """A `ModelRunner` over pages of token ids."""

    def __init__(self, num_pages: int, *, wrong_drafts: float = 0.3) -> None:
        """`wrong_drafts`: share of drafts that are wrong on purpose."""
        self.vocab_size = VOCAB_SIZE
        self.mixed_sizes = MIXED_SIZES
        self.wrong_drafts = wrong_drafts
        self.num_pages = num_pages
        self.pages = np.full((num_pages, PAGE_SIZE), UNWRITTEN, np.int64)
        self.entries = np.full((num_pages, PAGE_SIZE), UNWRITTEN, np.int64)
        self.parted = np.zeros((num_pages, PAGE_SIZE), np.bool_)
        """Entries at places where several choices go on: the entry is of one of them."""
        self.backlog = np.full(BACKLOG_SIZE, UNWRITTEN, np.int64)
        self.num_blind = 0
        """Drafts that were made without looking at the first pages."""
        self.ends = NO_CHAINS
        self.pending: list[_Step] = []
        self.last_tokens = np.zeros(0, np.int64)
        self.batches: list[tuple[int, int]] = []
        """(decoding sequences, tokens) of each step, in order."""

    def launch(self, batch: StepBatch) -> "_Step":
        step = _Step(self, batch)
        self.pending.append(step)
        assert len(self.pending) <= 2, "the loop runs further ahead than one step"
        return step

    def execute(self, batch: StepBatch) -> StepResult:
        """Run one step, as the contract says."""
        if batch.speculation is not None:
            batch = resolve(batch, self.ends)
        token_ids = batch.token_ids.copy()
        from_previous = batch.previous_rows >= 0
        assert (token_ids[from_previous] == -1).all()
        token_ids[from_previous] = self.last_tokens[batch.previous_rows[from_previous]]
        assert ((token_ids >= 0) & (token_ids < VOCAB_SIZE)).all()
        _verify_layout(batch)
        if len(batch.page_copies):
            self.pages[batch.page_copies[:, 1]] = self.pages[batch.page_copies[:, 0]]
            self.entries[batch.page_copies[:, 1]] = self.entries[batch.page_copies[:, 0]]
            self.parted[batch.page_copies[:, 1]] = self.parted[batch.page_copies[:, 0]]
        self.pages.reshape(-1)[batch.slots] = token_ids
        queries = np.diff(batch.query_starts)
        self.batches.append((int((queries == 1).sum()), len(token_ids)))
        if batch.speculation is not None and batch.speculation.tree is not None:
            _verify_positions_of_trees(batch)
        contexts = [self._context(batch, int(row)) for row in batch.sample_rows]
        tokens = np.array([choose(c, _rules_of(batch.sampling, i)) for i, c in enumerate(contexts)], np.int64)
        self.last_tokens = tokens
        scored = [self._context(batch, int(row)) for row in batch.prompt_logprob_rows]
        counts = batch.sampling.num_logprobs
        chains = None if batch.speculation is None else self._speculate(batch, contexts, tokens)
        return StepResult(
            token_ids=tokens,
            is_finite=np.array([not is_broken(c) for c in contexts], np.bool_),
            logprobs=_logprobs(contexts, tokens, counts) if (counts >= 0).any() else None,
            prompt_logprobs=_logprobs(scored, batch.prompt_logprob_targets, batch.prompt_logprob_counts)
            if scored
            else None,
            captured_size=len(queries) if (queries == 1).all() else 0,
            busy_s=0.25,
            chains=chains,
        )

    def _speculate(self, batch: StepBatch, contexts: list[np.ndarray], tokens: np.ndarray) -> ChainResult:
        """Accept, write the entries, and draft."""
        speculation = batch.speculation
        assert speculation is not None
        starts, num_steps = speculation.chain_starts.tolist(), speculation.num_steps
        next_ids = speculation.next_ids.copy()
        next_ids[batch.sample_rows[::-1]] = tokens[::-1]
        assert (next_ids >= 0).all(), "a token is followed by none"
        if (late := speculation.late) is not None:
            assert speculation.deferred is None
            self.entries.reshape(-1)[late.slots] = self.backlog[late.places]
        self.entries.reshape(-1)[batch.slots] = next_ids
        self.parted.reshape(-1)[batch.slots] = np.bincount(batch.sample_rows, minlength=len(batch.slots)) > 1
        if speculation.deferred is not None:
            assert not speculation.num_steps
            assert not speculation.num_drafts.any(), "a step that puts the head off verifies drafts"
            kept = speculation.deferred >= 0
            assert len(np.unique(speculation.deferred[kept])) == kept.sum(), "two rows are kept at one place"
            self.backlog[speculation.deferred[kept]] = next_ids[kept]
            self.entries.reshape(-1)[batch.slots] = UNWRITTEN
        if speculation.tree is not None:
            return self._speculate_in_trees(batch, contexts, tokens)
        counts, drafts = [], np.zeros((len(starts) - 1, num_steps), np.int64)
        for chain, (first, end) in enumerate(pairwise(starts)):
            rows = batch.sample_rows[first:end]
            assert rows.tolist() == list(range(rows[0], rows[0] + end - first)), "a chain's rows are apart"
            count = 1
            while count < end - first and tokens[first + count - 1] == batch.token_ids[rows[count]]:
                count += 1
            counts.append(count)
            if num_steps and speculation.drafts[chain]:
                last = first + count - 1
                drafts[chain] = self._draft(batch, chain, last, contexts[last], int(tokens[last]), num_steps)
        num_tokens = np.array(counts, np.int32)
        self.ends = ChainEnds(num_tokens, tokens[np.array(starts[:-1], np.int64) + num_tokens - 1], drafts)
        return ChainResult(num_tokens, drafts)

    def _speculate_in_trees(self, batch: StepBatch, contexts: list[np.ndarray], tokens: np.ndarray) -> ChainResult:
        """Walk down each tree, move what the walk passed to the first places, and draft."""
        speculation = batch.speculation
        assert speculation is not None
        assert speculation.tree is not None
        starts, parents = speculation.chain_starts.tolist(), speculation.tree.parents
        num_chains, num_drafts = len(starts) - 1, speculation.tree.num_drafts
        paths = np.zeros((num_chains, max(np.diff(starts), default=1)), np.int32)
        counts, ends = [], []
        drafts, of_drafts = (np.zeros((num_chains, num_drafts), np.int64) for _ in range(2))
        for chain, (first, end) in enumerate(pairwise(starts)):
            row, path = int(batch.sample_rows[first]), [0]
            while nodes := [
                node
                for node in range(1, end - first)
                if parents[row + node] == path[-1] and batch.token_ids[row + node] == tokens[first + path[-1]]
            ]:
                path.append(nodes[0])
            paths[chain, : len(path)] = path
            for place, node in enumerate(path):
                source, target = (divmod(int(batch.slots[row + number]), PAGE_SIZE) for number in (node, place))
                self.pages[target], self.entries[target] = self.pages[source], self.entries[source]
            counts.append(len(path))
            ends.append(first + path[-1])
        for chain, last in enumerate(ends):
            if speculation.num_steps and speculation.drafts[chain]:
                steps, context = speculation.num_steps, contexts[last]
                coming = self._draft(batch, chain, last, context, int(tokens[last]), steps, speculation.tree.topk)
                salt = zlib.crc32(context.tobytes())
                drafts[chain], of_drafts[chain] = plant(coming, num_drafts, salt, VOCAB_SIZE)
        self.ends = ChainEnds(np.array(counts, np.int32), tokens[np.array(ends, np.int64)], drafts, of_drafts)
        return ChainResult(self.ends.num_tokens, drafts, TreeResult(paths, of_drafts))

    def _draft(
        self, batch: StepBatch, chain: int, sample: int, context: np.ndarray, token: int, num_steps: int, topk: int = 1
    ) -> list[int]:
        assert batch.speculation is not None
        assert batch.speculation.first_pages is not None
        seen_from = PAGE_SIZE * int(batch.speculation.first_pages[chain])
        self.num_blind += seen_from > 0
        sequence = int(np.searchsorted(batch.query_starts, batch.sample_rows[sample], side="right")) - 1
        table = np.append(batch.page_tables[sequence], [0] * 8)
        end = len(context) - 1
        pages = table[: end // PAGE_SIZE + 1]
        entries, parted = (array[pages].reshape(-1)[: end + 1] for array in (self.entries, self.parted))
        wrong = np.flatnonzero((entries != np.append(context[1:], token)) & ~parted)
        wrong = wrong[wrong >= seen_from]
        assert seen_from <= end, "the head sees nothing"
        is_whole = (wrong % PAGE_SIZE == PAGE_SIZE - 1).all() or _has_ended(batch, sequence)
        assert is_whole, "entries of the head are missing"
        drafted: list[int] = []
        for step in range(num_steps):
            context = np.append(context, token)
            rules = _rules_of(batch.sampling, sample)
            rules.position = len(context)
            token = choose(context, rules)
            if zlib.crc32(context.tobytes()) / (1 << 32) < self.wrong_drafts:
                token = (token + 1) % VOCAB_SIZE
            drafted.append(token)
            for place in range(end + 1 + topk * step, end + 1 + topk * (step + 1)) if step < num_steps - 1 else ():
                self.entries[table[place // PAGE_SIZE], place % PAGE_SIZE] = token
        return drafted

    def _context(self, batch: StepBatch, row: int) -> np.ndarray:
        """All tokens up to a token row, read back through the page table of its sequence."""
        sequence = int(np.searchsorted(batch.query_starts, row, side="right")) - 1
        length = int(batch.positions[row]) + 1
        table = batch.page_tables[sequence]
        context = self.pages[table].reshape(-1)[:length]
        speculation = batch.speculation
        if speculation is not None and speculation.tree is not None and sequence < speculation.num_decodes:
            first, parents = int(batch.query_starts[sequence]), speculation.tree.parents
            nodes, node = [], row - first
            while node:
                nodes.append(first + node)
                node = int(parents[first + node])
            context = context.copy()
            context[length - len(nodes) :] = self.pages.reshape(-1)[batch.slots[nodes[::-1]]]
        if _has_ended(batch, sequence):
            return np.maximum(context, 0)
        assert (context != UNWRITTEN).all(), "a slot is read that nobody wrote"
        return context


class _Step:
    def __init__(self, runner: PagedTextRunner, batch: StepBatch) -> None:
        self._runner = runner
        self._batch = batch

    def result(self) -> StepResult:
        assert self._runner.pending.pop(0) is self, "steps are read out of order, or twice"
        return self._runner.execute(self._batch)


def _verify_layout(batch: StepBatch) -> None:
    assert batch.query_starts[0] == 0
    assert batch.query_starts[-1] == len(batch.token_ids)
    used = batch.slots[batch.slots >= PAGE_SIZE]
    assert len(np.unique(used)) == len(used), "two tokens go to one slot"
    for sequence, context_length in enumerate(batch.context_lengths.tolist()):
        start, end = batch.query_starts[sequence : sequence + 2].tolist()
        assert end > start, "a sequence without tokens"
        positions = batch.positions[start:end]
        if batch.speculation is not None and batch.speculation.tree is not None:
            positions = np.arange(context_length - (end - start), context_length)  # places, of a tree
        assert positions.tolist() == list(range(context_length - (end - start), context_length))
        table = batch.page_tables[sequence]
        num_pages = -(-context_length // PAGE_SIZE)
        assert (table[:num_pages] > 0).all() or _has_ended(batch, sequence)
        assert (table[num_pages:] == 0).all() or batch.speculation is not None
        assert (batch.slots[start:end] == table[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE).all()
    num_samples = len(batch.sample_rows)
    for name in ("temperature", "top_p", "top_k", "min_p", "seed", "position", "num_logprobs"):
        assert len(getattr(batch.sampling, name)) == num_samples, name


def _verify_positions_of_trees(batch: StepBatch) -> None:
    """Each row stands as deep as it has ancestors, and its token one further."""
    assert batch.speculation is not None
    assert batch.speculation.tree is not None
    starts = batch.query_starts
    for sequence in range(batch.speculation.num_decodes):
        rows = slice(int(starts[sequence]), int(starts[sequence + 1]))
        parents = batch.speculation.tree.parents[rows]
        assert (parents < np.maximum(np.arange(len(parents)), 1)).all(), "a child comes before its parent"
        root = int(batch.context_lengths[sequence]) - len(parents)
        depths = depths_of(batch.speculation.tree.parents, starts)[rows]
        assert (batch.positions[rows] == root + depths).all()
    assert (batch.sampling.position == batch.positions[batch.sample_rows] + 1).all()


def _has_ended(batch: StepBatch, sequence: int) -> bool:
    """Whether a sequence goes on beyond its pages, as only one can that ended in the step before."""
    table = batch.page_tables[sequence][: -(-int(batch.context_lengths[sequence]) // PAGE_SIZE)]
    speculation = batch.speculation
    return bool((table == 0).any()) and speculation is not None and speculation.continued[sequence] >= 0


def _rules_of(sampling: SamplingBatch, row: int) -> Rules:
    bias = sampling.bias_rows == row
    seen = sampling.seen_rows == row
    prompt_counts, output_counts = (
        sampling.seen_prompt_counts[seen].tolist(),
        sampling.seen_output_counts[seen].tolist(),
    )
    seen_ids = sampling.seen_ids[seen].tolist()
    assert len(set(seen_ids)) == len(seen_ids)
    return Rules(
        temperature=float(sampling.temperature[row]),
        top_p=float(sampling.top_p[row]),
        top_k=int(sampling.top_k[row]),
        min_p=float(sampling.min_p[row]),
        seed=int(sampling.seed[row]),
        position=int(sampling.position[row]),
        frequency_penalty=float(sampling.frequency_penalty[row]),
        presence_penalty=float(sampling.presence_penalty[row]),
        repetition_penalty=float(sampling.repetition_penalty[row]),
        bias=dict(zip(sampling.bias_ids[bias].tolist(), sampling.bias_values[bias].tolist(), strict=True)),
        seen=dict(zip(seen_ids, zip(prompt_counts, output_counts, strict=True), strict=True)),
        banned=set(sampling.banned_ids[sampling.banned_rows == row].tolist()) | _disallowed(sampling, row),
    )


def _disallowed(sampling: SamplingBatch, row: int) -> set[int]:
    """What a grammar's mask leaves out, one bit at a time."""
    masks = sampling.allowed_bits[sampling.allowed_rows == row]
    return {token for mask in masks for token in range(VOCAB_SIZE) if not int(mask[token // 32]) >> (token % 32) & 1}


class CycleGrammars:
    """Grammars of this vocabulary: their bytes are token ids; output token i is the i-th of them, cyclically, or the one after.

    A grammar that holds POISON gives up after three tokens.
    """

    num_words = 1

    def matcher(self, grammar: bytes) -> "CycleMatcher":
        return CycleMatcher(grammar)


class CycleMatcher:
    """See `CycleGrammars`."""

    def __init__(self, grammar: bytes) -> None:
        self._grammar = grammar
        self._output: list[int] = []
        self.fault = ""

    def accept(self, token_id: int) -> None:
        assert token_id in allowed_by(self._grammar, len(self._output))
        self._output.append(token_id)
        if POISON in self._grammar and len(self._output) == 3:
            self.fault = "grammar_too_slow"

    def fill_along(
        self, drafts: list[int], parents: list[int], ending_ids: Collection[int], masks: np.ndarray
    ) -> list[int]:
        depths = {0: 0}
        for draft, (token, parent) in enumerate(zip(drafts, parents, strict=True)):
            if parent in depths and token not in ending_ids and token in self._allowed(depths[parent]):
                depths[draft + 1] = depths[parent] + 1
        for mask, depth in zip(masks, depths.values(), strict=False):
            mask[0] = sum(1 << token for token in self._allowed(depth))
        return list(depths)

    def _allowed(self, ahead: int) -> set[int]:
        return allowed_by(self._grammar, len(self._output) + ahead)

    def fill(self, mask: np.ndarray) -> None:
        mask[0] = sum(1 << token for token in allowed_by(self._grammar, len(self._output)))


def allowed_by(grammar: bytes, place: int) -> set[int]:
    """Tokens that such a grammar allows as output token `place`."""
    token = grammar[place % len(grammar)]
    return {token, (token + 1) % VOCAB_SIZE}


def _logprobs(contexts: list[np.ndarray], targets: np.ndarray, counts: np.ndarray) -> LogprobRows:
    most = max(0, int(counts.max()))
    all_scores = np.array([scores(context) for context in contexts]).reshape(-1, VOCAB_SIZE)
    top = np.argsort(-all_scores, axis=1, kind="stable")[:, :most]
    return LogprobRows(
        chosen=all_scores[np.arange(len(targets)), targets].astype(np.float32),
        top_ids=top.astype(np.int32),
        top_values=np.take_along_axis(all_scores, top, 1).astype(np.float32),
    )


def expected_text(asked: GenerationRequest, choice: int, eos: Iterable[int] = (EOS,)) -> tuple[list[int], str]:
    """One choice's tokens and the reason of its end, if nobody cancels it."""
    sampling = asked.sampling
    endings = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else set(eos))
    prompt, output = list(asked.prompt), []
    while True:
        context = np.array(prompt + output, np.int64)
        if is_broken(context):
            return output, "error"
        counts = Counter(output)
        in_prompt = Counter(prompt)
        rules = Rules(
            temperature=float(np.float32(sampling.temperature)),
            top_p=float(np.float32(sampling.top_p)),
            top_k=sampling.top_k,
            min_p=float(np.float32(sampling.min_p)),
            seed=choice_seed(sampling.seed, choice),
            position=len(context),
            frequency_penalty=float(np.float32(sampling.frequency_penalty)),
            presence_penalty=float(np.float32(sampling.presence_penalty)),
            repetition_penalty=float(np.float32(sampling.repetition_penalty)),
            bias={token: float(np.float32(value)) for token, value in sampling.logit_bias.items()},
            seen={token: (in_prompt[token], counts[token]) for token in set(context.tolist())},
            banned=(endings if len(output) < sampling.min_tokens else set())
            | (set(range(VOCAB_SIZE)) - allowed_by(asked.grammar, len(output)) if asked.grammar else set()),
        )
        token = choose(context, rules)
        output.append(token)
        if token in endings:
            return output, "stop"
        if len(output) == sampling.max_tokens:
            return output, "length"
