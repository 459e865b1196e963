"""Pages in e4m3: what is written, copied and read, and attention over them beside a float32 restatement."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runtime.attention.pages import SCALE_COLUMNS, allocate_pages, copy_pages, key_rows, read_kv, to_e4m3, write_kv
from runtime.attention.reference import ReferenceAttention
from runtime.layers.quantized import E4M3
from tests.unit.runtime.attention.test_reference_attention import (
    HEAD_DIM,
    NUM_HEADS,
    NUM_KV_HEADS,
    NUM_PAGES,
    WINDOWS,
    Sequenced,
    attend,
    random_sequence,
    written_out,
)

SCALES = torch.tensor([[0.01, 0.02, 0, 0], [0.5, 0.003, 0, 0], [1.0, 0.25, 0, 0]])
EVERY_NUMBER = torch.arange(256, dtype=torch.uint8).view(E4M3)


def allocate() -> Tensor:
    return allocate_pages(
        num_layers=len(WINDOWS), num_pages=NUM_PAGES, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM,
        device=torch.device("cpu"), dtype=E4M3,
    ).fill_(torch.nan)  # fmt: skip


def restated(values: Tensor, scale: float) -> Tensor:
    """The nearest of the 256 numbers of e4m3, found by looking at each of them, times the scale."""
    numbers = EVERY_NUMBER.float()
    numbers = numbers[numbers.isfinite()]
    distance = (values.flatten()[:, None] / scale - numbers).abs()
    return (numbers[distance.argmin(1)] * scale).view(values.shape)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(1e-4, 100))
def test_the_nearest_number_is_stored(values: list[float], scale: float) -> None:
    """As near as any of e4m3's numbers; beyond the largest, the largest."""
    given = torch.tensor(values)
    stored = to_e4m3(given, torch.tensor(scale)).float() * scale
    wanted = restated(given, scale)
    assert torch.allclose((given - stored).abs(), (given - wanted).abs(), rtol=1e-4, atol=1e-7 * scale)


def test_every_number_of_e4m3_is_stored_as_itself() -> None:
    """And what is not finite is NaN."""
    kept = EVERY_NUMBER[~EVERY_NUMBER.float().isnan()]
    assert torch.equal(to_e4m3(kept.float() * 0.5, torch.tensor(0.5)).view(torch.uint8), kept.view(torch.uint8))
    broken = torch.tensor([torch.inf, -torch.inf, torch.nan])
    assert to_e4m3(broken, torch.tensor(1.0)).float().isnan().all()


def test_what_is_written_is_read() -> None:
    """Keys by the first scale, values by the second, into the step's rows and no others."""
    pages = allocate()[0]
    key, value = torch.randn(2, 3, NUM_KV_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(1))
    rows = key_rows(torch.tensor([16, 33, 500]))
    write_kv(pages, key, value, rows, SCALES[0])
    assert torch.equal(read_kv(pages, rows, SCALES[0, 0], torch.float32), restated(key, 0.01))
    assert torch.equal(read_kv(pages, rows + 16, SCALES[0, 1], torch.float32), restated(value, 0.02))
    assert int((~pages.float().isnan()).sum()) == 2 * key.numel()


def test_pages_are_copied_byte_by_byte() -> None:
    """All layers, NaN included, as if all were read before any is written."""
    generator = torch.Generator().manual_seed(2)
    pages = torch.randint(256, (2, 5, 2, 16, 2, 8), dtype=torch.uint8, generator=generator).view(E4M3)
    before = pages.clone().view(torch.uint8)
    copy_pages(pages, torch.tensor([[1, 2], [2, 3]]))
    assert torch.equal(pages.view(torch.uint8)[:, [2, 3]], before[:, [1, 2]])
    assert torch.equal(pages.view(torch.uint8)[:, [0, 1, 4]], before[:, [0, 1, 4]])


def test_attention_is_that_over_the_rounded_numbers() -> None:
    """Prefill, then decodes: the same as float64 attention over keys and values that were rounded beforehand."""
    sequence = random_sequence(60, [7, 3, 20, 4], seed=1)
    backend = ReferenceAttention(allocate(), num_heads=NUM_HEADS, layer_windows=WINDOWS, scales=SCALES)
    parts = [attend(backend, [(sequence, start, end)]) for start, end in ((0, 50), (50, 51), (51, 60))]
    assert SCALES.shape[1] == SCALE_COLUMNS
    for layer, window in enumerate(WINDOWS):
        key, value = (restated(part, float(SCALES[layer, i])) for i, part in enumerate((sequence.key, sequence.value)))
        wanted = written_out(Sequenced(sequence.query, key, value, sequence.pages), window)
        given = torch.cat([part[layer][0] for part in parts])
        assert torch.allclose(given.double(), wanted, atol=2e-5)
