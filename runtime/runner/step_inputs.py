"""What a step needs on the device, sent there by one copy.

All inputs of a step lie behind one another in one int32 buffer, at offsets that follow from three numbers: rows,
sequences and samples. A captured graph of size n was captured over the views for (n, n, n), so its addresses hold for
every replay. What rows need comes first, at offsets that follow from their number alone. The host packs into pinned memory,
of which there are several pieces: one may be written while the copy out of another has not run yet.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables, SharedTables
from runtime.attention.shared_prefixes import MEMBERS
from runtime.batch import Int32, SamplingBatch, StepBatch
from runtime.identifiers import PAGE_SIZE
from runtime.models.operations import SampleColumns, TokenPlaces

_ALIGNMENT = 4
"""In int32 words: kernels load 16 bytes at a time."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """How many of each a step has, padding included."""

    num_rows: int
    num_sequences: int
    num_samples: int


class StepLayout:
    """Offsets, in int32 words, of the inputs of a step of one shape; `page_ids` is last and takes what is left."""

    def __init__(self, shape: StepShape) -> None:
        self.shape = shape
        rows, sequences, samples = shape.num_rows, shape.num_sequences, shape.num_samples
        widths = {
            "token_ids": rows,
            "previous_rows": rows,
            "positions": rows,
            "slots": rows,
            "query_starts": sequences + 1,
            "context_lengths": sequences,
            "page_starts": sequences + 1,
            "last_page_lengths": sequences,
            "shared_tokens": sequences,
            "group_tokens": sequences // 2,
            "group_members": sequences // 2 * MEMBERS,
            "sample_rows": samples,
            "temperature": samples,
            "seeds": 2 * samples,
            "sample_positions": 2 * samples,
        }
        self.spans: dict[str, slice] = {}
        end = 0
        for name, width in widths.items():
            self.spans[name] = slice(end, end + width)
            end += -(-width // _ALIGNMENT) * _ALIGNMENT
        self.page_ids_start = end


class StepViews:
    """The inputs of a step as typed views of the device's buffer."""

    def __init__(self, buffer: Tensor, layout: StepLayout) -> None:
        def view(name: str) -> Tensor:
            return buffer[layout.spans[name]]

        self.shape = layout.shape
        self.token_ids, self.previous_rows = view("token_ids"), view("previous_rows")
        self.places = TokenPlaces(view("positions"), view("slots"))
        self.tables = DeviceTables(
            query_starts=view("query_starts"),
            context_lengths=view("context_lengths"),
            page_starts=view("page_starts"),
            page_ids=buffer[layout.page_ids_start :],
            last_page_lengths=view("last_page_lengths"),
            shared=SharedTables(view("shared_tokens"), view("group_tokens"), view("group_members")),
        )
        self.sample_rows = view("sample_rows")
        self.columns = SampleColumns(
            view("temperature").view(torch.float32),
            view("seeds").view(torch.int64),
            view("sample_positions").view(torch.int64),
        )


def _empty_step() -> StepBatch:
    ints, longs, floats = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32)
    sampling = SamplingBatch(
        temperature=floats, top_p=floats, top_k=ints, min_p=floats, seed=longs, position=longs,
        frequency_penalty=floats, presence_penalty=floats, repetition_penalty=floats, num_logprobs=ints,
        bias_rows=ints, bias_ids=ints, bias_values=floats,
        seen_rows=ints, seen_ids=ints, seen_prompt_counts=ints, seen_output_counts=ints,
        banned_rows=ints, banned_ids=ints,
    )  # fmt: skip
    return StepBatch(
        token_ids=longs, previous_rows=ints, positions=longs, slots=longs, query_starts=np.zeros(1, np.int32),
        context_lengths=ints, page_tables=np.zeros((0, 1), np.int32), sample_rows=ints, sampling=sampling,
        page_copies=np.zeros((0, 2), np.int32),
    )  # fmt: skip


EMPTY_STEP = _empty_step()
"""A step of no sequences, which padding fills up to a graph's size."""


def build_tables(batch: StepBatch, num_sequences: int) -> SequenceTables:
    """A step's sequences with compressed page tables, padded to `num_sequences` by decodes over one token of page 0."""
    num_padding = num_sequences - len(batch.context_lengths)
    counts = -(-batch.context_lengths // PAGE_SIZE) if batch.speculation is None else batch.speculation.num_pages
    own = np.arange(batch.page_tables.shape[1], dtype=np.int32) < counts[:, None]
    lengths = np.diff(batch.query_starts)
    num_decodes = int(np.argmax(lengths != 1)) if (lengths != 1).any() else len(lengths)
    if not num_padding:
        return SequenceTables(
            batch.query_starts, batch.context_lengths, _starts(counts), batch.page_tables[own], num_decodes
        )
    one = np.ones(num_padding, np.int32)
    return SequenceTables(
        query_starts=_starts(np.concatenate((lengths, one))),
        context_lengths=np.concatenate((batch.context_lengths, one)),
        page_starts=_starts(np.concatenate((counts, one))),
        page_ids=np.concatenate((batch.page_tables[own], one - 1)),
        num_decodes=num_decodes + num_padding,
    )


def pack_step(target: Int32, layout: StepLayout, batch: StepBatch, tables: SequenceTables) -> int:
    """Write a step's inputs to `target`; returns how many words of it are used.

    Rows of padding are tokens of id 0 at position 0 whose keys and values go to page 0; samples of padding are greedy.
    """
    spans = layout.spans

    def put(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.int32]], padding: int = 0) -> None:
        part = target[spans[name]]
        part[: len(values)] = values
        part[len(values) :] = padding

    sampling = batch.sampling
    put("token_ids", np.maximum(batch.token_ids, 0).astype(np.int32))
    put("previous_rows", batch.previous_rows, padding=-1)
    put("positions", batch.positions.astype(np.int32))
    put("slots", batch.slots.astype(np.int32))
    put("query_starts", tables.query_starts)
    put("context_lengths", tables.context_lengths)
    put("page_starts", tables.page_starts)
    put("last_page_lengths", (tables.context_lengths - 1) % PAGE_SIZE + 1)
    if tables.prefixes is not None:
        groups = tables.prefixes.padded(len(tables.context_lengths))
        for name, values in zip(("shared_tokens", "group_tokens", "group_members"), groups, strict=True):
            put(name, values)
    put("sample_rows", batch.sample_rows)
    put("temperature", sampling.temperature.view(np.int32))
    put("seeds", sampling.seed.view(np.int32))
    put("sample_positions", sampling.position.view(np.int32))
    end = layout.page_ids_start + len(tables.page_ids)
    target[layout.page_ids_start : end] = tables.page_ids
    return end


def is_decode(batch: StepBatch) -> bool:
    """Whether every sequence has one token, which is sampled once."""
    count = len(batch.context_lengths)
    return (
        len(batch.token_ids) == count
        and len(batch.sample_rows) == count
        and bool((batch.sample_rows == np.arange(count)).all())
    )


def num_words(*, max_rows: int, max_sequences: int, max_samples: int, max_pages: int) -> int:
    """Words that any step needs at most.

    Args:
        max_pages: entries of all page tables together.
    """
    return StepLayout(StepShape(max_rows, max_sequences, max_samples)).page_ids_start + max_pages


def _starts(counts: Int32) -> Int32:
    starts = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    return starts
