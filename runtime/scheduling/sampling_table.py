"""Sampling parameters of the running sequences as arrays, and the `SamplingBatch` of a step.

What all rows have is a column. What few have (penalties, bias, a least number of tokens) is a flag, and is gathered row by
row for the flagged ones only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.batch import Bool, Float32, Int32, Int64, SamplingBatch
from runtime.scheduling.requests import Choice, Request, has_penalty
from runtime.scheduling.seen import SeenTokens


@dataclass(frozen=True, slots=True)
class SampledChains:
    """Samples in runs, one run an answer: behind the first of a run each stands after a draft."""

    starts: Int64
    """[num_chains + 1]"""
    drafts: Int64
    """[num_chains, most drafts]; the first so many count as there are samples behind the first."""
    parents: Int64 | None = None
    """As `drafts`, of trees: see `TreeResult.parents`. None: each draft follows the one before."""

    def where(self, flags: Bool) -> list[int]:
        """The chains whose samples are flagged."""
        return np.flatnonzero(flags[self.starts[:-1]]).tolist()

    def at(self, chain: int) -> tuple[int, list[int], list[int]]:
        """The first sample of a chain, its drafts, and what each of them follows: 0 the newest token, i + 1 draft i."""
        first, end = int(self.starts[chain]), int(self.starts[chain + 1])
        count = end - first - 1
        parents = list(range(count)) if self.parents is None else self.parents[chain, :count].tolist()
        return first, self.drafts[chain, :count].tolist(), parents


class SamplingTable:
    """Columns by row of the `SequenceTable`."""

    def __init__(self, num_rows: int, *, num_mask_words: int = 0) -> None:
        """`num_mask_words`: of a grammar's mask, if there are grammars."""
        self._num_mask_words = num_mask_words
        self.temperature: Float32 = np.zeros(num_rows, np.float32)
        self.top_p: Float32 = np.zeros(num_rows, np.float32)
        self.top_k: Int32 = np.zeros(num_rows, np.int32)
        self.min_p: Float32 = np.zeros(num_rows, np.float32)
        self.seed: Int64 = np.zeros(num_rows, np.int64)
        self.frequency_penalty: Float32 = np.zeros(num_rows, np.float32)
        self.presence_penalty: Float32 = np.zeros(num_rows, np.float32)
        self.repetition_penalty: Float32 = np.ones(num_rows, np.float32)
        self.num_logprobs: Int32 = np.zeros(num_rows, np.int32)
        self.min_length: Int64 = np.zeros(num_rows, np.int64)
        """Position before which no ending id may be chosen."""
        self.has_penalty: Bool = np.zeros(num_rows, np.bool_)
        self.reads_output: Bool = np.zeros(num_rows, np.bool_)
        """The next token depends on those before it by more than the model: by a penalty, or by a grammar."""
        self._has_grammar: Bool = np.zeros(num_rows, np.bool_)
        self._has_bias: Bool = np.zeros(num_rows, np.bool_)
        self._requests: list[Request | None] = [None] * num_rows
        self._choices: list[Choice | None] = [None] * num_rows

    def set(self, row: int, request: Request, choice: Choice) -> None:
        """Enter what a request asks for, for one of its choices. A row that is freed keeps its values until the next."""
        asked = request.sampling
        self.temperature[row] = asked.temperature
        self.top_p[row] = asked.top_p
        self.top_k[row] = asked.top_k
        self.min_p[row] = asked.min_p
        self.seed[row] = choice.seed
        self.frequency_penalty[row] = asked.frequency_penalty
        self.presence_penalty[row] = asked.presence_penalty
        self.repetition_penalty[row] = asked.repetition_penalty
        self.num_logprobs[row] = asked.logprobs
        self.min_length[row] = len(request.prompt) + asked.min_tokens
        self.has_penalty[row] = has_penalty(asked)
        self._has_grammar[row] = choice.matcher is not None
        self.reads_output[row] = self.has_penalty[row] or self._has_grammar[row]
        self._has_bias[row] = bool(asked.logit_bias)
        self._requests[row] = request
        self._choices[row] = choice

    def gather(self, rows: Int64, positions: Int64, chains: SampledChains | None = None) -> SamplingBatch:
        """The parameters of a step's samples.

        Args:
            rows: [num_samples] row of each sample.
            positions: [num_samples] position of the token to be chosen.
            chains: which samples follow one another by drafts; None: every one is for itself. Only rows that read output
                need the drafts themselves.
        """
        chains = chains or SampledChains(np.arange(len(rows) + 1), np.zeros((len(rows), 0), np.int64))
        bias_rows, bias_ids, bias_values = self._gather_bias(rows)
        seen_rows, seen_ids, seen_prompt, seen_output = self._gather_seen(rows, chains)
        banned_rows, banned_ids = self._gather_banned(rows, positions)
        allowed_rows, allowed_bits = self._gather_allowed(rows, chains)
        return SamplingBatch(
            temperature=self.temperature[rows],
            top_p=self.top_p[rows],
            top_k=self.top_k[rows],
            min_p=self.min_p[rows],
            seed=self.seed[rows],
            position=positions,
            frequency_penalty=self.frequency_penalty[rows],
            presence_penalty=self.presence_penalty[rows],
            repetition_penalty=self.repetition_penalty[rows],
            num_logprobs=self.num_logprobs[rows],
            bias_rows=bias_rows,
            bias_ids=bias_ids,
            bias_values=bias_values,
            seen_rows=seen_rows,
            seen_ids=seen_ids,
            seen_prompt_counts=seen_prompt,
            seen_output_counts=seen_output,
            banned_rows=banned_rows,
            banned_ids=banned_ids,
            allowed_rows=allowed_rows,
            allowed_bits=allowed_bits,
        )

    def _gather_bias(self, rows: Int64) -> list[NDArray[Any]]:
        gathered = _Gathered(np.int32, np.float32)
        for sample in np.flatnonzero(self._has_bias[rows]).tolist():
            request = self._requests[rows[sample]]
            assert request is not None
            bias = request.sampling.logit_bias
            ids = np.fromiter(bias, np.int32, len(bias))
            gathered.add(sample, ids, np.fromiter(bias.values(), np.float32, len(bias)))
        return gathered.arrays()

    def _gather_seen(self, rows: Int64, chains: SampledChains) -> list[NDArray[Any]]:
        gathered = _Gathered(np.int32, np.int32, np.int32)
        for chain in chains.where(self.has_penalty[rows]):
            first, drafts, parents = chains.at(chain)
            choice = self._choices[rows[first]]
            assert choice is not None
            assert choice.seen is not None
            along: list[SeenTokens] = [choice.seen]
            for draft, parent in zip(drafts, parents, strict=True):
                along.append(along[parent].after([draft]))
            for sample, seen in enumerate(along, start=first):
                gathered.add(sample, seen.ids, seen.prompt_counts, seen.output_counts)
        return gathered.arrays()

    def _gather_allowed(self, rows: Int64, chains: SampledChains) -> tuple[Int32, Int32]:
        """Masks of the samples that a grammar constrains.

        Behind a draft that its grammar does not allow, or that ends the answer, nothing can be accepted: no masks there.
        """
        has_grammar = self._has_grammar[rows]
        bits = np.zeros((np.count_nonzero(has_grammar), self._num_mask_words if has_grammar.any() else 0), np.int32)
        samples: list[int] = []
        for chain in chains.where(has_grammar):
            first, drafts, parents = chains.at(chain)
            choice, request = self._choices[rows[first]], self._requests[rows[first]]
            assert choice is not None
            assert choice.matcher is not None
            assert request is not None
            masks = bits[len(samples) :]
            if drafts:
                places = choice.matcher.fill_along(drafts, parents, request.ending_ids, masks)
            else:
                choice.matcher.fill(masks[0])
                places = [0]
            samples += [first + place for place in places]
        return np.array(samples, np.int32), bits[: len(samples)]

    def _gather_banned(self, rows: Int64, positions: Int64) -> list[NDArray[Any]]:
        gathered = _Gathered(np.int32)
        for sample in np.flatnonzero(positions < self.min_length[rows]).tolist():
            request = self._requests[rows[sample]]
            assert request is not None
            gathered.add(sample, np.array(sorted(request.ending_ids), np.int32))
        return gathered.arrays()


class _Gathered:
    """Entries of some samples: a column of sample numbers, and columns of values."""

    def __init__(self, *dtypes: type[np.int32] | type[np.float32]) -> None:
        self._columns: list[list[NDArray[Any]]] = [[np.zeros(0, dtype)] for dtype in (np.int32, *dtypes)]

    def add(self, sample: int, *values: NDArray[Any]) -> None:
        for column, array in zip(self._columns, (np.full(len(values[0]), sample, np.int32), *values), strict=True):
            column.append(array)

    def arrays(self) -> list[NDArray[Any]]:
        return [np.concatenate(column) if len(column) > 1 else column[0] for column in self._columns]
