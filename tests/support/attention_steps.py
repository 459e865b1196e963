"""Steps for attention on a device: random caches and tables, and the results that are right for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.pages import allocate_pages, key_rows, to_e4m3
from runtime.identifiers import PAGE_SIZE
from tests.support.plain_attention import attend_sequence

_UNDEFINED = 0x5A5A5A5A
"""Fills the device's tables beyond a step's entries."""


@dataclass(frozen=True)
class Heads:
    """The shape and type of attention."""

    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True)
class AttentionStep:
    """A step whose keys and values are in the cache; whatever is not part of a context is NaN."""

    heads: Heads
    pages: Tensor
    query: Tensor
    """[num_tokens + num_padding, num_heads, head_dim]"""
    host: SequenceTables
    device: DeviceTables
    slots: np.ndarray
    """[num_tokens]"""

    @property
    def num_tokens(self) -> int:
        return len(self.slots)


def host_tables(lengths: Sequence[tuple[int, int]], page_ids: np.ndarray) -> SequenceTables:
    """Tables of sequences given as (context length, new tokens), which own the ids one after the other."""
    contexts = np.array([context for context, _ in lengths], np.int32)
    new = np.array([new for _, new in lengths], np.int32)
    counts = -(-contexts // PAGE_SIZE)
    page_starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return SequenceTables(
        query_starts=np.concatenate(([0], np.cumsum(new))).astype(np.int32),
        context_lengths=contexts,
        page_starts=page_starts,
        page_ids=page_ids[: page_starts[-1]].astype(np.int32),
        num_decodes=int(np.argmax(new != 1)) if (new != 1).any() else len(new),
    )


def some_sequences(host: SequenceTables, chosen: Sequence[int], *, num_padding: int = 0) -> SequenceTables:
    """Tables of some of the sequences, and of padding: sequences of one token in page 0."""
    starts = zip(host.page_starts, host.page_starts[1:], host.query_starts, host.query_starts[1:], strict=False)
    spans = [tuple(map(int, each)) for each in starts]
    lengths = [(int(host.context_lengths[i]), spans[i][3] - spans[i][2]) for i in chosen]
    pages = [host.page_ids[spans[i][0] : spans[i][1]] for i in chosen]
    return host_tables(lengths + [(1, 1)] * num_padding, np.concatenate([*pages, np.zeros(num_padding, np.int32)]))


def rows_of(host: SequenceTables, chosen: Sequence[int]) -> Tensor:
    """Which rows of a step belong to some of its sequences."""
    return torch.cat([torch.arange(host.query_starts[i], host.query_starts[i + 1]) for i in chosen])


def device_tables(max_sequences: int, max_pages: int, device: torch.device) -> DeviceTables:
    """Undefined tables at addresses of their own."""

    def undefined(size: int) -> Tensor:
        return torch.full((size,), _UNDEFINED, dtype=torch.int32, device=device)

    return DeviceTables(
        query_starts=undefined(max_sequences + 1),
        context_lengths=undefined(max_sequences),
        page_starts=undefined(max_sequences + 1),
        page_ids=undefined(max_pages),
        last_page_lengths=undefined(max_sequences),
    )


def send_tables(host: SequenceTables, device: DeviceTables) -> None:
    """What a runner does before each step."""

    def send(values: np.ndarray, target: Tensor) -> None:
        target[: len(values)].copy_(torch.from_numpy(values))

    send(host.query_starts, device.query_starts)
    send(host.context_lengths, device.context_lengths)
    send(host.page_starts, device.page_starts)
    send(host.page_ids, device.page_ids)
    send((host.context_lengths - 1) % PAGE_SIZE + 1, device.last_page_lengths)


def random_step(
    lengths: Sequence[tuple[int, int]],
    heads: Heads,
    *,
    num_layers: int,
    device: torch.device,
    seed: int,
    num_padding: int = 0,
    max_sequences: int | None = None,
) -> AttentionStep:
    """A step of sequences given as (context length, new tokens), decodes first, over shuffled pages."""
    generator = np.random.default_rng(seed)
    num_pages = sum(-(-context // PAGE_SIZE) for context, _ in lengths) + 2
    host = host_tables(lengths, 1 + generator.permutation(num_pages - 1))
    pages = allocate_pages(
        num_layers=num_layers, num_pages=num_pages, num_kv_heads=heads.num_kv_heads, head_dim=heads.head_dim,
        device=device, dtype=heads.dtype,
    ).fill_(torch.nan)  # fmt: skip
    starts = zip(host.page_starts, host.page_starts[1:], strict=False)
    tables = [host.page_ids[start:end].astype(np.int64) for start, end in starts]
    cached = [_slots(table, 0, context) for table, (context, _) in zip(tables, lengths, strict=True)]
    rows = key_rows(torch.from_numpy(np.concatenate([*cached, np.arange(PAGE_SIZE)]))).to(device)
    torch_generator = torch.Generator(device).manual_seed(seed)
    for layer in pages:
        flat = layer.view(-1, heads.num_kv_heads, heads.head_dim)
        for where in (rows, rows + PAGE_SIZE):
            flat[where] = torch.randn(len(where), *flat.shape[1:], generator=torch_generator, device=device).to(
                heads.dtype
            )
    slots = np.concatenate([_slots(table, c - n, c) for table, (c, n) in zip(tables, lengths, strict=True)])
    query_shape = (len(slots) + num_padding, heads.num_heads, heads.head_dim)
    query = torch.randn(query_shape, generator=torch_generator, device=device).to(heads.dtype)
    on_device = device_tables(max_sequences or len(lengths) + 3, num_pages + 5, device)
    send_tables(host, on_device)
    return AttentionStep(heads, pages, query, host, on_device, slots)


def in_e4m3(step: AttentionStep, scales: Tensor) -> tuple[AttentionStep, AttentionStep]:
    """The step over a cache in e4m3, NaN where it was NaN, and over what that cache means, in float32.

    Args:
        scales: [num_layers, SCALE_COLUMNS].
    """
    factors = scales[:, None, :2, None, None, None]
    pages = to_e4m3(step.pages, factors)
    return replace(step, pages=pages), replace(step, pages=pages.float() * factors)


def _slots(table: np.ndarray, start: int, end: int) -> np.ndarray:
    positions = np.arange(start, end)
    return table[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE


def expected_results(step: AttentionStep, layer_windows: Sequence[int | None]) -> list[Tensor]:
    """Plain torch's results in float32 for each layer, [num_tokens, num_heads, head_dim], on the CPU."""
    host, query = step.host, step.query[: step.num_tokens].float()
    results = []
    for pages, window in zip(step.pages, layer_windows, strict=True):
        out = torch.empty_like(query)
        for index, length in enumerate(host.context_lengths.tolist()):
            rows = slice(int(host.query_starts[index]), int(host.query_starts[index + 1]))
            ids = host.page_ids[host.page_starts[index] : host.page_starts[index + 1]]
            out[rows] = attend_sequence(query[rows], pages, torch.from_numpy(ids).to(query.device), length, window)
        results.append(out.cpu())
    return results


def worst_row_error(out: Tensor, expected: Tensor) -> float:
    """The largest ‖out − expected‖ / ‖expected‖ of a row; infinite if anything is not finite."""
    out, expected = out.float().cpu().flatten(1), expected.flatten(1)
    if not bool(torch.isfinite(out).all()):
        return float("inf")
    return float(((out - expected).norm(dim=1) / expected.norm(dim=1)).max())
