"""The cache of keys and values: one tensor for all layers, cut into pages of `PAGE_SIZE` tokens.

Layout: [num_layers, num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim]; index 0 of the third dimension is the keys, 1 the
values (a layer's slice is what FlashInfer calls NHD). Page 0 takes the writes of padding rows; nothing is read from it.

Pages are not cleared, neither at first nor when they change hands: whatever a page holds beyond a sequence's context,
NaN included, must not be read, and every backend masks it.
"""

import torch
from torch import Tensor

from runtime.identifiers import PAGE_SIZE


def allocate_pages(
    *, num_layers: int, num_pages: int, num_kv_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """An uninitialized cache; see the module for its layout. Physical memory of a CPU is taken as pages are written."""
    return torch.empty(num_layers, num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim, device=device, dtype=dtype)


def key_rows(slots: Tensor) -> Tensor:
    """Where the keys of some slots lie in a layer seen as rows, [num_pages * 2 * PAGE_SIZE, num_kv_heads, head_dim].

    Args:
        slots: [n] int64; slot = page * PAGE_SIZE + offset.
    Returns: [n] int64; the value of a slot lies PAGE_SIZE rows further. Capture-safe.
    """
    return slots + (slots & -PAGE_SIZE)


def write_kv(layer_pages: Tensor, key: Tensor, value: Tensor, rows: Tensor) -> None:
    """Write one step's keys and values of one layer into the cache, in place.

    Args:
        layer_pages: [num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim].
        key, value: [num_tokens, num_kv_heads, head_dim].
        rows: [num_tokens], `key_rows` of the tokens' slots. Those of page 0 may repeat; which write wins is open.
    Capture-safe.
    Source: PagedAttention, Kwon et al. 2023.
    """
    cache = layer_pages.view(-1, *layer_pages.shape[-2:])
    cache.index_copy_(0, rows, key.to(cache.dtype))
    cache.index_copy_(0, rows + PAGE_SIZE, value.to(cache.dtype))


def copy_pages(pages: Tensor, copies: Tensor) -> None:
    """Copy whole pages in all layers, in place, as if all were read before any is written.

    Args:
        pages: the whole cache.
        copies: [num_copies, 2] int64, source and destination; no destination twice.
    """
    pages[:, copies[:, 1]] = pages[:, copies[:, 0]]
