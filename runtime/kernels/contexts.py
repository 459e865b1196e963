"""Keys and values of whole contexts, gathered from their pages into straight runs."""

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

GAP_PAGES = 8
"""Pages of zeros behind each context: a kernel may read a tile of 128 tokens past its end."""


def gather_contexts(
    key_pages: Tensor,
    value_pages: Tensor,
    scales: Tensor | None,
    context_lengths: Tensor,
    page_starts: Tensor,
    page_ids: Tensor,
    *,
    first: int,
    num_sequences: int,
    keys: Tensor,
    values: Tensor,
    num_pages: int,
    max_sequences: int,
    launcher: Launcher,
) -> None:
    """Copy the contexts of sequences `first` to `first + num_sequences - 1`, one behind the other, each with GAP_PAGES behind it.

    Tokens past a context, and those of the pages between, become zeros.

    Args:
        key_pages, value_pages: [pages of the cache, page_size, kv_heads, head_dim], any but the first dimension contiguous.
        scales: of pages in e4m3, see `runtime.attention.pages`: what is copied is multiplied by them; else None.
        context_lengths, page_starts, page_ids: the whole step's, int32: a part of them would not be aligned.
        keys, values: [tokens, kv_heads, head_dim], contiguous, written; of the pages' dtype where there are no scales.
        num_pages: of all contexts, and GAP_PAGES for each.
        max_sequences: bound of their number, the same for all calls.
    """
    page_size, kv_heads, head_dim = key_pages.shape[1:]
    width = kv_heads * head_dim
    launcher.launch(
        "contexts.gather",
        (num_pages, 2, 1),
        (
            key_pages,
            value_pages,
            context_lengths if scales is None else scales,  # What is absent is never read, but has to be a pointer.
            context_lengths,
            page_starts,
            page_ids,
            keys,
            values,
            first,
            num_sequences,
        ),
        {
            "WIDTH": width,
            "PAGE_SIZE": page_size,
            "PAGE_STRIDE": key_pages.stride(0),
            "GAP_PAGES": GAP_PAGES,
            "BLOCK_SEQUENCES": 1 << (max_sequences - 1).bit_length(),
            "BLOCK_WIDTH": 1 << (width - 1).bit_length(),
            "SCALED": scales is not None,
        },
        Options(num_warps=8),
    )
