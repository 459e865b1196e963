"""The cache of keys and values: one tensor for all layers, cut into pages of `PAGE_SIZE` tokens.

Layout: [num_layers, num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim]; index 0 of the third dimension is the keys, 1 the
values (a layer's slice is what FlashInfer calls NHD). Page 0 takes the writes of padding rows; nothing is read from it.

Numbers are the model's dtype, or e4m3: then each layer has two scales, and a key is its first scale times what the cache holds,
a value the second. `scales` is [num_layers, SCALE_COLUMNS] float32, keys and values in the first two columns; None: no e4m3.

Pages are not cleared, neither at first nor when they change hands: whatever a page holds beyond a sequence's context,
NaN included, must not be read, and every backend masks it.
"""

import torch
from torch import Tensor

from runtime.identifiers import PAGE_SIZE
from runtime.layers.quantized import E4M3_MAX

SCALE_COLUMNS = 4
"""Of a layer's scales; two would do, but kernels take only pointers aligned to 16 bytes."""


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


def write_kv(layer_pages: Tensor, key: Tensor, value: Tensor, rows: Tensor, scales: Tensor | None = None) -> None:
    """Write one step's keys and values of one layer into the cache, in place.

    Args:
        layer_pages: [num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim].
        key, value: [num_tokens, num_kv_heads, head_dim].
        rows: [num_tokens], `key_rows` of the tokens' slots. Those of page 0 may repeat; which write wins is open.
        scales: of the layer, [SCALE_COLUMNS], where the cache is e4m3.
    Capture-safe.
    Source: PagedAttention, Kwon et al. 2023.
    """
    if scales is not None:
        key, value = to_e4m3(key, scales[0]), to_e4m3(value, scales[1])
    cache = _storable(layer_pages).view(-1, *layer_pages.shape[-2:])
    cache.index_copy_(0, rows, _storable(key.to(layer_pages.dtype)))
    cache.index_copy_(0, rows + PAGE_SIZE, _storable(value.to(layer_pages.dtype)))


def to_e4m3(values: Tensor, scale: Tensor) -> Tensor:
    """The nearest e4m3 to values / scale, ties to even; what is too large is cut off, infinities and NaN make NaN."""
    wide = values.float() / scale
    return wide.clamp(-E4M3_MAX, E4M3_MAX).where(wide.isfinite(), torch.nan).to(torch.float8_e4m3fn)


def read_kv(layer_pages: Tensor, rows: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rows of a layer, as `key_rows` counts them → [n, num_kv_heads, head_dim] of `dtype`, times the scale if there is one."""
    stored = layer_pages.view(-1, *layer_pages.shape[-2:]).index_select(0, rows)
    return stored.to(dtype) if scale is None else (stored.float() * scale).to(dtype)


def copy_pages(pages: Tensor, copies: Tensor) -> None:
    """Copy whole pages in all layers, in place, as if all were read before any is written.

    Args:
        pages: the whole cache.
        copies: [num_copies, 2] int64, source and destination; no destination twice.
    """
    stored = _storable(pages)
    stored[:, copies[:, 1]] = stored[:, copies[:, 0]]


def move_slots(pages: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Copy keys and values of some slots to others in all layers, in place, as if all were read before any is written.

    Args:
        pages: the whole cache.
        sources, targets: [n] int64; no target twice, but in page 0.
    Capture-safe.
    """
    rows = _storable(pages).view(pages.shape[0], -1, *pages.shape[-2:])
    for distance in (0, PAGE_SIZE):
        moved = rows.index_select(1, key_rows(sources) + distance)
        rows.index_copy_(1, key_rows(targets) + distance, moved)


def _storable(values: Tensor) -> Tensor:
    """e4m3 as bytes: torch writes rows by index of integers, not of it."""
    return values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values
