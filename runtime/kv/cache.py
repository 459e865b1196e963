"""The KV cache as the scheduler sees it: pages to write to, and prefixes to share.

Who owns a page (the conservation law that `check_integrity` states):

    padding page                 nobody, always
    free                         the pool
    in the tree, one reference   the tree; may be evicted
    in the tree, more            the tree and the sequences that read it
    elsewhere                    the sequences that read it: not full, not launched, a duplicate, or tainted

A page enters the tree (`publish`) as the step that fills it is launched, so a request that arrives meanwhile reads it
instead of computing it again; steps run in the order of their launch, therefore what it reads is there. Within one step the
runner writes all keys and values of a layer before it attends, so even two sequences of the same step may share.

A sequence that reads a page of the tree reads all pages above it, too. Hence a page that only the tree refers to
has no descendant in use, and the number that could be evicted is a count over two arrays.
"""

import numpy as np

from runtime.batch import Bool, Int32
from runtime.identifiers import PADDING_PAGE
from runtime.kv.eviction import EvictionOrder
from runtime.kv.pool import PagePool
from runtime.kv.prefixes import NamespaceRoot, PrefixNode, PrefixTree, page_keys, walk


class KVCache:
    """Pool, prefix tree and eviction order, kept in step."""

    def __init__(self, num_pages: int, *, share_prefixes: bool = True) -> None:
        """
        Args:
            num_pages: the runner's pages, the padding page included.
            share_prefixes: False keeps the tree empty.
        """
        self.num_pages = num_pages
        """The padding page included."""
        self._pool = PagePool(num_pages)
        self._tree = PrefixTree(num_pages)
        self._order = EvictionOrder(self._tree, self._pool.references)
        self._in_tree: Bool = np.zeros(num_pages, np.bool_)
        self._share_prefixes = share_prefixes
        self.num_evicted = 0
        """Pages evicted since the start."""

    @property
    def num_usable(self) -> int:
        """Pages that sequences can have at all."""
        return self._pool.num_usable

    @property
    def num_free(self) -> int:
        """Pages that hold nothing."""
        return self._pool.num_free

    @property
    def num_evictable(self) -> int:
        """Pages that hold prefixes which no sequence reads now."""
        return int(np.count_nonzero(self._in_tree & (self._pool.references == 1)))

    @property
    def num_available(self) -> int:
        """Pages that `allocate` can give."""
        return self.num_free + self.num_evictable

    def root(self, namespace: bytes) -> NamespaceRoot:
        """Where a sequence of this namespace starts."""
        return self._tree.root(namespace)

    def allocate(self, count: int) -> Int32:
        """Take `count` pages, evicting prefixes if too few are free. The caller has checked `num_available`."""
        missing = count - self._pool.num_free
        if missing > 0:
            self._evict(missing)
        return self._pool.allocate(count)

    def retain(self, pages: Int32) -> None:
        """Let one more sequence read these pages."""
        self._pool.retain(pages)

    def is_shared(self, pages: Int32) -> Bool:
        """For each page whether somebody else refers to it, too: it must be copied before it is written to."""
        return self._pool.references[pages] > 1

    def num_held_by_match(self, nodes: list[PrefixNode]) -> int:
        """How many of these nodes' pages could be evicted now, and no longer could once a sequence reads them."""
        pages = np.fromiter((node.page for node in nodes), np.int32, len(nodes))
        return int(np.count_nonzero(self._pool.references[pages] == 1))

    def find(self, cursor: PrefixNode, tokens: Int32, limit: int) -> list[PrefixNode]:
        """The nodes that a sequence at `cursor` could share next, see `PrefixTree.find`. Changes nothing."""
        return self._tree.find(cursor, tokens, limit) if cursor.attached else []

    def share(self, nodes: list[PrefixNode]) -> Int32:
        """Let a sequence read what `find` gave; returns the pages."""
        pages = np.fromiter((node.page for node in nodes), np.int32, len(nodes))
        self._pool.retain(pages)
        return pages

    def publish(self, cursor: PrefixNode, tokens: Int32, pages: Int32, end: int) -> tuple[PrefixNode, bool]:
        """Put a sequence's pages into the tree, from its cursor up to `end` pages, as their step is launched: just before or after.

        Returns:
            The new cursor, and whether all went in. False: the tree has such a prefix from somebody else, or the path was
            taken out; the sequence keeps its own pages and must publish no more while it runs.
        """
        if not (self._share_prefixes and cursor.attached):
            return cursor, False
        keys = page_keys(tokens, cursor.depth, end)
        if not keys:
            return cursor, True
        if keys[0] in cursor.children:  # Below a new node there is nothing, so no other can be there.
            return cursor, False
        own = pages[cursor.depth : end]
        self._adopt(own)
        return self._tree.attach(cursor, keys, own.tolist()), True

    def release(self, cursor: PrefixNode, tokens: Int32, pages: Int32, end: int) -> None:
        """A sequence ends: its pages up to `end` stay in the tree if they can, and all its references go.

        Pages that are in the tree already from somebody else are not needed twice. Below such a page only pages that nobody
        else reads are added: another reader would not hold the path above.
        """
        path: list[PrefixNode] = []
        if cursor.attached:
            path = self._publish_rest(cursor, tokens, pages, end)
        own = pages[self._in_tree[pages]]
        self._order.touch(np.concatenate([own, np.array([node.page for node in path], np.int32)]))
        self._pool.release(pages)
        # A leaf that nobody reads any more is the end of the path just walked, or the deepest page that was read here: a
        # fork may have published it below this sequence's cursor.
        self._order.offer(path[-1] if path else cursor)
        if len(own):
            self._order.offer(self._tree.node_at(own[-1].item()))

    def give_up(self, pages: Int32) -> None:
        """A sequence that runs on no longer reads these pages, none of them in the tree."""
        self._pool.release(pages)

    def forget(self, cursor: PrefixNode) -> None:
        """Take the whole prefix that `cursor` is on out of the tree, with all that was computed from it.

        Its first page may be what is broken, so nothing of the path is kept. Sequences that read the pages go on.
        """
        if not cursor.attached:
            return
        while cursor.depth > 1:
            assert cursor.parent is not None
            cursor = cursor.parent
        if cursor.depth == 1:
            self._detach(cursor)

    def flush(self) -> int:
        """Take all prefixes out of the tree; returns how many pages that were. Sequences that read them go on."""
        count = 0
        for root in self._tree.roots():
            for child in list(root.children.values()):
                count += self._detach(child)
        return count

    def check_integrity(self, held: list[Int32]) -> None:
        """Raise AssertionError unless pages are conserved and every count equals its recount.

        Args:
            held: for each sequence the pages that it reads.
        """
        recount = self._in_tree.astype(np.int32)
        for pages in held:
            recount[pages] += 1
        assert np.array_equal(recount, self._pool.references), "reference counts differ from the recount"
        self._pool.check_integrity()
        in_use = int(np.count_nonzero(recount))
        assert self._pool.num_free + in_use == self._pool.num_usable, "pages were lost or made"
        self._check_tree()
        self._order.check_integrity()

    def _check_tree(self) -> None:
        seen = np.zeros_like(self._in_tree)
        for root in self._tree.roots():
            nodes = list(walk(root))[1:]
            assert root.num_pages == len(nodes), "a namespace miscounts its pages"
            for node in nodes:
                assert node.attached
                assert node.root is root
                assert node.parent is not None
                assert node.parent.children[node.key] is node
                assert self._tree.node_of_page[node.page] is node
                assert not seen[node.page], "a page is in the tree twice"
                seen[node.page] = True
                parent_references = self._pool.references[node.parent.page]
                assert node.depth == 1 or not (self._pool.references[node.page] > 1 and parent_references == 1), (
                    "a page in use hangs below one that could be evicted"
                )
        assert np.array_equal(seen, self._in_tree), "the tree and its list of pages disagree"
        assert not seen[PADDING_PAGE]

    def _publish_rest(self, cursor: PrefixNode, tokens: Int32, pages: Int32, end: int) -> list[PrefixNode]:
        """The nodes below `cursor` for a sequence's tokens, those it adds and those that were there."""
        is_own_path = True
        path: list[PrefixNode] = []
        added: list[int] = []
        keys = page_keys(tokens, cursor.depth, end) if self._share_prefixes else []
        for key, page in zip(keys, pages[cursor.depth : end].tolist(), strict=False):
            child = cursor.children.get(key)
            if child is None:
                if not is_own_path and int(self._pool.references[page]) > 1:
                    break
                child = self._tree.attach(cursor, [key], [page])
                added.append(page)
            elif child.page != page:
                is_own_path = False
            path.append(child)
            cursor = child
        self._adopt(np.array(added, np.int32))
        return path

    def _adopt(self, pages: Int32) -> None:
        """Count the tree's own references to pages that were attached."""
        self._pool.retain(pages)
        self._in_tree[pages] = True

    def _detach(self, node: PrefixNode) -> int:
        pages = np.array(self._tree.detach(node), np.int32)
        self._drop(pages)
        return len(pages)

    def _drop(self, pages: Int32) -> None:
        """Give up the tree's own references to pages that were detached."""
        self._in_tree[pages] = False
        self._pool.release(pages)

    def _evict(self, count: int) -> None:
        evicted: list[int] = []
        for node in self._order.victims(count):
            parent = node.parent
            assert parent is not None
            evicted += self._tree.detach(node)
            self._order.offer(parent)
        self._drop(np.array(evicted, np.int32))
        self.num_evicted += len(evicted)
