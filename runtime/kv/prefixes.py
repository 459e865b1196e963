"""The radix tree over pages: which page holds the keys and values of which prefix.

An edge is labelled with the token ids of one whole page, as bytes, so a lookup compares the ids themselves: two prefixes
never pass for one another, and nodes need not be split. A page's content depends on all tokens before it, therefore a
node stands for the path from its root, not for its own tokens.

Each namespace is a root of its own: there is no path from one tenant's prefixes to another's. A namespace lives as long as
it has pages or a sequence that started in it.

Source: RadixAttention, Zheng et al. 2024; the pages as edge labels are ours.
"""

from collections.abc import Iterator
from weakref import WeakValueDictionary

from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE, PageId

BYTES_PER_PAGE_KEY = 4 * PAGE_SIZE
"""Token ids are keyed as int32."""


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

    def find(self, cursor: PrefixNode, keys: memoryview, limit: int) -> list[PrefixNode]:
        """The nodes below `cursor` along the sequence's tokens, as far as the tree has them.

        Args:
            cursor: where the sequence stands already.
            keys: all token ids of the sequence from position 0 on, see `token_bytes`.
            limit: the deepest node wanted, in pages from the root.
        """
        found: list[PrefixNode] = []
        for index in range(cursor.depth, limit):
            child = cursor.children.get(page_key(keys, index))
            if child is None:
                break
            found.append(child)
            cursor = child
        return found

    def node_at(self, page: PageId) -> PrefixNode:
        """The node of a page that is in the tree."""
        node = self.node_of_page[page]
        assert node is not None
        return node

    def attach(self, parent: PrefixNode, key: bytes, page: PageId) -> PrefixNode:
        """Add a page below an attached node that has no such child, and return its node."""
        assert parent.attached
        assert key not in parent.children
        assert self.node_of_page[page] is None
        root = parent if isinstance(parent, NamespaceRoot) else parent.root
        assert isinstance(root, NamespaceRoot)
        node = PrefixNode(root, parent, key, page)
        parent.children[key] = node
        root.num_pages += 1
        self.node_of_page[page] = node
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


def token_bytes(tokens: Int32) -> memoryview:
    """A sequence's token ids as the tree keys them: a view, so that a long prompt is not copied to look up its beginning."""
    return tokens.data.cast("B")


def page_key(keys: memoryview, index: int) -> bytes:
    """The edge label of the sequence's page number `index`."""
    return bytes(keys[index * BYTES_PER_PAGE_KEY : (index + 1) * BYTES_PER_PAGE_KEY])


def walk(node: PrefixNode) -> Iterator[PrefixNode]:
    """A node and all below it, each before its children."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children.values())
