"""Page tables in full rows, as XQA reads them, made on the device from the compressed ones."""

import torch
from torch import Tensor

from runtime.attention.device import DeviceTables


def fill_block_tables(block_tables: Tensor, tables: DeviceTables) -> None:
    """Write each sequence's pages into its row, and page 0 beyond them, in place.

    Args:
        block_tables: [num_sequences, max_pages] int32.
        tables: the first num_sequences sequences count.
    Capture-safe.
    """
    num_sequences, max_pages = block_tables.shape
    columns = torch.arange(max_pages, dtype=torch.int32, device=block_tables.device)
    starts = tables.page_starts[:num_sequences, None]
    ends = tables.page_starts[1 : num_sequences + 1, None]
    places = starts + columns
    pages = tables.page_ids[places.clamp(0, len(tables.page_ids) - 1)]
    block_tables.copy_(torch.where(places < ends, pages, 0))
