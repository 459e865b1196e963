"""Kernels beside their references: one check per kernel, run small under Triton's interpreter and large on a GPU.

A check draws its inputs from a seed and returns the relative error ||out - reference|| / ||reference||, the reference in
float32. What must be exact (ids, flags, untouched memory) it asserts itself.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables, SharedTables
from runtime.attention.invariant import InvariantAttention
from runtime.attention.shared_prefixes import MEMBERS, SharedPrefixes
from runtime.attention.triton import DEFAULT_BLOCKS, E4M3_BLOCKS, AttentionBlocks, TritonAttention
from runtime.kernels.activation import silu_and_multiply
from runtime.kernels.blocks import GemvBlocks
from runtime.kernels.embedding import gather_embeddings
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.linear import Norm, multiply_rows
from runtime.kernels.norm import add_rms_norm
from runtime.kernels.quantized import multiply_quantized, quantize_gated, quantize_rows
from runtime.kernels.rotary import HeadNorms, rotate_and_store
from runtime.kernels.sampling import SamplingWorkspace, sample_rows
from runtime.layers.quantized import InputScaling, QuantizedLinear, QuantizedRows, dequantize_rows, quantize_channels
from runtime.layers.quantized import quantize_rows as quantize_reference
from runtime.layers.rotary import apply_rotary
from runtime.sampling.noise import gumbel_noise, noise_keys

TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of relative errors, by the dtype that results are rounded to (half a unit in the last place is 2e-3 for bf16)."""

NOISE_TOLERANCE = 4e-6
"""Two scores closer than this may be chosen differently: float32 logarithms against float64 ones."""

PAGE_SIZE = 16


LAUNCHER = JitLauncher()


class Inputs:
    """Random tensors of one seed on one device."""

    def __init__(self, device: str, dtype: torch.dtype, seed: int) -> None:
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        values = torch.randn(*shape, generator=self._generator, device=self.device) * scale
        return values.to(dtype or self.dtype)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(high, shape, generator=self._generator, device=self.device).to(dtype)

    def permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator, device=self.device)


def relative_error(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||, NaN if anything is."""
    wanted = reference.double()
    return float((out.double() - wanted).norm() / wanted.norm())


def rms_norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In float32, from whatever dtype."""
    return functional.rms_norm(rows.float(), (weight.shape[0],), weight.float(), eps)


def check_linear(
    inputs: Inputs,
    rows: int,
    n: int,
    k: int,
    *,
    blocks: GemvBlocks | None = None,
    norm: bool = False,
    bias: bool = False,
    residual: bool = False,
    swiglu: bool = False,
    out_dtype: torch.dtype | None = None,
    pdl: bool = False,
) -> float:
    weight_rows = 2 * n if swiglu else n
    x = inputs.normal(rows, k)
    weight = inputs.normal(weight_rows, k, scale=k**-0.5)
    norm_weight = inputs.normal(k) if norm else None
    added = inputs.normal(weight_rows) if bias else None
    before = inputs.normal(rows, n) if residual else None
    wide = rms_norm(x, norm_weight, 1e-5) if norm_weight is not None else x.float()
    wanted = wide @ weight.float().T
    if added is not None:
        wanted += added.float()
    if swiglu:
        wanted = functional.silu(wanted[:, :n]) * wanted[:, n:]
    if before is not None:
        wanted += before.float()
    out = before if before is not None else torch.empty(rows, n, dtype=out_dtype or inputs.dtype, device=inputs.device)
    multiply_rows(
        x,
        weight,
        out=out,
        launcher=LAUNCHER,
        norm=Norm(norm_weight, 1e-5) if norm_weight is not None else None,
        bias=added,
        residual=before,
        swiglu=swiglu,
        blocks=blocks,
        pdl=pdl,
    )
    return relative_error(out, wanted)


def check_norm(inputs: Inputs, rows: int, dim: int, *, delta: bool, pdl: bool = False) -> float:
    hidden, weight = inputs.normal(rows, dim), inputs.normal(dim)
    change = inputs.normal(rows, dim) if delta else None
    summed = hidden if change is None else (hidden.float() + change.float()).to(inputs.dtype)
    out = torch.empty_like(hidden)
    add_rms_norm(hidden, change, weight, 1e-5, out=out, launcher=LAUNCHER, pdl=pdl)
    assert torch.equal(hidden, summed)
    return relative_error(out, rms_norm(summed, weight, 1e-5))


def check_activation(inputs: Inputs, rows: int, inner: int, *, pdl: bool = False) -> float:
    gate_up = inputs.normal(rows, 2 * inner)
    out = torch.empty(rows, inner, dtype=inputs.dtype, device=inputs.device)
    silu_and_multiply(gate_up, out=out, launcher=LAUNCHER, pdl=pdl)
    wide = gate_up.float()
    return relative_error(out, functional.silu(wide[:, :inner]) * wide[:, inner:])


def check_embedding(inputs: Inputs, rows: int, vocab_size: int, dim: int, *, pdl: bool = False) -> None:
    embedding = inputs.normal(vocab_size, dim)
    known, previous_ids = inputs.integers(vocab_size, rows), inputs.integers(vocab_size, rows + 3)
    previous_rows = inputs.integers(rows + 4, rows, dtype=torch.int32) - 1
    known = torch.where(previous_rows >= 0, -1, known)
    out = torch.empty(rows, dim, dtype=inputs.dtype, device=inputs.device)
    gather_embeddings(known, previous_rows, previous_ids, embedding, out=out, launcher=LAUNCHER, pdl=pdl)
    ids = torch.where(previous_rows >= 0, previous_ids[previous_rows.clamp(min=0).long()], known)
    assert torch.equal(out, embedding[ids])


def check_rotary(
    inputs: Inputs,
    rows: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    norm: bool = False,
    cache_dtype: torch.dtype | None = None,
    pdl: bool = False,
) -> float:
    """The larger of the errors of queries and of the cache."""
    num_positions, num_pages = 64, rows + 2
    all_heads = heads + 2 * kv_heads
    qkv = inputs.normal(rows, all_heads * head_dim)
    positions = inputs.integers(num_positions, rows)
    slots = PAGE_SIZE + inputs.permutation((num_pages - 1) * PAGE_SIZE)[:rows]
    angles = torch.randn(num_positions, head_dim // 2, generator=torch.Generator().manual_seed(0)).to(inputs.device)
    cosines = torch.cat((angles.cos(), angles.cos()), dim=-1).to(inputs.dtype)
    sines = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(inputs.dtype)
    pages = torch.full((num_pages, 2, PAGE_SIZE, kv_heads, head_dim), 2.0, device=inputs.device).to(
        cache_dtype or inputs.dtype
    )
    norms = HeadNorms(inputs.normal(head_dim), inputs.normal(head_dim), 1e-6) if norm else None
    scales = torch.tensor([0.5, 0.25, 0.0, 0.0], device=inputs.device) if cache_dtype is not None else None
    before = pages.clone()
    query = torch.empty(rows, heads, head_dim, dtype=inputs.dtype, device=inputs.device)
    rotate_and_store(
        qkv, positions, slots, cosines, sines, pages,
        query=query, launcher=LAUNCHER, head_norms=norms, scales=scales, pdl=pdl,
    )  # fmt: skip
    all_wide = qkv.float().view(rows, all_heads, head_dim)
    wide_query, wide_key, value = all_wide.split((heads, kv_heads, kv_heads), dim=1)
    if norms is not None:
        wide_query, wide_key = rms_norm(wide_query, norms.query, 1e-6), rms_norm(wide_key, norms.key, 1e-6)
    tables = cosines.float()[positions][:, None], sines.float()[positions][:, None]
    errors = [relative_error(query, apply_rotary(wide_query.contiguous(), *tables))]
    factors = (1.0, 1.0) if scales is None else (2.0, 4.0)
    page, offset = slots // PAGE_SIZE, slots % PAGE_SIZE
    wide_pages = pages.float()
    errors.append(
        relative_error(wide_pages[page, 0, offset], apply_rotary(wide_key.contiguous(), *tables) * factors[0])
    )
    errors.append(relative_error(wide_pages[page, 1, offset], value * factors[1]))
    untouched = torch.ones(num_pages, PAGE_SIZE, dtype=torch.bool, device=inputs.device)
    untouched[page, offset] = False
    for part in (0, 1):
        assert torch.equal(wide_pages[:, part][untouched], before.float()[:, part][untouched])
    return max(errors)


def check_sampling(
    inputs: Inputs, rows: int, vocab_size: int, *, drawn: bool, scale: float = 3.0, pdl: bool = False
) -> float:
    """The share of rows whose token differs from the reference's; those must be ties."""
    logits = inputs.normal(rows, vocab_size, scale=scale)
    temperatures = torch.where(inputs.integers(3, rows) > 0, 0.25 + inputs.integers(100, rows) / 50.0, 0.0).float()
    if not drawn:
        temperatures.zero_()
    seeds, positions = inputs.integers(2**62, rows), inputs.integers(2**40, rows)
    token_ids, is_finite = run_sampling(logits, temperatures, seeds, positions, drawn=drawn, pdl=pdl)
    assert bool(is_finite.all())
    scores = reference_scores(logits, temperatures, seeds, positions)
    wanted = scores.argmax(dim=-1)
    differ = token_ids != wanted
    gaps = scores.gather(1, wanted[:, None]) - scores.gather(1, token_ids[:, None])
    assert not bool((gaps[:, 0] > NOISE_TOLERANCE).any()), f"chosen although {float(gaps.max())} below the best"
    assert not bool((differ & (temperatures == 0)).any()), "a greedy row is not the lowest id of the largest logit"
    return float(differ.float().mean())


def run_sampling(
    logits: Tensor, temperatures: Tensor, seeds: Tensor, positions: Tensor, *, drawn: bool, pdl: bool = False
) -> tuple[Tensor, Tensor]:
    rows, vocab_size = logits.shape
    token_ids = torch.full((rows,), -1, dtype=torch.int64, device=logits.device)
    is_finite = torch.full((rows,), 2, dtype=torch.int8, device=logits.device)
    sample_rows(
        logits, temperatures, seeds, positions,
        workspace=SamplingWorkspace(rows, vocab_size, logits.device),
        token_ids=token_ids, is_finite=is_finite, drawn=drawn, launcher=LAUNCHER, pdl=pdl,
    )  # fmt: skip
    return token_ids, is_finite


def reference_scores(logits: Tensor, temperatures: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """What `runtime.sampling.sampler` takes the argmax of."""
    wide = logits.float()
    shifted = wide - wide.amax(dim=-1, keepdim=True)
    noise = gumbel_noise(noise_keys(seeds, positions), torch.arange(logits.shape[1], device=logits.device))
    drawn = shifted / temperatures.where(temperatures > 0, 1.0)[:, None] + noise
    return torch.where(temperatures[:, None] > 0, drawn, wide)


class Attention:
    """One layer's cache with some sequences in it; all that is no token of theirs is NaN.

    Args:
        contexts: their lengths, new tokens included.
        queries: how many of each are new; the first `num_decodes` have one.
    """

    def __init__(
        self, inputs: Inputs, contexts: Sequence[int], queries: Sequence[int], *,
        heads: int, kv_heads: int, head_dim: int, cache_dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.heads = inputs, heads
        self.contexts, self.queries = contexts, queries
        counts = [-(-context // PAGE_SIZE) for context in contexts]
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        page_ids = inputs.permutation(int(starts[-1])).to(torch.int32) + 1
        self.pages = torch.full(
            (2, int(starts[-1]) + 1, 2, PAGE_SIZE, kv_heads, head_dim), float("nan"),
            dtype=inputs.dtype, device=inputs.device,
        )  # fmt: skip
        for index, context in enumerate(contexts):
            at = torch.arange(context, device=inputs.device)
            page = page_ids[starts[index] + at // PAGE_SIZE].long()
            for part in (0, 1):
                self.pages[1, page, part, at % PAGE_SIZE] = inputs.normal(context, kv_heads, head_dim)
        self.scales = None
        if cache_dtype is not None:
            self.scales = torch.tensor([[0.5, 0.25, 0.0, 0.0]] * 2, device=inputs.device)
            self.pages = self.pages.to(cache_dtype)
        query_starts = np.concatenate(([0], np.cumsum(queries))).astype(np.int32)
        self.query = inputs.normal(int(query_starts[-1]), heads, head_dim)
        lengths = np.asarray(contexts, np.int32)
        num_decodes = next((i for i, count in enumerate(queries) if count != 1), len(queries))
        self.host = SequenceTables(query_starts, lengths, starts, page_ids.cpu().numpy(), num_decodes)

        def to_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(inputs.device)

        self.tables = DeviceTables(
            query_starts=to_device(query_starts), context_lengths=to_device(lengths), page_starts=to_device(starts),
            page_ids=page_ids, last_page_lengths=to_device((lengths - 1) % PAGE_SIZE + 1),
        )  # fmt: skip

    def backend(
        self, window: int | None = None, *, num_multiprocessors: int = 132, pdl: bool = False,
        blocks: AttentionBlocks | None = None, spare: int = 0,
    ) -> TritonAttention:  # fmt: skip
        return TritonAttention(
            self.pages, num_heads=self.heads, layer_windows=[None, window], launcher=LAUNCHER,
            max_decodes=max(1, len(self.contexts)) + spare, num_multiprocessors=num_multiprocessors,
            scales=self.scales, pdl=pdl, blocks=blocks,
        )  # fmt: skip

    def invariant(self, window: int | None = None, *, num_multiprocessors: int = 132) -> InvariantAttention:
        """What attends where rows must not depend on each other."""
        return InvariantAttention(
            self.pages, num_heads=self.heads, layer_windows=[None, window], launcher=LAUNCHER,
            max_context_length=max(self.contexts), num_multiprocessors=num_multiprocessors, scales=self.scales,
        )  # fmt: skip

    def reference(self, window: int | None) -> Tensor:
        """Every sequence by itself, in float32."""
        return torch.cat([self._attend(index, window) for index in range(len(self.contexts))])

    def _attend(self, index: int, window: int | None) -> Tensor:
        first, last = self.host.query_starts[index : index + 2]
        context, queries = self.contexts[index], self.queries[index]
        ids = self.tables.page_ids[self.host.page_starts[index] : self.host.page_starts[index + 1]].long()
        cache = self.pages[1].float()[ids].transpose(0, 1).flatten(1, 2)[:, :context]
        group = self.heads // cache.shape[2]
        keys, values = (part.repeat_interleave(group, dim=1).transpose(0, 1) for part in cache)
        if self.scales is not None:
            keys, values = keys * 0.5, values * 0.25
        query = self.query[first:last].float().transpose(0, 1)
        scores = query @ keys.transpose(1, 2) * query.shape[-1] ** -0.5
        at = torch.arange(context, device=scores.device)
        position = torch.arange(context - queries, context, device=scores.device)[:, None]
        hidden = at > position
        if window is not None:
            hidden |= at <= position - window
        return (scores.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ values).transpose(0, 1)


def check_attention(
    case: Attention, *, window: int | None = None, num_multiprocessors: int = 132, pdl: bool = False
) -> float:
    """A step outside a graph; the rows of `out` that belong to no sequence must be left alone."""
    padded = torch.cat((case.query, case.query[:1]))
    out = torch.full_like(padded, 7.0)
    plan = case.backend(window, num_multiprocessors=num_multiprocessors, pdl=pdl).plan(case.host, case.tables)
    plan.attend(1, padded, out)
    assert bool((out[-1] == 7.0).all())
    return relative_error(out[:-1], case.reference(window))


def share_pages(case: Attention, leader: int, members: Sequence[int], num_pages: int) -> None:
    """Let sequences begin with the leader's pages."""
    ids, starts = case.tables.page_ids, case.host.page_starts
    for member in members:
        ids[starts[member] : starts[member] + num_pages] = ids[starts[leader] : starts[leader] + num_pages].clone()
    case.host = replace(case.host, page_ids=ids.cpu().numpy())


def check_shared_attention(
    case: Attention, groups: Sequence[tuple[Sequence[int], int]], *, window: int | None = None,
    num_multiprocessors: int = 132, pdl: bool = False, num_padding: int = 2,
) -> float:  # fmt: skip
    """Decodes of which some begin with the same pages, beside padding. `groups`: members, and pages that they are to share.

    Of what is shared only the first member's table is looked at, if there is no window: the others' have a page of NaN there.
    """
    count = len(case.contexts)
    for chosen, num_pages in groups:
        share_pages(case, chosen[0], chosen[1:], num_pages)
    # A page that was a member's own, before it had its leader's.
    nowhere = next(iter({*range(1, case.pages.shape[1])} - set(case.tables.page_ids.tolist())))
    case.pages[:, nowhere] = torch.full_like(case.pages[:, nowhere].float(), torch.nan).to(case.pages.dtype)
    members = np.full((len(groups), MEMBERS), -1, np.int32)
    for index, (chosen, _) in enumerate(groups):
        members[index, : len(chosen)] = chosen
    prefixes = SharedPrefixes(members, np.array([PAGE_SIZE * num_pages for _, num_pages in groups], np.int32))
    tables = shared_tables(padded_tables(case.tables, num_padding), prefixes)
    wanted = case.reference(window)
    for chosen, num_pages in groups if window is None else []:
        for member in chosen[1:]:
            first = int(case.host.page_starts[member])
            tables.page_ids[first : first + num_pages] = nowhere
    case.pages[:, 0].zero_()
    query = torch.cat((case.query, case.query[:1].expand(num_padding, -1, -1)))
    out = torch.full_like(query, 7.0)
    blocks = replace(DEFAULT_BLOCKS if case.scales is None else E4M3_BLOCKS, shared_rows=1)
    attention = case.backend(window, num_multiprocessors=num_multiprocessors, pdl=pdl, blocks=blocks, spare=num_padding)
    plan = attention.plan_shared(tables, count + num_padding)
    assert plan is not None
    plan.attend(1, query, out)
    assert bool((out[count:] == 0.0).all())
    return relative_error(out[:count], wanted)


def shared_tables(tables: DeviceTables, prefixes: SharedPrefixes) -> DeviceTables:
    """With groups, and as many empty ones as there may be."""
    values = prefixes.padded(len(tables.context_lengths))
    return replace(
        tables, shared=SharedTables(*(torch.from_numpy(value).to(tables.page_ids.device) for value in values))
    )


def padded_tables(tables: DeviceTables, num_padding: int) -> DeviceTables:
    """With sequences of one token in page 0 behind those that there are."""
    more = torch.arange(1, num_padding + 1, dtype=torch.int32, device=tables.page_ids.device)
    one = torch.ones_like(more)
    return DeviceTables(
        query_starts=torch.cat((tables.query_starts, tables.query_starts[-1:] + more)),
        context_lengths=torch.cat((tables.context_lengths, one)),
        page_starts=torch.cat((tables.page_starts, tables.page_starts[-1:] + more)),
        page_ids=torch.cat((tables.page_ids, one - 1)),
        last_page_lengths=torch.cat((tables.last_page_lengths, one)),
    )


def quantized_layer(
    inputs: Inputs, n: int, k: int, *, by_block: bool = False, bias: bool = False, scaling: InputScaling | None = None
) -> QuantizedLinear:
    """A layer whose channels, or blocks, differ in size by up to 16."""
    weight = inputs.normal(n, k, scale=k**-0.5, dtype=torch.float32)
    if by_block:
        sizes = torch.exp2(inputs.integers(5, -(-n // 128), k // 128).float()) / 448
        values = (weight * 400 * k**0.5 / 4).clamp(-448, 448).to(torch.float8_e4m3fn)
        scales = sizes * 4 * k**-0.5
    else:
        values, scales = quantize_channels(weight * torch.exp2(inputs.integers(5, n, 1).float()))
    given = scaling or InputScaling(by_group=by_block)
    return QuantizedLinear(values, scales, inputs.normal(n) if bias else None, given)


def check_quantize(
    inputs: Inputs, rows: int, dim: int, scaling: InputScaling, *, kind: str, pdl: bool = False
) -> float:
    """`kind`: plain, norm or gated. Scales are the reference's but for the norm's last bit; the error is of the values."""
    if kind == "gated":
        gate_up = inputs.normal(rows, 2 * dim)
        gate, up = gate_up[:, :dim].float(), gate_up[:, dim:].float()
        wanted = (functional.silu(gate) * up).to(inputs.dtype)
        out = quantize_gated(gate_up, scaling, launcher=LAUNCHER, pdl=pdl)
    else:
        x, weight = inputs.normal(rows, dim), inputs.normal(dim) if kind == "norm" else None
        wanted = x if weight is None else rms_norm(x, weight, 1e-5).to(inputs.dtype)
        norm = None if weight is None else Norm(weight, 1e-5)
        out = quantize_rows(x, scaling, launcher=LAUNCHER, norm=norm, pdl=pdl)
    reference = quantize_reference(wanted, scaling)
    assert relative_error(out.scales, reference.scales) < 2 * TOLERANCES[inputs.dtype]
    return relative_error(dequantize_rows(out), dequantize_rows(reference))


def laid_by_group(rows: QuantizedRows) -> QuantizedRows:
    """As our kernels lay rows out: scales by group beside each other, memory for rows in fours. What is beyond is NaN."""
    if rows.scales.ndim == 1:
        return rows
    num_rows, allocated = len(rows.values), -(-len(rows.values) // 4) * 4
    values = torch.full((allocated, rows.values.shape[1]), torch.nan, device=rows.values.device).to(rows.values.dtype)
    scales = torch.full((rows.scales.shape[1], allocated), torch.nan, device=rows.scales.device)
    values[:num_rows], scales[:, :num_rows] = rows.values, rows.scales.t()
    return QuantizedRows(values[:num_rows], scales.t()[:num_rows])


def check_quantized_product(
    inputs: Inputs, rows: int, layer: QuantizedLinear, *, residual: bool = False, blocks: GemvBlocks | None = None,
    pdl: bool = False,
) -> float:  # fmt: skip
    """Against float32 products of the very same e4m3 values."""
    n, k = layer.weight.shape
    x = laid_by_group(quantize_reference(inputs.normal(rows, k), layer.inputs))
    before = inputs.normal(rows, n) if residual else None
    wanted = dequantize_rows(x) @ layer.dequantized().T
    if layer.bias is not None:
        wanted += layer.bias.float()
    if before is not None:
        wanted += before.float()
    out = multiply_quantized(x, layer, launcher=LAUNCHER, dtype=inputs.dtype, residual=before, blocks=blocks, pdl=pdl)
    return relative_error(out, wanted)
