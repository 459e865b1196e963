"""The sum by which the GPU's memory is divided."""

from dataclasses import replace
from typing import Any

import pytest

from runtime.errors import EngineMisconfigured
from runtime.runner.memory import MemoryNeed, divide_memory, verify_weights_fit

GIB = 1 << 30
NEED = MemoryNeed(total_bytes=80 * GIB, foreign_bytes=GIB, weights_bytes=16 * GIB, step_bytes=4 * GIB)
PAGE = 2 << 20


def divide(**given: Any) -> Any:
    settings: dict[str, Any] = {
        "page_bytes": PAGE,
        "mem_fraction_static": 0.0,
        "max_total_tokens": 0,
        "min_tokens": 8192,
    }
    return divide_memory(given.pop("need", NEED), **settings | given)


def test_the_cache_takes_what_is_left() -> None:
    """All parts together are the card, but for less than a page and the headroom."""
    table = divide()
    assert table.kv_bytes == table.num_pages * PAGE
    assert 0.02 * 80 * GIB - 1 <= table.left_bytes < 0.02 * 80 * GIB + PAGE
    assert len(table.lines()) == 6
    assert sum(table.parts.values()) == 80 * GIB


def test_a_fraction_bounds_weights_and_cache_together() -> None:
    """As users of mem_fraction_static know it."""
    table = divide(mem_fraction_static=0.5)
    assert 40 * GIB - PAGE < table.kv_bytes + NEED.weights_bytes <= 40 * GIB


def test_a_fraction_that_leaves_steps_no_room_is_refused() -> None:
    """It is not lowered silently."""
    with pytest.raises(EngineMisconfigured, match=r"mem_fraction_static: 0.95 gives the KV cache 60.00 GiB"):
        divide(mem_fraction_static=0.95)


def test_a_bound_on_tokens_bounds_the_cache() -> None:
    """Whole pages, and the padding page."""
    assert divide(max_total_tokens=10_000).num_pages == 626


@pytest.mark.parametrize("weights", [60, 70, 90])
def test_too_little_memory_says_what_is_needed(weights: int) -> None:
    """The sum is in the message."""
    with pytest.raises(EngineMisconfigured, match=f"weights take {weights}"):
        divide(need=replace(NEED, weights_bytes=weights * GIB), min_tokens=131_072)


def test_weights_larger_than_the_card() -> None:
    """Before anything is loaded."""
    verify_weights_fit(GIB, GIB)
    with pytest.raises(
        EngineMisconfigured, match=r"need 140.00 GiB and the GPU has 79.00 GiB free: 61.00 GiB are missing"
    ):
        verify_weights_fit(140 * GIB, 79 * GIB)
