"""Attention by our own Triton kernels: the second backend, and the one whose planning happens on the device alone.

A plan holds only tensors and sizes. The parts into which a long context is cut follow from its length in the kernel, so a
captured graph needs no refresh. Decodes and prompt chunks of one step run as separate kernels.

Handles every even head size, page size and window; keys and values may be e4m3 with one scale each per layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.beside import OneByOne
from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.shared_decoding import DecodeShape, SharedDecoding
from runtime.attention.shared_prefixes import SharedPrefixes, find_shared_prefixes
from runtime.batch import Int32
from runtime.kernels.launching import Constant, Launcher, Options
from runtime.layers.quantized import E4M3

_MAX_SPLITS = 32
_MIN_SAVED = 0.4
"""Share of all tokens that must not need to be read, for groups to be made. On an H100 a step takes as long as without groups where
that is 0.1 with 64 sequences of 2,304 tokens, 0.24 with 256 of 1,280, and 0.33 with 16 of 2,304: between what was measured with
0.66, and with empty groups."""


@dataclass(frozen=True, slots=True)
class AttentionBlocks:
    """How attention is cut; measured by `casemate bench kernels`."""

    decode_tokens: int = 64
    """Tokens that a program reads at once; parts of a context are multiples of it."""
    decode_warps: int = 4
    decode_stages: int = 3
    programs_per_multiprocessor: int = 4
    """Contexts are cut until there are so many."""
    shared_rows: int = 16
    """From so many decodes on, beginnings of contexts that several have in common are read once, where that pays; 0: never."""
    prefill_rows: int = 64
    """Queries times heads of a group."""
    prefill_tokens: int = 64
    prefill_warps: int = 4
    prefill_stages: int = 3


DEFAULT_BLOCKS = AttentionBlocks()
E4M3_BLOCKS = AttentionBlocks(decode_tokens=128, decode_stages=5, shared_rows=0)
"""Where keys and values are e4m3: twice the tokens are as many bytes on their way. Whether sharing pays there was not measured."""


class TritonAttention:
    """A `DeviceAttention`.

    Args:
        pages: the cache, see `pages`.
        num_heads: query heads.
        layer_windows: per layer, how many latest positions a query sees, itself included; None: all.
        launcher: how kernels are launched.
        max_decodes: most sequences with one query in a step.
        num_multiprocessors: of the device; contexts are cut until there are a few programs for each.
        scales: of a cache in e4m3, else None; see `pages`.
        blocks: instead of DEFAULT_BLOCKS or E4M3_BLOCKS.
        pdl: whether the kernels around take part in programmatic dependent launch.
    """

    def __init__(
        self,
        pages: Tensor,
        *,
        num_heads: int,
        layer_windows: Sequence[int | None],
        launcher: Launcher,
        max_decodes: int,
        num_multiprocessors: int,
        scales: Tensor | None = None,
        blocks: AttentionBlocks | None = None,
        pdl: bool = False,
    ) -> None:
        self.beside = OneByOne()
        """Of chunks, and of who attends before them."""
        assert (scales is not None) == (pages.dtype == E4M3), "e4m3 has scales, and nothing else has"
        blocks = blocks or (DEFAULT_BLOCKS if scales is None else E4M3_BLOCKS)
        self._blocks = blocks
        self._pages = pages
        self._num_heads = num_heads
        self._layer_windows = tuple(layer_windows)
        self._launcher = launcher
        self._scales = scales
        self._pdl = pdl
        self._num_programs = num_multiprocessors * blocks.programs_per_multiprocessor
        self._page_size, self._num_kv_heads, self._head_dim = pages.shape[-3:]
        most_parts = max(
            (n * splits for n in range(1, max_decodes + 1) if (splits := self._num_splits(n)) > 1), default=0
        )
        parts = most_parts * num_heads
        self._partial = torch.empty(parts * self._head_dim, dtype=torch.float32, device=pages.device)
        self._log_sums = torch.empty(parts, dtype=torch.float32, device=pages.device)
        shape = DecodeShape(
            num_heads, self._num_kv_heads, self._head_dim, self._page_size, blocks.decode_tokens, blocks.decode_warps,
            blocks.decode_stages, self._num_programs, pdl,
        )  # fmt: skip
        self._shared = SharedDecoding(pages, scales, shape, launcher, max_decodes if blocks.shared_rows else 0)

    def plan(self, host: SequenceTables, device: DeviceTables) -> "TritonPlan":
        """See `DeviceAttention.plan`."""
        num_sequences = len(host.context_lengths)
        first_tile = int(host.query_starts[host.num_decodes]) // self.block_queries + host.num_decodes
        num_tiles = int(host.query_starts[-1]) // self.block_queries + num_sequences - first_tile
        is_shared = host.prefixes is not None
        return TritonPlan(self, device, host.num_decodes, num_sequences, num_tiles, is_shared=is_shared)

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> "TritonChunks":
        """The sequences from `host.num_decodes` on; the rows before are somebody else's, however many they are."""
        first, count = host.num_decodes, len(host.context_lengths)
        first_tile = int(host.query_starts[first]) // self.block_queries + first
        num_tiles = int(host.query_starts[-1]) // self.block_queries + count - first_tile
        return TritonChunks(self, device, PrefillSpan(first, count, num_tiles))

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> "TritonPlan":
        """See `DeviceAttention.plan_capture`."""
        return TritonPlan(self, device, num_sequences, num_sequences, 0)

    def plan_decodes(self, host: SequenceTables, device: DeviceTables) -> "TritonPlan":
        """The decodes of a step alone."""
        if host.prefixes is not None:
            return TritonPlan(self, device, host.num_decodes, host.num_decodes, 0, is_shared=True)
        return self.plan_capture(device, host.num_decodes)

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """See `DeviceAttention.share`."""
        if not 0 < self._blocks.shared_rows <= len(context_lengths) or None not in self._layer_windows:
            return None
        prefixes = find_shared_prefixes(page_tables, context_lengths)
        if prefixes is None or prefixes.num_saved_tokens < _MIN_SAVED * int(context_lengths.sum()):
            return None
        return prefixes

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> "TritonPlan | None":
        """See `DeviceAttention.plan_shared`."""
        is_used = 0 < self._blocks.shared_rows <= num_sequences and None in self._layer_windows
        return TritonPlan(self, device, num_sequences, num_sequences, 0, is_shared=True) if is_used else None

    def decode_shared(self, layer: int, query: Tensor, out: Tensor, tables: DeviceTables, num_sequences: int) -> None:
        """As `decode`, with the groups of `tables`."""
        if self._layer_windows[layer] is None:
            self._shared.decode(layer, query, out, tables, num_sequences)
        else:
            self.decode(layer, query, out, tables, num_sequences)

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Nothing: the device computes all that differs between replays."""

    def decode(self, layer: int, query: Tensor, out: Tensor, tables: DeviceTables, num_sequences: int) -> None:
        """Attend for the first `num_sequences` rows, one sequence each."""
        splits = self._num_splits(num_sequences)
        blocks = self._blocks
        cut = self._cut(layer) | {"SPLITS": splits, "MIN_TOKENS": blocks.decode_tokens}
        group = self._num_heads // self._num_kv_heads
        scales = () if self._scales is None else (self._scales[layer],)
        self._launcher.launch(
            "decode.split" if self._scales is None else "decode_e4m3.split",
            (num_sequences, self._num_kv_heads, splits),
            (
                query,
                self._pages[layer],
                *scales,
                tables.context_lengths,
                tables.page_starts,
                tables.page_ids,
                out if splits == 1 else self._partial,
                self._log_sums,
            ),
            cut
            | self._heads()
            | {
                "BLOCK_GROUP": max(16, _power_of_two(group)),
                "BLOCK_TOKENS": blocks.decode_tokens,
                "STAGES": blocks.decode_stages,
            },
            Options(num_warps=blocks.decode_warps, num_stages=blocks.decode_stages, launch_pdl=self._pdl),
        )
        if splits > 1:
            self._merge(out, tables, num_sequences, splits, self._layer_windows[layer] or 0)

    def prefill(self, layer: int, query: Tensor, out: Tensor, tables: DeviceTables, span: "PrefillSpan") -> None:
        """Attend for the sequences of `span`."""
        group, blocks = self._num_heads // self._num_kv_heads, self._blocks
        self._launcher.launch(
            "prefill.causal",
            (span.num_tiles, self._num_kv_heads, 1),
            (
                query,
                self._pages[layer],
                self._log_sums if self._scales is None else self._scales[layer],
                tables.query_starts,
                tables.context_lengths,
                tables.page_starts,
                tables.page_ids,
                out,
                span.first_sequence,
                span.num_sequences,
            ),
            self._cut(layer)
            | self._heads()
            | {
                "BLOCK_QUERIES": self.block_queries,
                "BLOCK_ROWS": max(16, _power_of_two(self.block_queries * group)),
                "BLOCK_TOKENS": blocks.prefill_tokens,
                "SCALED": self._scales is not None,
                "STAGES": blocks.prefill_stages,
            },
            Options(
                num_warps=8 if self._head_dim > 128 else blocks.prefill_warps,
                num_stages=blocks.prefill_stages,
                launch_pdl=self._pdl,
            ),
        )

    @property
    def block_queries(self) -> int:
        """Queries of a tile of prompts."""
        return max(1, self._blocks.prefill_rows * self._num_kv_heads // self._num_heads)

    def _num_splits(self, num_sequences: int) -> int:
        return max(1, min(_MAX_SPLITS, -(-self._num_programs // (num_sequences * self._num_kv_heads))))

    def _heads(self) -> dict[str, Constant]:
        return {
            "HEADS": self._num_heads,
            "KV_HEADS": self._num_kv_heads,
            "HEAD_DIM": self._head_dim,
            "PAGE_SIZE": self._page_size,
            "BLOCK_DIM": _power_of_two(self._head_dim),
            "SOFTMAX_SCALE": self._head_dim**-0.5,
        }

    def _cut(self, layer: int) -> dict[str, Constant]:
        return {"WINDOW": self._layer_windows[layer] or 0, "PDL": self._pdl}

    def _merge(self, out: Tensor, tables: DeviceTables, num_sequences: int, splits: int, window: int) -> None:
        self._launcher.launch(
            "decode.merge",
            (num_sequences, self._num_heads, 1),
            (self._partial, self._log_sums, tables.context_lengths, out),
            {
                "HEADS": self._num_heads,
                "HEAD_DIM": self._head_dim,
                "BLOCK_DIM": _power_of_two(self._head_dim),
                "SPLITS": splits,
                "BLOCK_SPLITS": _power_of_two(splits),
                "MIN_TOKENS": self._blocks.decode_tokens,
                "WINDOW": window,
                "PDL": self._pdl,
            },
            Options(num_warps=4 if splits * self._head_dim >= 2048 else 1, launch_pdl=self._pdl),
        )


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """Which sequences are prompt chunks, and how many tiles cover their queries."""

    first_sequence: int
    num_sequences: int
    """Of the step, decodes included."""
    num_tiles: int


@dataclass(frozen=True, slots=True)
class TritonChunks:
    """The prompt chunks of a step alone."""

    attention: TritonAttention
    tables: DeviceTables
    span: PrefillSpan

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        self.attention.prefill(layer, query, out, self.tables, self.span)


class TritonPlan:
    """One step: decodes first, whose beginnings may be shared, then the tiles of prompt chunks."""

    def __init__(
        self,
        attention: TritonAttention,
        tables: DeviceTables,
        num_decodes: int,
        num_sequences: int,
        num_tiles: int,
        *,
        is_shared: bool = False,
    ) -> None:
        self._decode = attention.decode_shared if is_shared else attention.decode
        self._attention = attention
        self._tables = tables
        self._num_decodes = num_decodes
        self._chunks = PrefillSpan(num_decodes, num_sequences, num_tiles)

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        if self._num_decodes:
            self._decode(layer, query, out, self._tables, self._num_decodes)
        if self._chunks.num_sequences > self._num_decodes:
            self._attention.prefill(layer, query, out, self._tables, self._chunks)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
