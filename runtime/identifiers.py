"""Distinct types for the ids of the engine that are all plain integers.

Mixing tokens and pages is the classic bug of paged caches; with these a type checker refuses it.
"""

from typing import NewType

PageId = NewType("PageId", int)
"""Index of a page of `PAGE_SIZE` tokens in the pool. Page 0 takes the padding and belongs to nobody."""

SlotId = NewType("SlotId", int)
"""Index of one token's place in the pool: `page * PAGE_SIZE + offset`."""

RequestId = NewType("RequestId", int)
"""A request's number, unique within the life of an engine process."""

PAGE_SIZE = 16
"""Tokens per KV page. Fixed: kernels, tree and bundles agree on it."""

PADDING_PAGE = PageId(0)
