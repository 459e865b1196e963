"""Keys and values of whole contexts, gathered from their pages into straight runs."""

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

GAP_PAGES = 8
"""Pages of zeros behind each context: a kernel may read a tile of 128 tokens past its end."""


def gather_contexts(
    key_pages: Tensor,
    value_pages: Tensor,
    context_lengths: Tensor,
    page_starts: Tensor,
    page_ids: Tensor,
    *,
    keys: Tensor,
    values: Tensor,
    num_pages: int,
    max_sequences: int,
    launcher: Launcher,
) -> None:
    """Copy contexts, sequence i to page (page_starts[i] - page_starts[0]) + i * GAP_PAGES of the runs and those that follow.

    Tokens past a context, and those of the pages between, become zeros.

    Args:
        key_pages, value_pages: [pages of the cache, page_size, kv_heads, head_dim], any but the first dimension contiguous.
        context_lengths, page_starts: [num_sequences], [num_sequences + 1] int32; starts may begin above 0.
        page_ids: int32.
        keys, values: [tokens, kv_heads, head_dim], contiguous, written.
        num_pages: of all contexts, and GAP_PAGES for each.
        max_sequences: bound of their number, the same for all calls.
    """
    page_size, kv_heads, head_dim = key_pages.shape[1:]
    width = kv_heads * head_dim
    launcher.launch(
        "contexts.gather",
        (num_pages, 2, 1),
        (key_pages, value_pages, context_lengths, page_starts, page_ids, keys, values, len(context_lengths)),
        {
            "WIDTH": width,
            "PAGE_SIZE": page_size,
            "PAGE_STRIDE": key_pages.stride(0),
            "GAP_PAGES": GAP_PAGES,
            "BLOCK_SEQUENCES": 1 << (max_sequences - 1).bit_length(),
            "BLOCK_WIDTH": 1 << (width - 1).bit_length(),
        },
        Options(num_warps=8),
    )
