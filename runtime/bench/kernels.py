"""Every kernel beside its reference: error against float32, time, and how near it is to the wall of memory or arithmetic.

Linear layers have a module of their own, `linear_layers`; here is the rest: norm, activation, rotation with the cache write,
embedding, sampling, and attention.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables, SharedTables
from runtime.attention.pages import SCALE_COLUMNS, allocate_pages, key_rows, write_kv
from runtime.attention.shared_prefixes import find_shared_prefixes
from runtime.attention.triton import DEFAULT_BLOCKS, AttentionBlocks, TritonAttention
from runtime.bench.device_time import Call, num_rotated, seconds_per_call
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.activation import silu_and_multiply
from runtime.kernels.embedding import gather_embeddings
from runtime.kernels.launching import Launcher
from runtime.kernels.norm import add_rms_norm
from runtime.kernels.rotary import rotate_and_store
from runtime.kernels.sampling import SamplingWorkspace, sample_rows
from runtime.layers.activation import silu_and_multiply as silu_reference
from runtime.layers.quantized import E4M3
from runtime.layers.rotary import apply_rotary
from runtime.sampling.noise import gumbel_noise, noise_keys

HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 8, 128, 128256
_EPS = 1e-5
_CACHE_SCALE = 0.02
"""Of e4m3: numbers of the normal distribution fill its range."""
_FILLED_PAGES = 4096
"""At once, as they are drawn in float32."""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """One kernel at one shape."""

    name: str
    shape: str
    error: float
    """Relative, against float32; for tokens the share that differs."""
    seconds: float
    reference_seconds: float
    """Of plain torch; NaN where it would not fit."""
    moved_bytes: float
    operations: float = 0.0


def measure_kernels(launcher: Launcher, *, pdl: bool = True) -> Iterator[KernelResult]:
    """All of this module, at shapes of Llama-3.1-8B."""
    for rows in (1, 512):
        yield _norm(launcher, rows, pdl)
    yield _activation(launcher, 512, pdl)
    for rows in (1, 512):
        yield _rotary(launcher, rows, pdl)
        yield _embedding(launcher, rows, pdl)
    for rows in (1, 64, 512):
        for drawn in (False, True):
            yield _sampling(launcher, rows, drawn, pdl)
    for sequences, context in ((1, 640), (1, 32768), (8, 640), (64, 2048), (256, 1536), (512, 640)):
        yield measure_decode(launcher, sequences, context, pdl=pdl)
    for sharing in (2, 4, 16):
        yield measure_shared(launcher, 64, 2304, sharing, pdl=pdl)
    for tokens in (2048, 8192):
        yield measure_prefill(launcher, tokens)


def _result(
    name: str, shape: str, calls: list[Call], references: list[Call], out: Callable[[], float], moved: float
) -> KernelResult:
    calls[0]()
    error = out()
    return KernelResult(name, shape, error, seconds_per_call(calls), seconds_per_call(references), moved)


def _normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16, device="cuda").normal_(std=scale)


def _error(out: Tensor, wanted: Tensor) -> float:
    return float((out.double() - wanted.double()).norm() / wanted.double().norm())


def _norm(launcher: Launcher, rows: int, pdl: bool) -> KernelResult:
    dim = 4096
    count = num_rotated(8 * rows * dim)
    hidden, delta, out = ([_normal(rows, dim) for _ in range(count)] for _ in range(3))
    weight = _normal(dim)
    wanted = functional.rms_norm(
        (hidden[0].float() + delta[0].float()).bfloat16().float(), (dim,), weight.float(), _EPS
    )

    def reference(i: int) -> None:
        hidden[i] += delta[i]
        functional.rms_norm(hidden[i], (dim,), weight, _EPS)

    def run(i: int) -> None:
        add_rms_norm(hidden[i], delta[i], weight, _EPS, out=out[i], launcher=launcher, pdl=pdl)

    return _result("add_rms_norm", f"{rows}x{dim}", _calls(run, count), _calls(reference, count),
                   lambda: _error(out[0], wanted), 8.0 * rows * dim)  # fmt: skip


def _activation(launcher: Launcher, rows: int, pdl: bool) -> KernelResult:
    inner = 14336
    count = num_rotated(6 * rows * inner)
    gate_up, out = [_normal(rows, 2 * inner) for _ in range(count)], [_normal(rows, inner) for _ in range(count)]
    wanted = silu_reference(gate_up[0].float())

    def run(i: int) -> None:
        silu_and_multiply(gate_up[i], out=out[i], launcher=launcher, pdl=pdl)

    def reference(i: int) -> None:
        silu_reference(gate_up[i])

    return _result("silu_and_multiply", f"{rows}x{inner}", _calls(run, count), _calls(reference, count),
                   lambda: _error(out[0], wanted), 6.0 * rows * inner)  # fmt: skip


def _rotary(launcher: Launcher, rows: int, pdl: bool) -> KernelResult:
    width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
    count = num_rotated(4 * rows * width)
    qkv = [_normal(rows, width) for _ in range(count)]
    query = torch.empty(rows, HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cuda")
    pages = allocate_pages(num_layers=1, num_pages=rows // PAGE_SIZE + 2, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM,
                           device=torch.device("cuda"), dtype=torch.bfloat16)[0]  # fmt: skip
    slots = torch.arange(PAGE_SIZE, PAGE_SIZE + rows, device="cuda")
    positions = torch.randint(8192, (rows,), device="cuda")
    angles = torch.rand(8192, HEAD_DIM // 2, device="cuda")
    cosines = torch.cat((angles.cos(), angles.cos()), -1).bfloat16()
    sines = torch.cat((-angles.sin(), angles.sin()), -1).bfloat16()
    turned = HEADS + KV_HEADS

    def tables() -> tuple[Tensor, Tensor]:
        return cosines[positions][:, None], sines[positions][:, None]

    def run(i: int) -> None:
        rotate_and_store(qkv[i], positions, slots, cosines, sines, pages, query=query, launcher=launcher, pdl=pdl)

    def reference(i: int) -> None:
        heads = qkv[i].view(rows, -1, HEAD_DIM)
        both = apply_rotary(heads[:, :turned], *tables())
        write_kv(pages, both[:, HEADS:], heads[:, turned:], key_rows(slots))

    wide = qkv[0].float().view(rows, -1, HEAD_DIM)[:, :HEADS].contiguous()
    wanted = apply_rotary(wide, *(table.float() for table in tables()))
    return _result("rotate_and_store", f"{rows}x{width}", _calls(run, count), _calls(reference, count),
                   lambda: _error(query, wanted), 4.0 * rows * width)  # fmt: skip


def _embedding(launcher: Launcher, rows: int, pdl: bool) -> KernelResult:
    dim, count = 4096, 16
    embedding, out = _normal(VOCAB, dim), _normal(rows, dim)
    ids = [torch.randint(VOCAB, (rows,), device="cuda") for _ in range(count)]
    previous = torch.full((rows,), -1, dtype=torch.int32, device="cuda")

    def run(i: int) -> None:
        gather_embeddings(ids[i], previous, ids[i], embedding, out=out, launcher=launcher, pdl=pdl)

    def reference(i: int) -> None:
        torch.index_select(embedding, 0, ids[i], out=out)

    return _result("gather_embeddings", f"{rows}x{dim}", _calls(run, count), _calls(reference, count),
                   lambda: _error(out, embedding[ids[0]]), 4.0 * rows * dim)  # fmt: skip


def _sampling(launcher: Launcher, rows: int, drawn: bool, pdl: bool) -> KernelResult:
    count = num_rotated(2 * rows * VOCAB)
    logits = [_normal(rows, VOCAB, scale=3.0) for _ in range(count)]
    temperatures = torch.full((rows,), float(drawn), device="cuda")
    seeds, positions = torch.arange(rows, device="cuda"), torch.arange(rows, device="cuda") + 100
    workspace = SamplingWorkspace(rows, VOCAB, torch.device("cuda"))
    ids = torch.empty(rows, dtype=torch.int64, device="cuda")
    is_finite = torch.empty(rows, dtype=torch.int8, device="cuda")
    vocabulary = torch.arange(VOCAB, device="cuda")

    def run(i: int) -> None:
        sample_rows(logits[i], temperatures, seeds, positions, workspace=workspace, token_ids=ids, is_finite=is_finite,
                    drawn=drawn, launcher=launcher, pdl=pdl)  # fmt: skip

    def reference_ids(i: int) -> Tensor:
        wide = logits[i].float()
        if drawn:
            wide = wide - wide.amax(-1, keepdim=True) + gumbel_noise(noise_keys(seeds, positions), vocabulary)
        return wide.argmax(-1)

    def reference(i: int) -> None:
        reference_ids(i)

    wanted = reference_ids(0)
    return _result("sample_rows" + (" drawn" if drawn else " greedy"), f"{rows}x{VOCAB}", _calls(run, count),
                   _calls(reference, count if not drawn else 1), lambda: float((ids != wanted).float().mean()),
                   2.0 * rows * VOCAB)  # fmt: skip


def measure_decode(
    launcher: Launcher, sequences: int, context: int, *, blocks: AttentionBlocks | None = None, pdl: bool = True,
    cache_dtype: torch.dtype = torch.bfloat16,
) -> KernelResult:  # fmt: skip
    """Decode attention of equal contexts; rotates over layers."""
    layer_bytes = 2 * cache_dtype.itemsize * sequences * context * KV_HEADS * HEAD_DIM
    count = num_rotated(layer_bytes)
    case = _PagedCase(launcher, count, [context] * sequences, [1] * sequences, blocks, pdl, cache_dtype)
    plan = case.attention.plan_capture(case.tables, sequences)
    calls = _calls(lambda i: plan.attend(i, case.query, case.out), count)
    calls[0]()
    error = _error(case.out[:1], case.attend_first(0))
    seconds = seconds_per_call(calls)
    name = "decode attention, e4m3" if cache_dtype == E4M3 else "decode attention"
    return KernelResult(name, f"{sequences}x{context}", error, seconds, float("nan"), float(layer_bytes))


def measure_shared(launcher: Launcher, sequences: int, context: int, sharing: int, *, pdl: bool = True) -> KernelResult:
    """Decodes of which `sharing` each have seven eighths of their contexts in common; the reference reads each its own."""
    pages = context // PAGE_SIZE
    common = pages * 7 // 8
    num_tokens = sequences * (context - common * PAGE_SIZE) + sequences // sharing * common * PAGE_SIZE
    layer_bytes = 4 * num_tokens * KV_HEADS * HEAD_DIM
    count = num_rotated(layer_bytes)
    blocks = replace(DEFAULT_BLOCKS, shared_rows=1)
    case = _PagedCase(launcher, count, [context] * sequences, [1] * sequences, blocks, pdl, torch.bfloat16)
    tables = case.tables.page_ids.view(sequences, pages)
    tables[:, :common] = tables[torch.arange(sequences, device="cuda") // sharing * sharing, :common]
    prefixes = find_shared_prefixes(tables.cpu().numpy(), case.host.context_lengths)
    assert prefixes is not None, "too little in common"
    shared = SharedTables(*(torch.from_numpy(values).cuda() for values in prefixes.padded(sequences)))
    plan = case.attention.plan_shared(replace(case.tables, shared=shared), sequences)
    reference = case.attention.plan_capture(case.tables, sequences)
    assert plan is not None
    calls = _calls(lambda i: plan.attend(i, case.query, case.out), count)
    references = _calls(lambda i: reference.attend(i, case.query, case.out), count)
    return _result("decode attention, shared", f"{sequences}x{context} by {sharing}", calls, references,
                   lambda: _error(case.out[:1], case.attend_first(0)), float(layer_bytes))  # fmt: skip


def measure_prefill(
    launcher: Launcher, tokens: int, *, blocks: AttentionBlocks | None = None, cache_dtype: torch.dtype = torch.bfloat16
) -> KernelResult:
    """One whole prompt; the reference is torch's own fused attention over contiguous keys and values."""
    case = _PagedCase(launcher, 2, [tokens], [tokens], blocks, False, cache_dtype)
    plan = case.attention.plan(case.host, case.tables)
    calls = _calls(lambda i: plan.attend(i, case.query, case.out), 2)
    calls[0]()
    keys, values = (part.to(torch.bfloat16) for part in case.first_sequence(0))
    query = case.query.transpose(0, 1)[None]
    keys, values = (part.transpose(0, 1)[None] for part in (keys, values))

    def reference(i: int) -> None:
        functional.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)

    last = slice(tokens - 64, tokens)
    error = _error(case.out[last], case.attend_first(0, last))
    operations = 4.0 * HEADS * HEAD_DIM * tokens * (tokens + 1) / 2
    name = "prefill attention, e4m3" if cache_dtype == E4M3 else "prefill attention"
    return KernelResult(name, f"{tokens}", error, seconds_per_call(calls),
                        seconds_per_call(_calls(reference, 2)), 0.0, operations)  # fmt: skip


class _PagedCase:
    """A cache of some layers full of random numbers, its pages dealt to sequences in random order."""

    def __init__(
        self, launcher: Launcher, num_layers: int, contexts: list[int], queries: list[int],
        blocks: AttentionBlocks | None, pdl: bool, cache_dtype: torch.dtype,
    ) -> None:  # fmt: skip
        counts = [-(-context // PAGE_SIZE) for context in contexts]
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        query_starts = np.concatenate(([0], np.cumsum(queries))).astype(np.int32)
        lengths = np.asarray(contexts, np.int32)
        page_ids = torch.randperm(int(starts[-1]), device="cuda").to(torch.int32) + 1
        self.pages = allocate_pages(
            num_layers=num_layers, num_pages=int(starts[-1]) + 1, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM,
            device=torch.device("cuda"), dtype=cache_dtype,
        )  # fmt: skip
        self.scale = _CACHE_SCALE if cache_dtype == E4M3 else 1.0
        for part in (part for layer in self.pages for part in layer.split(_FILLED_PAGES)):
            part.copy_(torch.randn(part.shape, device="cuda").div_(self.scale))
        num_decodes = len(queries) if max(queries) == 1 else 0
        self.host = SequenceTables(query_starts, lengths, starts, page_ids.cpu().numpy(), num_decodes)
        self.tables = DeviceTables(
            query_starts=torch.from_numpy(query_starts).cuda(), context_lengths=torch.from_numpy(lengths).cuda(),
            page_starts=torch.from_numpy(starts).cuda(), page_ids=page_ids,
            last_page_lengths=torch.from_numpy((lengths - 1) % PAGE_SIZE + 1).cuda(),
        )  # fmt: skip
        self.query = _normal(int(query_starts[-1]), HEADS, HEAD_DIM)
        self.out = torch.empty_like(self.query)
        self.attention = TritonAttention(
            self.pages, num_heads=HEADS, layer_windows=[None] * num_layers, launcher=launcher,
            max_decodes=max(1, num_decodes), blocks=blocks, pdl=pdl,
            scales=torch.full((num_layers, SCALE_COLUMNS), self.scale, device="cuda") if cache_dtype == E4M3 else None,
            num_multiprocessors=torch.cuda.get_device_properties(0).multi_processor_count,
        )  # fmt: skip

    def first_sequence(self, layer: int) -> tuple[Tensor, Tensor]:
        """Its keys and values, [context, KV_HEADS, HEAD_DIM] float32."""
        pages = self.pages[layer][self.tables.page_ids[: int(self.host.page_starts[1])].long()].float() * self.scale
        both = pages.transpose(0, 1).flatten(1, 2)[:, : int(self.host.context_lengths[0])]
        return both[0], both[1]

    def attend_first(self, layer: int, rows: slice = slice(0, 1)) -> Tensor:
        """Some rows of the first sequence, whose keys all rows but the last 64 see whole, in float32."""
        keys, values = (
            part.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for part in self.first_sequence(layer)
        )
        query = self.query[rows].float().transpose(0, 1)
        scores = query @ keys.transpose(1, 2) * HEAD_DIM**-0.5
        at = torch.arange(keys.shape[1], device="cuda")
        position = keys.shape[1] - query.shape[1] + torch.arange(query.shape[1], device="cuda")[:, None]
        weights: Tensor = scores.masked_fill(at > position, -torch.inf).softmax(-1)
        return (weights @ values).transpose(0, 1)


def _calls(run: Callable[[int], None], count: int) -> list[Call]:
    return [partial(run, i) for i in range(count)]
