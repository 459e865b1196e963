"""The KV cache: what is shared, what is evicted first, and what never gets into the tree."""

import numpy as np
import pytest

from runtime.identifiers import PAGE_SIZE
from runtime.kv.cache import KVCache
from runtime.kv.prefixes import PrefixNode
from tests.support.controls import control


class Reader:
    """A sequence as the cache sees it."""

    def __init__(self, cache: KVCache, tokens: list[int], namespace: bytes = b"", *, shares: bool = True) -> None:
        self.cache = cache
        self.tokens = np.array(tokens, np.int32)
        self.num_full = len(tokens) // PAGE_SIZE
        self.cursor: PrefixNode = cache.root(namespace)
        nodes = cache.find(self.cursor, self.tokens, self.num_full) if shares else []
        self.num_shared = len(nodes)
        shared = cache.share(nodes)
        if nodes:
            self.cursor = nodes[-1]
        self.pages = np.concatenate([shared, cache.allocate(-(-len(tokens) // PAGE_SIZE) - len(nodes))])

    def publish(self) -> bool:
        self.cursor, is_complete = self.cache.publish(self.cursor, self.tokens, self.pages, self.num_full)
        return is_complete

    def end(self, num_pages: int | None = None) -> None:
        self.cache.release(self.cursor, self.tokens, self.pages, self.num_full if num_pages is None else num_pages)


def text(*starts: int) -> list[int]:
    """Whole pages, each told apart by its first token."""
    return [token for start in starts for token in [start, *range(PAGE_SIZE - 1)]]


def run(cache: KVCache, tokens: list[int], namespace: bytes = b"") -> Reader:
    reader = Reader(cache, tokens, namespace)
    reader.end()
    cache.check_integrity([])
    return reader


def num_cached(cache: KVCache, tokens: list[int], namespace: bytes = b"") -> int:
    return len(cache.find(cache.root(namespace), np.array(tokens, np.int32), len(tokens) // PAGE_SIZE))


def test_ended_sequence_leaves_its_full_pages_to_others() -> None:
    """The next one with the same beginning reads the same pages; a partly filled page is not kept."""
    cache = KVCache(16)
    first = run(cache, [*text(1, 2), 9])
    second = Reader(cache, text(1, 2, 3))
    assert second.pages[:2].tolist() == first.pages[:2].tolist()
    assert cache.num_evictable == 0
    cache.check_integrity([second.pages])
    assert cache.num_free == 15 - 3


def test_pages_are_shared_while_they_are_being_computed() -> None:
    """A prefix is found as soon as it is published, before its owner has ended."""
    cache = KVCache(16)
    first = Reader(cache, text(1, 2))
    assert num_cached(cache, text(1, 2)) == 0
    assert first.publish()
    second = Reader(cache, text(1, 2))
    assert second.num_shared == 2
    cache.check_integrity([first.pages, second.pages])
    first.end()
    cache.check_integrity([second.pages])
    assert cache.num_evictable == 0
    second.end()
    assert cache.num_evictable == 2


def test_same_tokens_behind_another_beginning_are_another_prefix() -> None:
    """A page stands for its whole path: equal tokens after different ones are not shared."""
    cache = KVCache(16)
    run(cache, text(1, 5))
    assert num_cached(cache, text(2, 5)) == 0
    assert num_cached(cache, text(1, 5)) == 2


@control("3.13.4", "SC-4")
def test_namespaces_share_nothing() -> None:
    """One tenant's prefixes are not found by another, whatever the tokens."""
    cache = KVCache(16)
    run(cache, text(1, 2), b"one")
    assert num_cached(cache, text(1, 2), b"two") == 0
    assert num_cached(cache, text(1, 2), b"one") == 2


def test_namespace_without_pages_and_readers_is_forgotten() -> None:
    """Tenants that come and go leave nothing behind."""
    cache = KVCache(3)
    run(cache, text(1, 2), b"one")
    run(cache, text(1, 2), b"two")
    assert [root.namespace for root in cache._tree.roots()] == [b"two"]
    assert list(cache._tree._roots) == [b"two"]


def test_duplicate_is_not_kept_twice() -> None:
    """Two sequences computed the same page: the tree keeps the first, the other is free again."""
    cache = KVCache(16)
    first = Reader(cache, text(1, 2), shares=False)
    second = Reader(cache, text(1, 2, 3), shares=False)
    assert first.publish()
    assert not second.publish()
    cache.check_integrity([first.pages, second.pages])
    second.end()
    first.end()
    cache.check_integrity([])
    assert cache.num_evictable == 3
    assert num_cached(cache, text(1, 2, 3)) == 3


def test_page_read_by_a_fork_is_not_hung_below_a_path_it_does_not_hold() -> None:
    """Otherwise the page above could be evicted while the page below is in use."""
    cache = KVCache(16)
    run(cache, text(1))
    first = Reader(cache, text(1, 2), shares=False)
    cache.retain(first.pages)  # a fork
    first.end()
    assert num_cached(cache, text(1, 2)) == 1
    cache.check_integrity([first.pages])
    first.end()
    assert num_cached(cache, text(1, 2)) == 2
    cache.check_integrity([])


def test_leaf_published_by_a_fork_can_be_evicted_when_the_other_fork_ends() -> None:
    """The last reader of a leaf queues it, even if its own cursor never came so far."""
    cache = KVCache(4)
    first = Reader(cache, text(1, 2))
    cache.retain(first.pages)  # a fork, with its cursor at the root
    first.end()
    cache.release(cache.root(b""), first.tokens, first.pages, 0)
    cache.check_integrity([])
    assert len(set(cache.allocate(3))) == 3


def test_tokens_beyond_the_cut_do_not_stay() -> None:
    """Only so many pages as the caller says enter the tree."""
    cache = KVCache(16)
    Reader(cache, text(1, 2, 3)).end(1)
    assert num_cached(cache, text(1, 2, 3)) == 1
    assert cache.num_free == 14
    cache.check_integrity([])


def test_least_recently_used_leaf_goes_first() -> None:
    """A prefix that was read again outlives one that was not, and children go before their parents."""
    cache = KVCache(7)
    run(cache, text(1, 2, 3))
    run(cache, text(4, 5, 6))
    run(cache, text(1, 2, 3))
    cache.allocate(2)
    assert num_cached(cache, text(4, 5, 6)) == 1
    assert num_cached(cache, text(1, 2, 3)) == 3
    cache.allocate(2)
    assert num_cached(cache, text(4)) == 0
    assert num_cached(cache, text(1, 2, 3)) == 2
    assert cache.num_evicted == 4


def test_a_path_goes_at_once_as_far_as_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its end up to where a page was used later, is read, or has another child: one entry of the queue each time."""
    cache = KVCache(13)
    run(cache, text(1, 2, 3, 4, 5, 6, 7, 8))
    run(cache, text(1, 2, 3))
    run(cache, text(1, 9))
    offered: list[PrefixNode] = []
    offer = cache._order.offer
    monkeypatch.setattr(cache._order, "offer", lambda node: (offered.append(node), offer(node)))
    assert cache.num_free == 3
    cache.allocate(6)
    assert num_cached(cache, text(1, 2, 3, 4, 5, 6, 7, 8)) == 5
    assert len(offered) == 1
    cache.allocate(3)
    assert num_cached(cache, text(1, 2, 3, 4, 5, 6, 7, 8)) == 2
    assert len(offered) == 3
    reader = Reader(cache, text(1))
    cache.allocate(2)
    assert num_cached(cache, text(1, 2)) == num_cached(cache, text(1, 9)) == 1
    assert len(offered) == 5
    assert cache.num_available == 0
    del reader


def test_pages_in_use_are_not_evicted() -> None:
    """What a sequence reads is not available."""
    cache = KVCache(5)
    run(cache, text(1, 2))
    reader = Reader(cache, text(1, 3))
    assert cache.num_available == 2
    cache.allocate(2)
    assert num_cached(cache, text(1)) == 1
    assert num_cached(cache, text(1, 2)) == 1
    with pytest.raises(AssertionError):
        cache.allocate(1)
    del reader


def test_tenant_above_its_share_loses_its_own_prefixes_first() -> None:
    """A flood of one tenant does not displace another's older prefix."""
    cache = KVCache(11)
    run(cache, text(1, 2), b"quiet")
    for start in range(10, 30, 2):
        run(cache, text(start, start + 1), b"flood")
    assert num_cached(cache, text(1, 2), b"quiet") == 2
    assert cache.num_evicted == 12


def test_within_shares_the_oldest_goes_first() -> None:
    """When nobody is above the share, age decides."""
    cache = KVCache(9)
    run(cache, text(1, 2, 3, 4), b"old")
    run(cache, text(1, 2, 3, 4), b"new")
    cache.allocate(3)
    assert num_cached(cache, text(1, 2, 3, 4), b"old") == 1
    assert num_cached(cache, text(1, 2, 3, 4), b"new") == 4


def test_forgotten_prefix_takes_all_below_it_along_and_readers_go_on() -> None:
    """After broken values nothing of the path is found, readers keep their pages and publish nothing below."""
    cache = KVCache(16)
    run(cache, text(1, 2, 3))
    reader = Reader(cache, text(1, 2, 4))
    assert reader.publish()
    other = Reader(cache, text(1, 2, 4, 5))
    cache.forget(reader.cursor)
    assert num_cached(cache, text(1, 2, 3)) == 0
    assert not other.publish()
    cache.check_integrity([reader.pages, other.pages])
    reader.end(0)
    other.end()
    cache.check_integrity([])
    assert cache.num_free == 15


def test_forgetting_spares_other_prefixes() -> None:
    """Only what begins with the same page goes."""
    cache = KVCache(16)
    run(cache, text(8, 9))
    reader = Reader(cache, text(1, 2))
    reader.publish()
    cache.forget(reader.cursor)
    cache.forget(reader.cursor)
    assert num_cached(cache, text(8, 9)) == 2


def test_flush_forgets_everything_and_counts_it() -> None:
    """All prefixes go; what is read stays allocated until it is released."""
    cache = KVCache(16)
    run(cache, text(1, 2), b"one")
    reader = Reader(cache, text(3, 4), b"two")
    reader.publish()
    assert cache.flush() == 4
    cache.check_integrity([reader.pages])
    assert cache.num_evictable == 0
    assert cache.num_free == 13
    reader.end()
    assert cache.num_free == 15


def test_without_sharing_nothing_is_kept() -> None:
    """`share_prefixes=False` leaves the tree empty."""
    cache = KVCache(16, share_prefixes=False)
    reader = Reader(cache, text(1, 2))
    assert not reader.publish()
    reader.end()
    assert num_cached(cache, text(1, 2)) == 0
    assert cache.num_free == 15


def test_integrity_check_sees_a_wrong_reference_count() -> None:
    """The conservation law can fail."""
    cache = KVCache(16)
    reader = Reader(cache, text(1, 2))
    with pytest.raises(AssertionError, match="recount"):
        cache.check_integrity([reader.pages, reader.pages])


def test_integrity_check_sees_a_leaf_that_would_never_be_evicted() -> None:
    """Memory that nobody can get back is a leak."""
    cache = KVCache(16)
    run(cache, text(1))
    cache.root(b"").leaves.clear()
    with pytest.raises(AssertionError, match="forgotten"):
        cache.check_integrity([])


def test_eviction_queue_does_not_grow_with_use() -> None:
    """A prefix that is read many times is queued a bounded number of times."""
    cache = KVCache(16)
    for _ in range(300):
        reader = Reader(cache, text(1))
        reader.end()
    assert len(cache.root(b"").leaves) <= 2 * 1 + 16
    cache.check_integrity([])
