"""The page pool conserves pages."""

import numpy as np
import pytest

from runtime.kv.pool import PagePool


def pages(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_padding_page_is_never_handed_out() -> None:
    """A pool of 8 pages gives 7, and page 0 is not among them."""
    pool = PagePool(8)
    assert sorted(pool.allocate(7).tolist()) == [1, 2, 3, 4, 5, 6, 7]
    assert pool.num_free == 0
    pool.check_integrity()


def test_page_is_free_when_the_last_reader_lets_go() -> None:
    """References are counted one by one."""
    pool = PagePool(4)
    page = pool.allocate(1)
    pool.retain(page)
    pool.release(page)
    assert pool.num_free == 2
    pool.release(page)
    assert pool.num_free == 3
    pool.check_integrity()


def test_releasing_a_free_page_is_a_bug() -> None:
    """A page that was given back twice would belong to two sequences."""
    pool = PagePool(4)
    page = pool.allocate(1)
    pool.release(page)
    with pytest.raises(AssertionError, match="more often"):
        pool.release(page)
    with pytest.raises(AssertionError, match="free page"):
        pool.retain(page)


def test_asking_for_more_than_is_free_is_a_bug() -> None:
    """The caller has to look before."""
    with pytest.raises(AssertionError, match="asked of"):
        PagePool(4).allocate(4)


def test_allocated_pages_are_the_callers_own_array() -> None:
    """Later allocations do not change what was handed out before."""
    pool = PagePool(8)
    first = pool.allocate(3)
    kept = first.copy()
    pool.release(pages(first[0], first[2]))
    pool.allocate(2)
    assert (first == kept).all()


def test_integrity_check_sees_a_lost_page() -> None:
    """The check can fail."""
    pool = PagePool(4)
    pool.references[pool.allocate(1)] = 0
    with pytest.raises(AssertionError, match="disagree"):
        pool.check_integrity()


def test_pool_needs_a_page_beside_the_padding() -> None:
    """One page alone could hold nothing."""
    with pytest.raises(ValueError, match="one more"):
        PagePool(1)
