"""Paged attention in plain torch against attention written out, and the same bits however the work is cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from runtime.attention.backend import AttentionBatch
from runtime.attention.pages import allocate_pages, copy_pages
from runtime.attention.reference import ReferenceAttention
from runtime.identifiers import PAGE_SIZE

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, NUM_PAGES = 6, 2, 8, 32
WINDOWS = (None, 5, 40)


@dataclass(frozen=True)
class Sequenced:
    """Queries, keys and values of one whole sequence, and its pages."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    pages: list[int]

    def __len__(self) -> int:
        return len(self.query)


def random_sequence(length: int, pages: Sequence[int], seed: int) -> Sequenced:
    generator = torch.Generator().manual_seed(seed)

    def rows(heads: int) -> torch.Tensor:
        return torch.randn(length, heads, HEAD_DIM, generator=generator)

    return Sequenced(rows(NUM_HEADS), rows(NUM_KV_HEADS), rows(NUM_KV_HEADS), list(pages))


def written_out(sequence: Sequenced, window: int | None) -> torch.Tensor:
    """Causal attention token by token and head by head in float64."""
    result = torch.zeros(len(sequence), NUM_HEADS, HEAD_DIM, dtype=torch.float64)
    for position in range(len(sequence)):
        first = 0 if window is None else max(0, position - window + 1)
        for head in range(NUM_HEADS):
            kv_head = head // (NUM_HEADS // NUM_KV_HEADS)
            keys = sequence.key[first : position + 1, kv_head].double()
            weights = torch.softmax(keys @ sequence.query[position, head].double() / HEAD_DIM**0.5, 0)
            result[position, head] = weights @ sequence.value[first : position + 1, kv_head].double()
    return result


def build(*, fill: float = torch.nan) -> tuple[ReferenceAttention, torch.Tensor]:
    pages = allocate_pages(
        num_layers=len(WINDOWS), num_pages=NUM_PAGES, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM,
        device=torch.device("cpu"), dtype=torch.float32,
    ).fill_(fill)  # fmt: skip
    return ReferenceAttention(pages, num_heads=NUM_HEADS, layer_windows=WINDOWS), pages


def attend(
    backend: ReferenceAttention, parts: Sequence[tuple[Sequenced, int, int]], *, order: Sequence[int] | None = None
) -> list[list[torch.Tensor]]:
    """One step with rows [start, end) of each sequence; the result for each layer and part.

    `order`: rows of the step at which its tokens stand, with gaps as padding; as they come if None.
    """
    lengths = [end - start for _, start, end in parts]
    rows = np.arange(sum(lengths), dtype=np.int64) if order is None else np.array(order[: sum(lengths)], np.int64)
    num_rows = int(rows.max()) + 1 if order is None else len(order)
    tables = np.zeros((len(parts), max(len(sequence.pages) for sequence, _, _ in parts)), np.int32)
    slots = np.arange(num_rows, dtype=np.int64) % PAGE_SIZE
    token_slots = []
    for index, (sequence, start, end) in enumerate(parts):
        tables[index, : len(sequence.pages)] = sequence.pages
        positions = np.arange(start, end)
        token_slots.append(tables[index][positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE)
    slots[rows] = np.concatenate(token_slots)
    plan = backend.plan(
        AttentionBatch(
            query_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            context_lengths=np.array([end for _, _, end in parts], np.int32),
            page_tables=tables,
            rows=rows,
            num_rows=num_rows,
            slots=slots,
        )
    )

    def placed(name: str, heads: int) -> torch.Tensor:
        tensor = torch.zeros(num_rows, heads, HEAD_DIM)
        tensor[torch.from_numpy(rows)] = torch.cat([getattr(s, name)[start:end] for s, start, end in parts])
        return tensor

    result = []
    for layer in range(len(WINDOWS)):
        out = plan.attend(layer, placed("query", NUM_HEADS), placed("key", NUM_KV_HEADS), placed("value", NUM_KV_HEADS))
        assert out.is_contiguous()
        padding = np.setdiff1d(np.arange(num_rows), rows)
        assert not out[torch.from_numpy(padding)].any()
        result.append(list(out[torch.from_numpy(rows)].split(lengths)))
    return result


@pytest.mark.parametrize("length", [1, 15, 16, 17, 70])
def test_attention_is_attention(length: int) -> None:
    """Whole prompts agree with attention written out in float64, with every window, in pages full of NaN."""
    sequence = random_sequence(length, [7, 3, 20, 4, 9], seed=length)
    backend, _ = build()
    for window, (out,) in zip(WINDOWS, attend(backend, [(sequence, 0, length)]), strict=True):
        torch.testing.assert_close(out.double(), written_out(sequence, window), rtol=0, atol=2e-6)


def test_cuts_and_neighbours_change_no_bit() -> None:
    """Random chunks of several sequences in random company and rows have the bits of one-shot prefills."""
    generator = np.random.default_rng(11)
    sequences = [random_sequence(length, pages, length) for length, pages in SEQUENCES]
    expected = []
    for sequence in sequences:
        backend, _ = build()
        expected.append([layer[0] for layer in attend(backend, [(sequence, 0, len(sequence))])])
    for _ in range(5):
        backend, _ = build()
        done = [0] * len(sequences)
        while any(count < len(sequence) for count, sequence in zip(done, sequences, strict=True)):
            chosen = [i for i, s in enumerate(sequences) if done[i] < len(s) and generator.random() < 0.7]
            if not chosen:
                continue
            generator.shuffle(chosen)
            ends = {i: min(len(sequences[i]), done[i] + int(generator.choice([1, 1, 2, 7, 16, 30]))) for i in chosen}
            parts = [(sequences[i], done[i], ends[i]) for i in chosen]
            num_tokens = sum(end - start for _, start, end in parts)
            order = generator.permutation(num_tokens + 5).tolist()
            for layer, outputs in enumerate(attend(backend, parts, order=order)):
                for i, out in zip(chosen, outputs, strict=True):
                    assert torch.equal(out, expected[i][layer][done[i] : ends[i]])
            done = [ends.get(i, count) for i, count in enumerate(done)]


SEQUENCES = [(53, [1, 9, 3, 12]), (16, [30]), (37, [14, 2, 31]), (64, [4, 5, 6, 7])]


def test_shared_pages_are_read_in_the_step_that_writes_them() -> None:
    """A sequence may read pages that another one fills in the same step."""
    owner = random_sequence(40, [1, 2, 3], seed=1)
    tail = random_sequence(5, [], seed=2)
    joined = [torch.cat((getattr(owner, name)[:32], getattr(tail, name))) for name in ("query", "key", "value")]
    reader = Sequenced(*joined, pages=[1, 2, 8])
    backend, _ = build()
    outputs = attend(backend, [(reader, 32, 37), (owner, 0, 40)])
    for window, (out, _) in zip(WINDOWS, outputs, strict=True):
        torch.testing.assert_close(out.double(), written_out(reader, window)[32:], rtol=0, atol=2e-6)


def test_nothing_beyond_the_context_is_read() -> None:
    """What unused pages and the rest of the last page hold, NaN or numbers, changes no bit."""
    sequence = random_sequence(21, [2, 5], seed=3)
    outputs = []
    for fill in (torch.nan, torch.inf, 0.0, 1e30):
        backend, _ = build(fill=fill)
        outputs.append(attend(backend, [(sequence, 0, 20)]) + attend(backend, [(sequence, 20, 21)]))
    for other in outputs[1:]:
        for layer, expected in zip(other, outputs[0], strict=True):
            assert torch.equal(layer[0], expected[0])


def test_a_sequence_with_nan_stays_alone() -> None:
    """NaN in one sequence reaches no other."""
    healthy, ill = random_sequence(20, [1, 2], seed=4), random_sequence(20, [3, 4], seed=5)
    ill.key[3] = torch.nan
    ill.value[9] = torch.inf
    backend, _ = build()
    together = attend(backend, [(ill, 0, 20), (healthy, 0, 20)])
    alone = attend(build()[0], [(healthy, 0, 20)])
    for layer, expected in zip(together, alone, strict=True):
        assert torch.equal(layer[1], expected[0])
        assert not torch.isfinite(layer[0][10:]).all()


def test_pages_are_copied_whole_and_at_once() -> None:
    """All layers, keys and values; a page that is both source and destination is read first."""
    _, pages = build(fill=0.0)
    for page in range(NUM_PAGES):
        pages[:, page] = page
    copy_pages(pages, torch.tensor([[3, 4], [4, 5]]))
    assert (pages[:, 4] == 3).all()
    assert (pages[:, 5] == 4).all()
    assert (pages[:, 3] == 3).all()
    assert (pages[:, 6] == 6).all()
