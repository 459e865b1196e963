"""Contexts out of their pages, one behind the other, for kernels that read keys and values in long straight runs."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["first", "num_sequences"])
def gather(
    key_pages, value_pages, scales, context_lengths, page_starts, page_ids, keys, values, first, num_sequences,
    WIDTH: tl.constexpr, PAGE_SIZE: tl.constexpr, PAGE_STRIDE: tl.constexpr, GAP_PAGES: tl.constexpr,
    BLOCK_SEQUENCES: tl.constexpr, BLOCK_WIDTH: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One program: a page's keys (axis 1: 0) or values (1), WIDTH numbers a token. With SCALED pages hold e4m3: keys over
    `scales[0]`, values over `scales[1]`.

    Behind each context come GAP_PAGES pages of zeros, and zeros fill its own last page: whatever a page holds past a context,
    NaN too, is left behind. The kernel takes no part in dependent launch: it would hold multiprocessors while the decodes before
    it need them.
    """
    page, is_value = tl.program_id(0), tl.program_id(1)
    sequences = tl.arange(0, BLOCK_SEQUENCES)
    first_pages = tl.load(page_starts + first + sequences, mask=sequences < num_sequences, other=0)
    targets = first_pages - tl.load(page_starts + first) + sequences * GAP_PAGES
    begun = (sequences < num_sequences) & (targets <= page)
    sequence = first + tl.sum(begun.to(tl.int32)) - 1
    place = page - tl.max(tl.where(begun, targets, 0))
    token = place * PAGE_SIZE + tl.arange(0, PAGE_SIZE)
    valid = token < tl.load(context_lengths + sequence)
    of_table = tl.load(page_starts + sequence) + place
    source_page = tl.load(page_ids + of_table + tl.zeros_like(token), mask=valid, other=0).to(tl.int64)
    number = tl.arange(0, BLOCK_WIDTH)[None, :]
    there = number < WIDTH
    source = source_page * PAGE_STRIDE + tl.arange(0, PAGE_SIZE) * WIDTH
    target = (page.to(tl.int64) * PAGE_SIZE + tl.arange(0, PAGE_SIZE)) * WIDTH
    if is_value == 0:
        found = tl.load(key_pages + source[:, None] + number, mask=valid[:, None] & there, other=0.0)
        if SCALED:
            found = (found.to(tl.float32) * tl.load(scales)).to(keys.dtype.element_ty)
        tl.store(keys + target[:, None] + number, found, mask=there)
    else:
        found = tl.load(value_pages + source[:, None] + number, mask=valid[:, None] & there, other=0.0)
        if SCALED:
            found = (found.to(tl.float32) * tl.load(scales + 1)).to(values.dtype.element_ty)
        tl.store(values + target[:, None] + number, found, mask=there)
