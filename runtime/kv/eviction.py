"""Which prefix goes when pages are short: the least recently used leaf, first of tenants that hold more than their share.

A namespace's share is the pool divided by the number of namespaces that have pages in the tree. As long as one of them is
above its share, only those above lose pages, the largest first and down to their share; then the oldest leaf of
all goes. So one tenant's flood of prompts displaces its own prefixes, not everybody's.

All pages of one path that were used last by the same sequence are as old as one another, and each becomes a leaf when the one below
it has gone. So they are taken together, a long prompt's hundreds at once.

Each namespace has a heap of (last use, page). An entry is true only while its page is a leaf that nobody but the
tree refers to and that was not used since; others are dropped when they come up, and the heap is rebuilt when they
outnumber the pages. A page becomes a true entry in two places only: when a sequence that ends in it lets go, and when its
last child is evicted.
"""

import heapq

import numpy as np

from runtime.batch import Int32, Int64
from runtime.identifiers import PageId
from runtime.kv.prefixes import NamespaceRoot, PrefixNode, PrefixTree


class EvictionOrder:
    """Order of the tree's leaves. Reads the tree and the reference counts, changes neither."""

    def __init__(self, tree: PrefixTree, references: Int32) -> None:
        self._tree = tree
        self._references = references
        self._last_used: Int64 = np.zeros(len(references), np.int64)
        self._clock = 0

    def touch(self, pages: Int32) -> None:
        """Note that the pages of one path were used now."""
        self._clock += 1
        self._last_used[pages] = self._clock

    def offer(self, node: PrefixNode) -> None:
        """Queue a page for eviction if it is a leaf that only the tree refers to."""
        if not self._is_evictable(node):
            return
        assert node.root is not None
        leaves = node.root.leaves
        heapq.heappush(leaves, (int(self._last_used[node.page]), node.page))
        if len(leaves) > 2 * node.root.num_pages + 16:
            leaves[:] = [entry for entry in set(leaves) if self._is_true(entry, node.root)]
            heapq.heapify(leaves)

    def victims(self, wanted: int) -> "Victims":
        """Start choosing up to `wanted` pages; the caller removes each path before it asks for the next."""
        return Victims(self, self._tree, wanted, len(self._references) - 1)

    def oldest(self, root: NamespaceRoot) -> tuple[int, PageId] | None:
        """The namespace's least recently used leaf; None if it has none to give."""
        while root.leaves:
            if self._is_true(root.leaves[0], root):
                return root.leaves[0]
            heapq.heappop(root.leaves)
        return None

    def end_of_path(self, page: PageId, most: int) -> PrefixNode:
        """From a leaf that is evicted, how far up those go that would be next, each when the one below has gone; `most` of them."""
        path = [self._tree.node_at(page)]
        above = path[0].parent
        while len(path) < most and above is not None and above.parent is not None and len(above.children) == 1:
            path.append(above)
            above = above.parent
        pages = np.fromiter((node.page for node in path), np.int32, len(path))
        goes = (self._references[pages] == 1) & (self._last_used[pages] == self._last_used[page])
        return path[-1 if goes.all() else int(goes.argmin()) - 1]

    def check_integrity(self) -> None:
        """Raise AssertionError if a leaf that could be evicted is not queued."""
        for root in self._tree.roots():
            queued = {page for last_used, page in root.leaves if self._is_true((last_used, page), root)}
            for node in self._tree.node_of_page:
                if node is not None and node.root is root and self._is_evictable(node):
                    assert node.page in queued, f"page {node.page} is forgotten by the eviction order"

    def _is_evictable(self, node: PrefixNode) -> bool:
        return node.attached and node.parent is not None and not node.children and int(self._references[node.page]) == 1

    def _is_true(self, entry: tuple[int, PageId], root: NamespaceRoot) -> bool:
        last_used, page = entry
        node = self._tree.node_of_page[page]
        return (
            node is not None
            and node.root is root
            and int(self._last_used[page]) == last_used
            and self._is_evictable(node)
        )


class Victims:
    """One round of eviction, fair to namespaces as the module says: an iterator over nodes that go with the one path below each."""

    def __init__(self, order: EvictionOrder, tree: PrefixTree, wanted: int, num_usable: int) -> None:
        roots = tree.roots()
        self._order = order
        self._tree = tree
        self._wanted = wanted
        self._share = num_usable // max(1, len(roots))
        self._over = sorted((root for root in roots if root.num_pages > self._share), key=lambda root: root.num_pages)
        self._by_age: list[tuple[int, PageId, NamespaceRoot]] | None = None
        self._roots = roots

    def __iter__(self) -> "Victims":
        return self

    def __next__(self) -> PrefixNode:
        if self._wanted == 0:
            raise StopIteration
        page, most = self._from_above_share() or (self._from_oldest(), self._wanted)
        end = self._order.end_of_path(page, most)
        self._wanted -= self._tree.node_at(page).depth - end.depth + 1
        return end

    def _from_above_share(self) -> tuple[PageId, int] | None:
        """A leaf of the largest namespace above its share, and how many pages may go at once."""
        while self._over:
            root = self._over[-1]
            excess = root.num_pages - self._share
            leaf = self._order.oldest(root) if excess > 0 else None
            if leaf is not None:
                return leaf[1], min(self._wanted, excess)
            self._over.pop()
        return None

    def _from_oldest(self) -> PageId:
        if self._by_age is None:
            heads = [(self._order.oldest(root), root) for root in self._roots]
            self._by_age = [(head[0], head[1], root) for head, root in heads if head is not None]
            heapq.heapify(self._by_age)
        while self._by_age:
            last_used, page, root = self._by_age[0]
            head = self._order.oldest(root)
            if head is None:
                heapq.heappop(self._by_age)
            elif head == (last_used, page):
                return page
            else:
                heapq.heapreplace(self._by_age, (*head, root))
        raise StopIteration
