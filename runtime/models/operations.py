"""The operations that a decoder on a GPU is made of, and what each computes, in plain torch.

They are cut where kernels can be fused: a norm goes with the product that reads it, a residual addition with the product
that it adds, the rotary embedding with the write to the cache. `hidden` is the residual stream; whoever adds to it does
so in place. `PlainOperations` is the judge of every faster implementation, and runs on a CPU.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.attention.pages import key_rows, write_kv
from runtime.layers.activation import silu_and_multiply
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear
from runtime.layers.rotary import RotaryTable, apply_rotary
from runtime.sampling.noise import gumbel_noise, noise_keys


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where each row's token id is found."""

    token_ids: Tensor
    """[num_rows] int32."""
    previous_rows: Tensor
    """[num_rows] int32; -1, or the row of `previous_ids` that holds the id instead."""
    previous_ids: Tensor
    """[max_samples] int32: what the step before chose, written before this step runs."""


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    """Where each row's key and value go, and by what angle they are turned."""

    positions: Tensor
    """[num_rows] int32."""
    slots: Tensor
    """[num_rows] int32; slot = page * PAGE_SIZE + offset."""


@dataclass(frozen=True, slots=True)
class DraftTokens:
    """What a draft head reads: tokens, or drafts that were just made."""

    ids: Tensor
    """[num_rows] int32."""
    target_ids: Tensor | None = None
    """[draft_vocab_size] int64, where `ids` are places in it; None: they are the target's."""
    drafts: Tensor | None = None
    """[at least num_rows, num_steps] int32; then the target's ids are noted here, in column `step`."""
    step: int = 0


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """What a token is chosen by where no mask, penalty or bias is asked for."""

    temperature: Tensor
    """[num_samples] float32; 0: the argmax."""
    seeds: Tensor
    """[num_samples] int64."""
    positions: Tensor
    """[num_samples] int64."""


class Operations(Protocol):
    """All are enqueued on the current stream and capture-safe. Rows are independent of each other."""

    def embed(self, source: TokenSource, table: Tensor, hidden: Tensor) -> None:
        """Rows of `table` [vocab_size, hidden_size] → `hidden` [num_rows, hidden_size], written."""
        ...

    def norm_linear(self, hidden: Tensor, norm: RMSNorm, linear: AnyLinear, out: Tensor | None = None) -> Tensor:
        """linear(norm(hidden)) → [num_rows, out]: `out`, or a new tensor where none is given."""
        ...

    def add_linear(self, hidden: Tensor, rows: Tensor, linear: AnyLinear, part: Tensor | None = None) -> None:
        """hidden += linear(rows), in place.

        Args:
            part: [num_rows, hidden_size], written with the product instead, which is a part of a sum over ranks.
        """
        ...

    def linear(self, rows: Tensor, linear: Linear) -> Tensor:
        """linear(rows) → [num_rows, out], a new tensor."""
        ...

    def join_normed(self, tokens: DraftTokens, table: Tensor, hidden: Tensor, norms: tuple[RMSNorm, RMSNorm]) -> Tensor:
        """[norms[0](rows of `table`), norms[1](hidden)] side by side → [num_rows, 2 * hidden_size], a new tensor.

        Args:
            table: [vocab_size, hidden_size].
            norms: with the same `eps`.
        """
        ...

    def feed_forward(
        self, hidden: Tensor, norm: RMSNorm, gate_up: AnyLinear, down: AnyLinear, part: Tensor | None = None
    ) -> None:
        """hidden += down(silu(gate) * up), in place; gate and up are the halves of gate_up(norm(hidden)).

        Args:
            part: see `add_linear`.
        """
        ...

    def rotate_and_store(
        self,
        heads: Tensor,
        places: TokenPlaces,
        rotary: RotaryTable,
        head_norms: tuple[RMSNorm, RMSNorm] | None,
        layer_pages: Tensor,
        query: Tensor,
        layer_scales: Tensor | None = None,
    ) -> None:
        """Split the projected heads, normalize queries and keys if asked, turn both, write keys and values to the cache.

        Args:
            heads: [num_rows, (num_heads + 2 * num_kv_heads) * head_dim]: queries, keys, values.
            layer_pages: [num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim], written in place.
            query: [num_rows, num_heads, head_dim], contiguous, written: the queries, turned.
            layer_scales: of a cache in e4m3, see `runtime.attention.pages`.
        """
        ...

    def sample(self, logits: Tensor, columns: SampleColumns, samples: Tensor) -> None:
        """The argmax of logits/temperature plus the noise of (seed, position, id), see `runtime.sampling`.

        Args:
            logits: [num_samples, vocab_size].
            samples: [2, at least num_samples] int32, written: ids, then 1 where the row's logits are fit to choose from,
                else 0; both begin at multiples of 16 bytes.
        """
        ...


class PlainOperations:
    """Torch, one operation after the other."""

    def embed(self, source: TokenSource, table: Tensor, hidden: Tensor) -> None:
        """See `Operations.embed`."""
        from_previous = source.previous_ids[source.previous_rows.clamp(min=0).long()]
        token_ids = torch.where(source.previous_rows >= 0, from_previous, source.token_ids)
        hidden.copy_(functional.embedding(token_ids, table))

    def norm_linear(self, hidden: Tensor, norm: RMSNorm, linear: AnyLinear, out: Tensor | None = None) -> Tensor:
        """See `Operations.norm_linear`."""
        rows = linear(norm(hidden))
        return rows if out is None else out.copy_(rows)

    def add_linear(self, hidden: Tensor, rows: Tensor, linear: AnyLinear, part: Tensor | None = None) -> None:
        """See `Operations.add_linear`."""
        if part is None:
            hidden.add_(linear(rows))
        else:
            part.copy_(linear(rows))

    def linear(self, rows: Tensor, linear: Linear) -> Tensor:
        """See `Operations.linear`."""
        return linear(rows)

    def join_normed(self, tokens: DraftTokens, table: Tensor, hidden: Tensor, norms: tuple[RMSNorm, RMSNorm]) -> Tensor:
        """See `Operations.join_normed`."""
        ids = tokens.ids
        if tokens.target_ids is not None and tokens.drafts is not None:
            ids = tokens.target_ids.index_select(0, ids)
            tokens.drafts[: len(ids), tokens.step].copy_(ids)
        return torch.cat((norms[0](functional.embedding(ids, table)), norms[1](hidden)), dim=-1)

    def feed_forward(
        self, hidden: Tensor, norm: RMSNorm, gate_up: AnyLinear, down: AnyLinear, part: Tensor | None = None
    ) -> None:
        """See `Operations.feed_forward`."""
        self.add_linear(hidden, silu_and_multiply(gate_up(norm(hidden))), down, part)

    def rotate_and_store(
        self,
        heads: Tensor,
        places: TokenPlaces,
        rotary: RotaryTable,
        head_norms: tuple[RMSNorm, RMSNorm] | None,
        layer_pages: Tensor,
        query: Tensor,
        layer_scales: Tensor | None = None,
    ) -> None:
        """See `Operations.rotate_and_store`."""
        num_kv_heads, head_dim = layer_pages.shape[-2:]
        split = heads.view(heads.shape[0], -1, head_dim)
        num_heads = split.shape[1] - 2 * num_kv_heads
        queries, key, value = split.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
        if head_norms is not None:
            queries, key = head_norms[0](queries), head_norms[1](key)
        cosines, sines = rotary.at(places.positions)
        rows = key_rows(places.slots.long())
        write_kv(layer_pages, apply_rotary(key, cosines, sines), value, rows, layer_scales)
        query.copy_(apply_rotary(queries, cosines, sines))

    def sample(self, logits: Tensor, columns: SampleColumns, samples: Tensor) -> None:
        """See `Operations.sample`."""
        scores = logits.float()
        largest, chosen = scores.max(dim=-1)
        keys = noise_keys(columns.seeds, columns.positions)
        ids = torch.arange(scores.shape[1], device=scores.device)
        scaled = (scores - largest[:, None]) / columns.temperature.clamp(min=1e-30)[:, None]
        drawn = (scaled + gumbel_noise(keys, ids)).argmax(dim=-1)
        count = len(chosen)
        samples[0, :count] = torch.where(columns.temperature > 0, drawn, chosen)
        samples[1, :count] = largest.isfinite()
