"""The radix tree over pages: which page holds the keys and values of which prefix.

An edge is labelled with the token ids of one whole page, as bytes, so a lookup compares the ids themselves: two prefixes
never pass for one another, and nodes need not be split. A page's content depends on all tokens before it, therefore a
node stands for the path from its root, not for its own tokens.

Each namespace is a root of its own: there is no path from one tenant's prefixes to another's. A namespace lives as long as
it has pages or a sequence that started in it.

Source: RadixAttention, Zheng et al. 2024; the pages as edge labels are ours.
"""

from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import numpy as np

from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE, PageId

_PAGE_KEY = np.dtype((np.void, 4 * PAGE_SIZE))
"""Token ids are keyed as int32."""
_KEYS_AT_ONCE = 64
"""So many pages of a prompt are keyed before the first of them is looked up: most prompts end or differ before."""


class PrefixNode:
    """One page in the tree. Its page may be shared by any sequence whose tokens begin with the path to this node."""

    __slots__ = ("attached", "children", "depth", "key", "page", "parent", "root")

    def __init__(self, root: "NamespaceRoot | None", parent: "PrefixNode | None", key: bytes, page: PageId) -> None:
        self.root = root
        self.parent = parent
        self.key = key
        self.page = page
        self.depth: int = 0 if parent is None else parent.depth + 1
        """Pages on the path, this one included."""
        self.children: dict[bytes, PrefixNode] = {}
        self.attached = True
        """False once the node left the tree; sequences that still read its page may add nothing below it."""


class NamespaceRoot(PrefixNode):
    """The empty prefix of a namespace."""

    __slots__ = ("__weakref__", "leaves", "namespace", "num_pages")

    def __init__(self, namespace: bytes) -> None:
        super().__init__(None, None, b"", PageId(0))
        self.namespace = namespace
        self.num_pages = 0
        """Pages that the tree holds in this namespace."""
        self.leaves: list[tuple[int, PageId]] = []
        """Heap of leaves that may be evicted, see `runtime.kv.eviction`."""


class PrefixTree:
    """All namespaces' trees. It holds no reference counts: `KVCache` keeps them in step."""

    def __init__(self, num_pages: int) -> None:
        self._roots: WeakValueDictionary[bytes, NamespaceRoot] = WeakValueDictionary()
        self.node_of_page: list[PrefixNode | None] = [None] * num_pages

    def root(self, namespace: bytes) -> NamespaceRoot:
        """The root of a namespace; the caller keeps it alive until pages are below it."""
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = NamespaceRoot(namespace)
        return root

    def roots(self) -> list[NamespaceRoot]:
        """Namespaces that have pages."""
        return [root for root in self._roots.values() if root.num_pages > 0]

    def find(self, cursor: PrefixNode, tokens: Int32, limit: int) -> list[PrefixNode]:
        """The nodes below `cursor` along the sequence's tokens, as far as the tree has them.

        Args:
            cursor: where the sequence stands already.
            tokens: all token ids of the sequence from position 0 on.
            limit: the deepest node wanted, in pages from the root.
        """
        found: list[PrefixNode] = []
        for start in range(cursor.depth, limit, _KEYS_AT_ONCE):
            for key in page_keys(tokens, start, min(limit, start + _KEYS_AT_ONCE)):
                child = cursor.children.get(key)
                if child is None:
                    return found
                found.append(child)
                cursor = child
        return found

    def node_at(self, page: PageId) -> PrefixNode:
        """The node of a page that is in the tree."""
        node = self.node_of_page[page]
        assert node is not None
        return node

    def attach(self, parent: PrefixNode, keys: Sequence[bytes], pages: Sequence[PageId]) -> PrefixNode:
        """Add pages, each below the one before, under an attached node that has no child like the first; returns the last node."""
        assert parent.attached
        assert keys[0] not in parent.children
        root = parent if isinstance(parent, NamespaceRoot) else parent.root
        assert isinstance(root, NamespaceRoot)
        node = parent
        for key, page in zip(keys, pages, strict=True):
            assert self.node_of_page[page] is None
            parent, node = node, PrefixNode(root, node, key, page)
            parent.children[key] = self.node_of_page[page] = node
        root.num_pages += len(pages)
        return node

    def detach(self, node: PrefixNode) -> list[PageId]:
        """Take a node and all below it out of the tree; returns their pages."""
        assert node.attached
        assert node.parent is not None
        del node.parent.children[node.key]
        removed = list(walk(node))
        for gone in removed:
            assert gone.root is not None
            gone.root.num_pages -= 1
            gone.attached = False
            self.node_of_page[gone.page] = None
            gone.children = {}
            gone.parent = None
        return [gone.page for gone in removed]


def page_keys(tokens: Int32, start: int, end: int) -> list[bytes]:
    """The edge labels of a sequence's pages `[start, end)`, all of which its tokens fill."""
    keys: list[bytes] = tokens[start * PAGE_SIZE : end * PAGE_SIZE].view(_PAGE_KEY).tolist()
    return keys


def walk(node: PrefixNode) -> Iterator[PrefixNode]:
    """A node and all below it, each before its children."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children.values())
