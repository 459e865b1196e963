"""Where keys and values live: the pool of pages, and the prefix tree that lets requests share them.

In reading order: `pool` (pages and how many refer to each), `prefixes` (the radix tree over whole pages), `eviction` (which
prefix goes first), `cache` (all three as the scheduler sees them, with `check_integrity`).

Only page numbers are handled here, never a tensor: the runner owns the memory behind them. It imports numpy and
`runtime.identifiers`. What always holds, and `check_integrity` states: every page but the padding page is either free
or referred to; a page's reference count is one for the tree, if it is in it, and one for each sequence that reads it.
"""
