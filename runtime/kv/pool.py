"""The pool of KV pages: which are free, and how many refer to each of the others.

All state is arrays, and every call takes as many pages as the caller has, so that a step's work does not grow with a loop
over pages. The pool knows nothing of what the pages hold.
"""

import numpy as np

from runtime.batch import Int32
from runtime.identifiers import PADDING_PAGE


class PagePool:
    """Hands out pages `1 .. num_pages - 1`. Page 0 takes the padding of batches and is never handed out."""

    def __init__(self, num_pages: int) -> None:
        """
        Args:
            num_pages: size of the runner's pool, the padding page included; at least 2.
        """
        if num_pages < 2:
            raise ValueError(f"a pool needs the padding page and one more, not {num_pages}")
        self.num_pages = num_pages
        self.references: Int32 = np.zeros(num_pages, np.int32)
        """How many refer to a page; read by others, written here only. 0 for free pages and the padding page."""
        self._free: Int32 = np.arange(num_pages - 1, PADDING_PAGE, -1, dtype=np.int32)
        """A stack; what lies above `num_free` means nothing."""
        self.num_free = num_pages - 1

    @property
    def num_usable(self) -> int:
        """Pages that can be handed out at all."""
        return self.num_pages - 1

    def allocate(self, count: int) -> Int32:
        """Take `count` free pages, each with one reference. The caller has checked `num_free`."""
        assert 0 <= count <= self.num_free, f"{count} pages asked of {self.num_free} free ones"
        self.num_free -= count
        pages = self._free[self.num_free : self.num_free + count].copy()
        self.references[pages] = 1
        return pages

    def retain(self, pages: Int32) -> None:
        """Add one reference to each of these distinct pages, none of them free."""
        assert bool((self.references[pages] > 0).all()), "a free page cannot be retained"
        self.references[pages] += 1

    def release(self, pages: Int32) -> None:
        """Drop one reference from each of these distinct pages; what nobody refers to any more is free."""
        assert bool((self.references[pages] > 0).all()), "a page was released more often than retained"
        self.references[pages] -= 1
        freed = pages[self.references[pages] == 0]
        self._free[self.num_free : self.num_free + len(freed)] = freed
        self.num_free += len(freed)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the free pages are exactly those that nobody refers to."""
        free = self._free[: self.num_free]
        assert len(np.unique(free)) == len(free), "a page is free twice"
        expected = np.flatnonzero(self.references == 0)
        expected = expected[expected != PADDING_PAGE]
        assert np.array_equal(np.sort(free), expected), "the free list and the reference counts disagree"
        assert self.references[PADDING_PAGE] == 0, "somebody refers to the padding page"
