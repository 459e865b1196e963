"""How often each token occurs in a prompt and in an output, kept up token by token for the penalties."""

import numpy as np

from runtime.batch import Int32


class SeenTokens:
    """Distinct tokens of one choice with their counts, as arrays that `SamplingBatch.seen_*` takes over."""

    def __init__(self, prompt: Int32) -> None:
        ids, counts = np.unique(prompt, return_counts=True)
        self._count = len(ids)
        self._slot_of = {token: slot for slot, token in enumerate(ids.tolist())}
        self._ids = ids.astype(np.int32)
        self._prompt_counts = counts.astype(np.int32)
        self._output_counts = np.zeros(self._count, np.int32)

    def add(self, token: int) -> None:
        """Count one token of output."""
        slot = self._slot_of.get(token)
        if slot is None:
            slot = self._append(token)
        self._output_counts[slot] += 1

    @property
    def ids(self) -> Int32:
        """Distinct tokens."""
        return self._ids[: self._count]

    @property
    def prompt_counts(self) -> Int32:
        """How often each of `ids` occurs in the prompt."""
        return self._prompt_counts[: self._count]

    @property
    def output_counts(self) -> Int32:
        """How often each of `ids` occurs in the output."""
        return self._output_counts[: self._count]

    def after(self, tokens: list[int]) -> "SeenTokens":
        """A copy that has counted some more tokens of output."""
        copy = SeenTokens(np.zeros(0, np.int32))
        copy._count, copy._slot_of = self._count, dict(self._slot_of)
        copy._ids, copy._prompt_counts = self._ids.copy(), self._prompt_counts.copy()
        copy._output_counts = self._output_counts.copy()
        for token in tokens:
            copy.add(token)
        return copy

    def _append(self, token: int) -> int:
        slot = self._count
        if slot == len(self._ids):
            room = np.zeros(slot + 16, np.int32)
            self._ids = np.concatenate([self._ids, room])
            self._prompt_counts = np.concatenate([self._prompt_counts, room])
            self._output_counts = np.concatenate([self._output_counts, room])
        self._ids[slot] = token
        self._slot_of[token] = slot
        self._count += 1
        return slot
