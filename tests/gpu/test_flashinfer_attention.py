"""FlashInfer's kernels against attention in plain torch, float32, over the same pages.

Pages are NaN wherever no context reaches, and the device's tables hold nonsense beyond the step: whoever reads either
shows. The measure is the worst row's ‖out − ref‖ / ‖ref‖; results rounded to bf16 alone have about 0.0017, to f16 a
eighth of it, and the kernels round their weights as well.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.beside import SideStream
from runtime.attention.combined import CombinedAttention
from runtime.attention.device import SequenceTables
from runtime.attention.flashinfer import contexts
from runtime.attention.flashinfer.attention import FlashInferAttention, build_flashinfer_attention
from runtime.attention.flashinfer.libraries import DecodeAlgorithm, PrefillAlgorithm
from runtime.attention.flashinfer.work import padding_sequences
from runtime.attention.triton import TritonAttention
from runtime.errors import KernelMissing
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.libraries import FolderLibraries
from tests.support.attention_steps import (
    AttentionStep,
    Heads,
    device_tables,
    expected_results,
    random_step,
    rows_of,
    send_tables,
    some_sequences,
    worst_row_error,
)

TOLERANCE = {torch.bfloat16: 8e-3, torch.float16: 1e-3}
HEADS = [
    Heads(),
    Heads(dtype=torch.float16),
    Heads(num_heads=28, num_kv_heads=4),
    Heads(num_heads=8, num_kv_heads=8),
    Heads(head_dim=64),
    Heads(num_heads=16, num_kv_heads=8, head_dim=256),
]
PREFILLS = [[(1, 1), (2, 2)], [(15, 15), (16, 16), (17, 17)], [(129, 129), (7, 7)], [(1000, 1000), (333, 333)]]
CHUNKS = [[(40, 24), (33, 2)], [(700, 129), (1025, 511), (64, 64)]]
DECODES = [[(1, 1)], [(16, 1), (17, 1), (15, 1), (1, 1)], [(n, 1) for n in (3000, 2, 500, 1024, 33, 1)]]
MIXED = [[(90, 1), (1, 1), (17, 1), (300, 200), (50, 3)], [(2049, 1), (130, 129)]]


def gather_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay."""
    monkeypatch.setattr(contexts, "_ROWS_FOR_COPY", 0)
    monkeypatch.setattr(contexts, "_PAIRS_FOR_LAUNCH", -1)


def heads_id(heads: Heads) -> str:
    return f"{heads.num_heads}x{heads.num_kv_heads}x{heads.head_dim}-{str(heads.dtype)[6:]}"


def build(
    step: AttentionStep,
    libraries: FolderLibraries,
    layer_windows: Sequence[int | None],
    *,
    decode: DecodeAlgorithm | None = "fa2",
    prefill: PrefillAlgorithm = "fa3",
    max_sequences: int = 64,
) -> FlashInferAttention:
    try:
        return build_flashinfer_attention(
            step.pages,
            libraries,
            JitLauncher(),
            num_heads=step.heads.num_heads,
            query_dtype=step.heads.dtype,
            layer_windows=layer_windows,
            max_sequences=max_sequences,
            max_context_length=4096,
            decode=decode,
            prefill=prefill,
        )
    except KernelMissing as error:
        pytest.skip(str(error))


def verify_step(step: AttentionStep, attention: FlashInferAttention, layer_windows: Sequence[int | None]) -> None:
    """All layers agree with the reference, and padding rows are left alone."""
    plan = attention.plan(step.host, step.device)
    for layer, expected in enumerate(expected_results(step, layer_windows)):
        out = torch.full_like(step.query, 7.0)
        plan.attend(layer, step.query, out)
        assert worst_row_error(out[: step.num_tokens], expected) < TOLERANCE[step.heads.dtype]
        assert bool((out[step.num_tokens :] == 7.0).all())


@pytest.mark.parametrize("heads", HEADS, ids=heads_id)
@pytest.mark.parametrize("prefill", ["fa3 gathered", "fa3", "fa2"])
def test_prompts_and_chunks(
    heads: Heads, prefill: str, device: torch.device, libraries: FolderLibraries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole prompts of odd sizes, and chunks behind a part that is cached already; from pages, and from runs gathered from them."""
    if prefill == "fa3 gathered":
        gather_always(monkeypatch)
    algorithm: PrefillAlgorithm = "fa2" if prefill == "fa2" else "fa3"
    for seed, lengths in enumerate(PREFILLS + CHUNKS):
        step = random_step(lengths, heads, num_layers=2, device=device, seed=seed, num_padding=5)
        verify_step(step, build(step, libraries, (None, None), prefill=algorithm), (None, None))


@pytest.mark.parametrize("heads", HEADS, ids=heads_id)
@pytest.mark.parametrize("decode", ["fa2", "xqa"])
def test_decodes(heads: Heads, decode: DecodeAlgorithm, device: torch.device, libraries: FolderLibraries) -> None:
    """Decodes from one token of context to thousands."""
    for seed, lengths in enumerate(DECODES):
        step = random_step(lengths, heads, num_layers=2, device=device, seed=seed)
        verify_step(step, build(step, libraries, (None, None), decode=decode), (None, None))


@pytest.mark.parametrize("decode", ["fa2", "xqa"])
@pytest.mark.parametrize("prefill", ["fa3", "fa2"])
def test_decodes_and_chunks_mixed(
    decode: DecodeAlgorithm, prefill: PrefillAlgorithm, device: torch.device, libraries: FolderLibraries
) -> None:
    """A step of both kinds."""
    for seed, lengths in enumerate(MIXED):
        step = random_step(lengths, Heads(), num_layers=1, device=device, seed=seed, num_padding=3)
        verify_step(step, build(step, libraries, (None,), decode=decode, prefill=prefill), (None,))


@pytest.mark.parametrize("decode", ["fa2", "xqa"])
@pytest.mark.parametrize("prefill", ["fa3", "fa2"])
def test_windows_differ_by_layer(
    decode: DecodeAlgorithm,
    prefill: PrefillAlgorithm,
    device: torch.device,
    libraries: FolderLibraries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers with windows smaller and larger than a page, beside layers without."""
    windows = (None, 5, 40, 5)
    for seed, lengths in enumerate([*MIXED, *DECODES, *CHUNKS]):
        step = random_step(lengths, Heads(), num_layers=len(windows), device=device, seed=seed)
        verify_step(step, build(step, libraries, windows, decode=decode, prefill=prefill), windows)
    gather_always(monkeypatch)
    for seed, lengths in enumerate([*MIXED, *CHUNKS]):
        step = random_step(lengths, Heads(), num_layers=len(windows), device=device, seed=seed)
        verify_step(step, build(step, libraries, windows, decode=decode, prefill=prefill), windows)


class CapturedLayers:
    """A graph of decodes through all layers, over tables and rows at fixed addresses."""

    def __init__(
        self, attention: FlashInferAttention, heads: Heads, num_layers: int, size: int, max_pages: int
    ) -> None:
        device = torch.device("cuda")
        self.size = size
        self.tables = device_tables(size, max_pages, device)
        send_tables(padding_sequences(size), self.tables)
        self.query = torch.zeros(size, heads.num_heads, heads.head_dim, dtype=heads.dtype, device=device)
        self.out = torch.zeros(num_layers, *self.query.shape, dtype=heads.dtype, device=device)
        self._attention = attention
        self._plan = attention.plan_capture(self.tables, size)
        self._run()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._run()

    def _run(self) -> None:
        for layer, out in enumerate(self.out):
            self._plan.attend(layer, self.query, out)

    def replay(self, host: SequenceTables, query: Tensor) -> None:
        self.query[: len(query)] = query
        self.out.fill_(torch.nan)
        send_tables(host, self.tables)
        self._attention.refresh(self._plan, host)
        self._graph.replay()


@pytest.mark.parametrize("decode", ["fa2", "xqa"])
def test_graphs_are_replayed_over_other_steps(
    decode: DecodeAlgorithm, device: torch.device, libraries: FolderLibraries
) -> None:
    """Graphs of several sizes, captured over padding, serve any lengths; rows left over attend to page 0."""
    lengths = [(int(n), 1) for n in np.random.default_rng(5).integers(1, 4000, 33)]
    step = random_step(lengths, Heads(), num_layers=2, device=device, seed=1)
    attention = build(step, libraries, (None, None), decode=decode)
    max_pages = len(step.host.page_ids) + 64
    graphs = {size: CapturedLayers(attention, step.heads, 2, size, max_pages) for size in (64, 8, 1)}
    expected = expected_results(step, (None, None))
    for first, count, size in ((0, 33, 64), (5, 1, 1), (3, 7, 8), (30, 3, 8), (10, 20, 64), (32, 1, 1)):
        chosen = range(first, first + count)
        graph = graphs[size]
        graph.replay(some_sequences(step.host, chosen, num_padding=size - count), step.query[first : first + count])
        for out, right in zip(graph.out, expected, strict=True):
            assert worst_row_error(out[:count], right[first : first + count]) < TOLERANCE[torch.bfloat16]
            assert bool(torch.isfinite(out).all())


def test_plans_made_ahead_do_not_overwrite_each_other(device: torch.device, libraries: FolderLibraries) -> None:
    """Steps planned and launched while the device is held up have the results of steps run one by one."""
    lengths = [(7, 1), (200, 3), (900, 1), (300, 130), (55, 1), (1500, 700)]
    whole = random_step(lengths, Heads(), num_layers=1, device=device, seed=3)
    attention = build(whole, libraries, (None,))
    (expected,) = expected_results(whole, (None,))
    steps = []
    for chosen in ((0, 1), (2, 3), (4, 5)):
        host = some_sequences(whole.host, chosen)
        tables = device_tables(2, 200, device)
        send_tables(host, tables)
        rows = rows_of(whole.host, chosen)
        query = whole.query[rows.to(device)]
        steps.append((host, tables, rows, query, torch.full_like(query, torch.nan)))
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    for host, tables, _, query, out in steps:
        attention.plan(host, tables).attend(0, query, out)
    launched = torch.cuda.Event()
    launched.record()
    assert not launched.query(), "the host waited for the device"
    for _, _, rows, _, out in steps:
        assert worst_row_error(out, expected[rows]) < TOLERANCE[torch.bfloat16]


def test_chunks_beside_decodes_wait_for_their_queries_and_are_waited_for(
    device: torch.device, libraries: FolderLibraries
) -> None:
    """Queries come late on the current stream, and are overwritten by what follows the attention of each layer."""
    lengths = [(900, 1), (33, 1), (2049, 1), (700, 300), (1500, 129)]
    step = random_step(lengths, Heads(), num_layers=3, device=device, seed=11)
    chunks = build(step, libraries, (None,) * 3, decode=None)
    decodes = TritonAttention(
        step.pages,
        num_heads=step.heads.num_heads,
        layer_windows=(None,) * 3,
        launcher=JitLauncher(),
        max_decodes=8,
        num_multiprocessors=132,
        pdl=True,
    )
    attention = CombinedAttention(decodes, chunks, SideStream(device))
    plan = attention.plan(step.host, step.device)
    plan.attend(0, step.query, torch.empty_like(step.query))  # Compiles, and plans what is planned late.
    query, out = torch.full_like(step.query, torch.nan), torch.empty_like(step.query)
    found = []
    for layer in range(3):
        torch.cuda._sleep(20_000_000)
        query.copy_(step.query)
        out.fill_(torch.nan)
        plan.attend(layer, query, out)
        found.append(out.clone())
        query.fill_(torch.nan)
    for result, expected in zip(found, expected_results(step, (None,) * 3), strict=True):
        assert worst_row_error(result, expected) < TOLERANCE[torch.bfloat16]
