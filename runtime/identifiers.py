"""Pages: their size, and a type of their own for the index of one, which is not a number of tokens.

Arrays of them are plain int32; there the names say what is meant (`pages`, `slots`, `rows`).
"""

from typing import NewType

PageId = NewType("PageId", int)
"""Index of a page of `PAGE_SIZE` tokens in the pool. Page 0 takes the padding and belongs to nobody."""

PAGE_SIZE = 16
"""Tokens per KV page. Fixed: kernels, tree and bundles agree on it."""

PADDING_PAGE = PageId(0)
