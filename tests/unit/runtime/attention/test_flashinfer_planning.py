"""FlashInfer's backend on a CPU, over functions acted out in torch: which kernel gets what, and when memory is reused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.flashinfer import contexts
from runtime.attention.flashinfer.attention import FlashInferAttention
from runtime.attention.flashinfer.block_tables import fill_block_tables
from runtime.attention.flashinfer.libraries import CacheShape, DecodeAlgorithm, PrefillAlgorithm, needed_libraries
from runtime.attention.flashinfer.work import padding_sequences
from runtime.attention.flashinfer.workspace import NUM_STAGING_BUFFERS, partial_results_bytes, plan_bytes
from runtime.errors import EngineMisconfigured, KernelMissing
from runtime.kernels.contexts import GAP_PAGES
from tests.support.attention_steps import (
    AttentionStep,
    Heads,
    device_tables,
    expected_results,
    host_tables,
    in_e4m3,
    random_step,
    rows_of,
    send_tables,
    some_sequences,
    worst_row_error,
)
from tests.support.fake_flashinfer import FakeDevice, FakeLauncher, FakeLibraries

CPU = torch.device("cpu")
HEADS = Heads(num_heads=4, num_kv_heads=2, head_dim=64, dtype=torch.float16)
WINDOWS = (None, 5, 40)
TOLERANCE = 2e-3
MIXED = [(90, 1), (1, 1), (17, 1), (100, 70), (50, 3)]


def build(
    step: AttentionStep,
    fake: FakeDevice,
    libraries: FakeLibraries,
    decode: DecodeAlgorithm | None = "fa2",
    prefill: PrefillAlgorithm = "fa3",
    windows: Sequence[int | None] = WINDOWS,
    scales: Tensor | None = None,
) -> FlashInferAttention:
    return FlashInferAttention(
        step.pages, libraries, FakeLauncher(fake), num_heads=HEADS.num_heads, query_dtype=step.heads.dtype, layer_windows=windows,
        max_sequences=16, max_context_length=500, num_multiprocessors=132, new_event=fake.new_event,
        decode=decode, prefill=prefill, scales=scales,
    )  # fmt: skip


def gather_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_ROWS_FOR_COPY", 0)
    monkeypatch.setattr(contexts, "_ROWS_FOR_E4M3", 0)
    monkeypatch.setattr(contexts, "_PAIRS_FOR_LAUNCH", -1)


@pytest.mark.parametrize("decode", ["fa2", "xqa"])
@pytest.mark.parametrize("prefill", ["fa3 gathered", "fa3", "fa2"])
@pytest.mark.parametrize("lengths", [MIXED, MIXED[:3], MIXED[3:]], ids=["mixed", "decodes", "chunks"])
def test_each_sequence_gets_its_attention(
    decode: DecodeAlgorithm, prefill: str, lengths: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kernel has which rows, all layers agree with the reference and padding rows stay as they were."""
    if prefill == "fa3 gathered":
        gather_always(monkeypatch)
    step = random_step(lengths, HEADS, num_layers=3, device=CPU, seed=1, num_padding=4)
    fake = FakeDevice()
    plan = build(step, fake, FakeLibraries(fake), decode, "fa2" if prefill == "fa2" else "fa3").plan(
        step.host, step.device
    )
    for layer, expected in enumerate(expected_results(step, WINDOWS)):
        out = torch.full_like(step.query, 7.0)
        plan.attend(layer, step.query, out)
        fake.drain()
        assert worst_row_error(out[: step.num_tokens], expected) < TOLERANCE
        assert bool((out[step.num_tokens :] == 7.0).all())


def test_contexts_are_gathered_where_that_pays_and_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same results either way: by a plan over pages, or over the runs that the chunks' contexts were copied to."""
    step = random_step(MIXED, HEADS, num_layers=1, device=CPU, seed=6)
    paged, gathered = [9, 16], [0, 16 * (7 + GAP_PAGES)]
    room = 7 + 4 + 2 * GAP_PAGES  # pages of the two chunks, whose contexts are 100 and 50 tokens long
    gather_always(monkeypatch)
    for pairs, largest, starts in ((0, room, gathered), (0, room - 1, paged), (1 << 20, room, paged)):
        monkeypatch.setattr(contexts, "LARGEST_PAGES", largest)
        monkeypatch.setattr(contexts, "_PAIRS_FOR_LAUNCH", pairs)
        fake = FakeDevice()
        libraries = FakeLibraries(fake)
        plan = build(step, fake, libraries, windows=(None,)).plan(step.host, step.device)
        out = torch.zeros_like(step.query)
        plan.attend(0, step.query, out)
        assert libraries.planned_starts[-1][:2] == starts
        fake.drain()
        assert worst_row_error(out, expected_results(step, (None,))[0]) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_chunks_over_e4m3_are_gathered_times_their_scales(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the libraries for queries of 16 bits, whatever the window; decodes are left to who reads e4m3."""
    gather_always(monkeypatch)
    heads = replace(HEADS, dtype=dtype)
    scales = torch.tensor([[0.02, 0.03, 0.0, 0.0], [0.5, 0.011, 0.0, 0.0], [0.3, 0.3, 0.0, 0.0]])
    step, meant = in_e4m3(random_step(MIXED, heads, num_layers=3, device=CPU, seed=1, num_padding=4), scales)
    fake = FakeDevice()
    libraries = FakeLibraries(fake)
    attention = build(step, fake, libraries, decode=None, scales=scales)
    name = {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    assert set(libraries.names) == {f"fa3_{name}_{name}_d64", f"fa3_{name}_{name}_d64_window"}
    assert attention.takes_chunks(step.host)
    plan = attention.plan_chunks(step.host, step.device)
    for layer, expected in enumerate(expected_results(meant, WINDOWS)):
        out = torch.full_like(step.query, 7.0)
        plan.attend(layer, step.query, out)
        fake.drain()
        assert worst_row_error(out[3 : step.num_tokens], expected[3:]) < 8 * TOLERANCE
        assert bool((out[:3] == 7.0).all())


def test_chunks_over_e4m3_are_not_taken_where_gathering_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or where there is no room for them; pages of the queries' own type are read as they are."""
    scales = torch.ones(1, 4)
    plain = random_step(MIXED, HEADS, num_layers=1, device=CPU, seed=1)
    step, _ = in_e4m3(plain, scales)
    fake = FakeDevice()
    libraries = FakeLibraries(fake)
    attention = build(step, fake, libraries, decode=None, windows=(None,), scales=scales)
    short = host_tables([(2048, 64)] * 8, np.arange(1024))
    assert not attention.takes_chunks(short)
    assert build(plain, fake, libraries, decode=None, windows=(None,)).takes_chunks(short)
    assert attention.takes_chunks(host_tables([(2048, 128)] * 8, np.arange(1024)))
    assert attention.takes_chunks(host_tables([(16_000, 16)], np.arange(1000)))
    assert attention.takes_chunks(host_tables([(16_000, 16), (2048, 16), (2048, 16)], np.arange(1256)))
    assert attention.takes_chunks(host_tables([(60_000, 512)] * 4, np.arange(15_000)))
    assert not attention.takes_chunks(host_tables([(60_000, 512)] * 5, np.arange(18_750)))
    windowed = build(step, fake, libraries, decode=None, windows=(1024,), scales=scales)
    assert not windowed.takes_chunks(host_tables([(60_000, 512)], np.arange(3750)))
    assert windowed.takes_chunks(host_tables([(8192, 4096)], np.arange(512)))


def test_contexts_over_e4m3_that_do_not_fit_at_once_are_gathered_one_group_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each with a plan of its own, in every layer; and one context always has room, however long it may be."""
    gather_always(monkeypatch)
    monkeypatch.setattr(contexts, "LARGEST_PAGES", 16 + GAP_PAGES)
    scales = torch.tensor([[0.02, 0.03, 0.0, 0.0], [0.5, 0.011, 0.0, 0.0], [0.3, 0.3, 0.0, 0.0]])
    lengths = [(90, 1), (100, 70), (50, 3), (490, 30), (20, 20), (16, 2)]
    step, meant = in_e4m3(random_step(lengths, HEADS, num_layers=3, device=CPU, seed=1), scales)
    fake = FakeDevice()
    libraries = FakeLibraries(fake)
    plan = build(step, fake, libraries, decode=None, scales=scales).plan_chunks(step.host, step.device)
    for layer, expected in enumerate(expected_results(meant, WINDOWS)):
        out = torch.full_like(step.query, 7.0)
        plan.attend(layer, step.query, out)
        assert len(libraries.planned_starts) == 3 * (layer + 1)
        fake.drain()
        assert worst_row_error(out[1:], expected[1:]) < 8 * TOLERANCE
        assert bool((out[:1] == 7.0).all())
    assert [len(starts) - 1 for starts in libraries.planned_starts[:3]] == [2, 1, 2]


def test_a_step_is_planned_when_its_first_layer_attends() -> None:
    """The device has that layer's products to compute by then; each window is planned once, those of a graph before its capture."""
    step = random_step(MIXED[3:], HEADS, num_layers=3, device=CPU, seed=8)
    fake = FakeDevice()
    libraries = FakeLibraries(fake)
    attention = build(step, fake, libraries, windows=(None, 40, None))
    plan = attention.plan(step.host, step.device)
    counts = [len(libraries.planned_starts)]
    for layer in range(3):
        plan.attend(layer, step.query, torch.zeros_like(step.query))
        counts.append(len(libraries.planned_starts))
    assert counts == [0, 1, 2, 2]
    fake.drain()
    attention.plan_capture(step.device, 2)
    assert len(libraries.planned_starts) == 4


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ([(8192, 8192)], True),
        ([(8192, 2048)], True),
        ([(1024, 1024)], False),
        ([(1024, 1024)] * 8, True),
        ([(4096, 128)] * 8, False),
    ],
)
def test_few_rows_do_not_win_back_the_copy_of_their_context(lengths: list[tuple[int, int]], wanted: bool) -> None:
    """What was measured: long prompts and large parts of them, but neither one of 1,024 tokens nor short ends of long ones."""
    num_pages = sum(-(-context // 16) for context, _ in lengths)
    room = contexts.GatheredContexts(
        torch.empty(1, 1, 2, 16, 1, 64), FakeLauncher(FakeDevice()), dtype=torch.float32, layer_windows=(None,),
        max_sequences=16, max_context_length=500,
    )  # fmt: skip
    assert bool(room.spans(host_tables(lengths, np.arange(num_pages)), 0)) == wanted


def test_steps_in_flight_keep_their_plans() -> None:
    """Many steps launched before the device runs any: each runs with its own plan, and staging waits for the oldest."""
    whole = random_step([*MIXED, (33, 1), (60, 20)], HEADS, num_layers=1, device=CPU, seed=2)
    fake = FakeDevice()
    attention = build(whole, fake, FakeLibraries(fake), windows=(None,))
    (expected,) = expected_results(whole, (None,))
    launched = []
    for chosen in ([0, 3], [5, 6], [1, 2, 4], [2, 3], [0, 1, 6], [5, 4]) * 2:
        host, tables, query = sub_step(whole, chosen)
        out = torch.full_like(query, torch.nan)
        attention.plan(host, tables).attend(0, query, out)
        launched.append((out, expected[rows_of(whole.host, chosen)]))
    waiting = [out for out, _ in launched if bool(out.isnan().any())]
    assert len(waiting) >= NUM_STAGING_BUFFERS, "the host waits for nothing but the copy from the buffer that it takes"
    fake.drain()
    assert max(worst_row_error(out, right) for out, right in launched) < TOLERANCE


@pytest.mark.parametrize("decode", ["fa2", "xqa"])
def test_a_captured_plan_serves_other_lengths(decode: DecodeAlgorithm) -> None:
    """Planned over padding, refreshed for a step of fewer sequences, and attending as a graph does."""
    step = random_step([(n, 1) for n in (40, 3, 17, 99)], HEADS, num_layers=3, device=CPU, seed=3)
    fake = FakeDevice()
    attention = build(step, fake, FakeLibraries(fake), decode)
    tables = device_tables(6, 200, CPU)
    send_tables(padding_sequences(6), tables)
    plan = attention.plan_capture(tables, 6)
    query = torch.cat((step.query, torch.zeros_like(step.query[:2])))
    host = some_sequences(step.host, range(4), num_padding=2)
    send_tables(host, tables)
    attention.refresh(plan, host)
    for layer, expected in enumerate(expected_results(step, WINDOWS)):
        out = torch.zeros_like(query)
        plan.attend(layer, query, out)
        fake.drain()
        assert worst_row_error(out[:4], expected) < TOLERANCE


def test_a_captured_plan_whose_layout_changes_is_an_error() -> None:
    """The graph holds the old layout, so its kernels would read the new plan in the wrong places."""
    step = random_step([(40, 1)], HEADS, num_layers=1, device=CPU, seed=4)
    fake = FakeDevice()
    libraries = FakeLibraries(fake)
    attention = build(step, fake, libraries, windows=(None,))
    plan = attention.plan_capture(step.device, 1)
    libraries.descriptions = [[1, 2, 1, 0, -2]]
    with pytest.raises(RuntimeError, match="changed its layout"):
        attention.refresh(plan, step.host)


def test_block_tables_are_filled_from_compressed_rows() -> None:
    """Rows hold a sequence's pages and page 0 beyond; nonsense behind the tables is not copied."""
    tables = device_tables(4, 9, CPU)
    host = SequenceTables(
        query_starts=np.arange(3, dtype=np.int32), context_lengths=np.array([20, 40], np.int32),
        page_starts=np.array([0, 2, 5], np.int32), page_ids=np.array([7, 3, 9, 1, 4], np.int32), num_decodes=2,
    )  # fmt: skip
    send_tables(host, tables)
    rows = torch.full((2, 4), -1, dtype=torch.int32)
    fill_block_tables(rows, tables)
    assert rows.tolist() == [[7, 3, 0, 0], [9, 1, 4, 0]]


def test_needed_libraries_follow_from_the_configuration() -> None:
    """One for each algorithm, with and without windows as the layers have them, by a stable name."""
    shape = CacheShape(32, 8, 128, torch.bfloat16, torch.bfloat16, (None, 4096, None))
    assert [str(name) for name in needed_libraries(shape, decode="xqa")] == [
        "fa3_bf16_bf16_d128", "fa3_bf16_bf16_d128_window", "xqa_bf16_bf16_d128_g4", "xqa_bf16_bf16_d128_g4_window",
    ]  # fmt: skip
    plain = CacheShape(32, 8, 64, torch.float16, torch.float16, (None,))
    assert [str(name) for name in needed_libraries(plain)] == ["fa2_f16_f16_d64", "fa3_f16_f16_d64"]


@pytest.mark.parametrize(
    ("head_dim", "query_dtype", "cache_dtype"),
    [
        (96, torch.float16, torch.float16),
        (64, torch.float32, torch.float32),
        (64, torch.float16, torch.bfloat16),
        (64, torch.float16, torch.float8_e4m3fn),
    ],
)
def test_what_flashinfer_does_not_serve_is_refused(
    head_dim: int, query_dtype: torch.dtype, cache_dtype: torch.dtype
) -> None:
    """Head sizes, types of queries, and caches of another type."""
    with pytest.raises(EngineMisconfigured, match="attention"):
        needed_libraries(CacheShape(8, 8, head_dim, query_dtype, cache_dtype, (None,)))


def test_a_missing_library_ends_the_start() -> None:
    """KernelMissing leaves the constructor, not the first step."""
    step = random_step([(40, 1)], HEADS, num_layers=1, device=CPU, seed=4)
    fake = FakeDevice()
    with pytest.raises(KernelMissing):
        build(step, fake, FakeLibraries(fake, missing="fa3_f16_f16_d64_window"))


def test_memory_for_partial_results_holds_what_flashinfer_asks_for() -> None:
    """512 captured decodes of Llama 3.1 8B on 132 multiprocessors: 639 tiles of 16 rows, for each head float32."""
    asked = 32 * 639 * 16 * 128 * 4 + 32 * 639 * 16 * 4
    given = partial_results_bytes(
        num_heads=32, num_kv_heads=8, head_dim=128, max_sequences=512, num_multiprocessors=132
    )
    assert asked <= given <= asked + 1024


def test_memory_for_plans_holds_the_largest_list_of_tiles() -> None:
    """FA3's seven arrays over 4096 tiles of each of 64 heads."""
    assert plan_bytes(64) >= 7 * 4 * 4096 * 64


def sub_step(whole: AttentionStep, chosen: Sequence[int]) -> tuple[SequenceTables, DeviceTables, Tensor]:
    """Some sequences of a step as a step of their own, over the same cache."""
    host = some_sequences(whole.host, chosen)
    tables = device_tables(len(chosen), 50, CPU)
    send_tables(host, tables)
    return host, tables, whole.query[rows_of(whole.host, chosen)]
