"""Chains of a speculating step: where rows stand, which drafts are accepted, and what the head reads of a token.

One program a sequence, a chain or a row; everything is a handful of numbers, and one kernel instead of twenty small ones is what
counts in a round of speculation.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_positions"])
def place(
    token_ids, positions, slots, context_lengths, sample_positions, page_starts, page_ids, continued, num_tokens,
    last_ids, drafts, num_positions,
    QUERIES: tl.constexpr, NUM_STEPS: tl.constexpr, BLOCK: tl.constexpr, PAGE_SIZE: tl.constexpr,
):  # fmt: skip
    """One program: the rows of one sequence, moved to where the chain that it continues has ended.

    Kernels of plain decodes trust a length: with one row a sequence it is cut off at the pages, as it is past them only if
    the answer has ended.
    """
    sequence = tl.program_id(0)
    chain = tl.load(continued + sequence)
    before = tl.maximum(chain, 0)
    extra = tl.load(num_tokens + before) - 1
    extra = tl.where(chain >= 0, extra, 0)
    at = tl.arange(0, BLOCK)
    mask = at < QUERIES
    row = sequence * QUERIES + at
    newest = tl.load(last_ids + before)
    draft = tl.load(drafts + before * NUM_STEPS + at - 1, mask=mask & (at > 0), other=0)
    token = tl.load(token_ids + row, mask=mask, other=0)
    token = tl.where(chain >= 0, tl.where(at == 0, newest, draft), token)
    tl.store(token_ids + row, token, mask=mask)
    position = tl.load(positions + row, mask=mask, other=0) + extra
    first = tl.load(page_starts + sequence)
    count = tl.load(page_starts + sequence + 1) - first
    tl.store(slots + row, _slot(position, first, count, page_ids, mask, PAGE_SIZE), mask=mask)
    tl.store(positions + row, tl.minimum(position, num_positions - 1), mask=mask)
    sampled = tl.load(sample_positions + row, mask=mask, other=0)
    tl.store(sample_positions + row, sampled + extra, mask=mask)
    context = tl.load(context_lengths + sequence) + extra
    if QUERIES == 1:
        context = tl.minimum(context, count * PAGE_SIZE)
    tl.store(context_lengths + sequence, context)


@triton.jit(do_not_specialize=["num_decodes", "num_positions", "stride"])
def accept(
    token_ids, positions, samples, sample_rows, num_drafts, chain_sequences, page_starts, page_ids,
    num_tokens, last_ids, last_rows, chain_starts, columns, num_decodes, num_positions, stride,
    QUERIES: tl.constexpr, NUM_STEPS: tl.constexpr, BLOCK: tl.constexpr, PAGE_SIZE: tl.constexpr,
):  # fmt: skip
    """One program: one chain. Its tokens are counted, and the places of its next drafts' entries written.

    `columns` is [3, NUM_STEPS, stride]: positions, slots and context lengths of the chain's newest entry and those behind it.
    """
    chain = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    is_decode = chain < num_decodes
    first_row = chain * QUERIES
    drafted = tl.load(num_drafts + chain, mask=is_decode, other=0)
    in_chain = is_decode & (at < drafted)
    chosen = tl.load(samples + first_row + at, mask=in_chain, other=0)
    draft = tl.load(token_ids + first_row + at + 1, mask=in_chain, other=-1)
    accepted = tl.min(tl.where(in_chain & (chosen == draft), BLOCK, at))
    sample = tl.where(is_decode, first_row + accepted, num_decodes * QUERIES + chain - num_decodes)
    last_row = tl.load(sample_rows + sample)
    tl.store(num_tokens + chain, accepted + 1)
    tl.store(last_ids + chain, tl.load(samples + sample))
    tl.store(last_rows + chain, last_row)
    sequence = tl.load(chain_sequences + chain)
    first = tl.load(page_starts + sequence)
    count = tl.load(page_starts + sequence + 1) - first
    tl.store(chain_starts + chain, first)
    mask = at < NUM_STEPS
    position = tl.load(positions + last_row) + at
    where = columns + at * stride + chain
    size = NUM_STEPS * stride
    tl.store(where, tl.minimum(position, num_positions - 1), mask=mask)
    tl.store(where + size, _slot(position, first, count, page_ids, mask, PAGE_SIZE), mask=mask)
    tl.store(where + 2 * size, tl.minimum(position + 1, count * PAGE_SIZE), mask=mask)


@triton.jit(do_not_specialize=["step"])
def join(
    token_ids, target_ids, drafts, table, hidden, embedding_weight, hidden_weight, out, step,
    DIM: tl.constexpr, BLOCK: tl.constexpr, NUM_STEPS: tl.constexpr, MAPPED: tl.constexpr, EPS: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program: one row. out = [norm(the token's row of `table`), norm(hidden)].

    With MAPPED the ids are of the draft vocabulary, and the target's are noted as the step's drafts.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    at = tl.arange(0, BLOCK)
    mask = at < DIM
    of_embedding = tl.load(embedding_weight + at, mask=mask, other=0.0).to(tl.float32)
    of_hidden = tl.load(hidden_weight + at, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(token_ids + row).to(tl.int64)
    if MAPPED:
        token = tl.load(target_ids + token).to(tl.int64)
        tl.store(drafts + row * NUM_STEPS + step, token.to(tl.int32))
    where = out + row * (2 * DIM) + at
    values = tl.load(table + token * DIM + at, mask=mask, other=0.0).to(tl.float32)
    root = tl.rsqrt(tl.sum(values * values) / DIM + EPS)
    tl.store(where, (values * root * of_embedding).to(out.dtype.element_ty), mask=mask)
    values = tl.load(hidden + row * DIM + at, mask=mask, other=0.0).to(tl.float32)
    root = tl.rsqrt(tl.sum(values * values) / DIM + EPS)
    tl.store(where + DIM, (values * root * of_hidden).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _slot(position, first, count, page_ids, mask, PAGE_SIZE: tl.constexpr):
    """Where a position's key and value go: into the sequence's pages, or page 0 for what is beyond them."""
    page = position // PAGE_SIZE
    inside = tl.minimum(page, count - 1)
    found = tl.load(page_ids + first + inside, mask=mask, other=0)
    return tl.where(page < count, found * PAGE_SIZE + position % PAGE_SIZE, position % PAGE_SIZE)
