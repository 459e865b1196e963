"""Attention of single queries where several sequences begin with the same pages: `decode.split` for groups of sequences.

The queries of a group's members are the rows of one matrix product over the tokens that they share, which are read once for
all of them; each sequence by itself sees what is behind. Both are cut into parts, and `merge` joins a sequence's parts of both
kinds by the logarithms of their sums. Tensor cores take 16 rows where the queries of one sequence are 4, so that a group of
four costs what one sequence does.

Which sequences are a group is said by the host, see `runtime.attention.shared_prefixes`; what a captured graph has in excess of
groups and members is empty.

Sources: as `decode`; Hydragen, Juravsky et al. 2024; FlashInfer's cascade attention, Ye et al. 2024.
"""

import triton
import triton.language as tl

from runtime.kernels.triton import decode, decode_e4m3


@triton.jit(do_not_specialize=["num_groups"])
def split(
    query, pages, scales, context_lengths, page_starts, page_ids, shared_tokens, group_tokens, group_members,
    partial, log_sums, num_groups,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr, MEMBERS: tl.constexpr,
    SHARED_SPLITS: tl.constexpr, OWN_SPLITS: tl.constexpr, SOFTMAX_SCALE: tl.constexpr,
    SCALED: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one part of what a group shares, or of what a sequence has for itself, for the queries of one key head.

    Programs of groups come first. `shared_tokens` [num_sequences]: how many of a sequence's tokens its group sees for it;
    `group_tokens` [num_groups], 0 of an empty one; `group_members` [num_groups, MEMBERS], -1 where there is none. `partial` is
    [num_sequences, HEADS, SHARED_SPLITS + OWN_SPLITS, HEAD_DIM] float32, `log_sums` the same without the last.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    program, kv_head = tl.program_id(0), tl.program_id(1)
    line, dim = tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_DIM)
    sequence, leader, start, end, length, part, place = _choose_part(
        program, line, context_lengths, shared_tokens, group_tokens, group_members, num_groups,
        GROUP, BLOCK_TOKENS, MEMBERS, SHARED_SPLITS, OWN_SPLITS,
    )  # fmt: skip
    table = page_ids + tl.load(page_starts + leader)
    first = start + part * length
    last = tl.minimum(first + length, end)
    # Most programs of groups have nothing to do, and may go before the wait: a sequence's own first part always waits.
    if first < end:
        if PDL:
            at = first + tl.arange(0, BLOCK_TOKENS)
            decode.prefetch(pages, table, kv_head, at, last, KV_HEADS, HEAD_DIM, PAGE_SIZE)
            tl.extra.cuda.gdc_wait()
        # In 32 bits, which saves a fifth of the registers: contexts are cut no further than fills the multiprocessors.
        row = sequence * HEADS + kv_head * GROUP + line % GROUP
        mask = (sequence >= 0)[:, None] & (dim < HEAD_DIM)[None, :]
        queries = tl.load(query + row[:, None] * HEAD_DIM + dim[None, :], mask=mask, other=0.0)
        # Scores are in base 2, so that the exponential is one instruction.
        factor = SOFTMAX_SCALE * 1.4426950408889634
        peak = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
        total = tl.zeros([BLOCK_ROWS], tl.float32)
        if SCALED:
            even, odd = tl.split(tl.reshape(queries.to(tl.float32), [BLOCK_ROWS, BLOCK_DIM // 2, 2]))
            even, odd, size = decode_e4m3.shrink_query(even, odd)
            sums_even = tl.zeros([BLOCK_ROWS, BLOCK_DIM // 2], tl.float32)
            sums_odd = tl.zeros([BLOCK_ROWS, BLOCK_DIM // 2], tl.float32)
            peak, total, sums_even, sums_odd = decode_e4m3.add_tokens(
                peak, total, sums_even, sums_odd, even, odd, size * factor * tl.load(scales), pages, table, kv_head,
                first, last, KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
            )  # fmt: skip
            sums = tl.reshape(tl.join(sums_even, sums_odd), [BLOCK_ROWS, BLOCK_DIM])
            sums *= (tl.load(scales + 1) / total)[:, None]
        else:
            sums = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
            peak, total, sums = decode.add_tokens(
                peak, total, sums, queries, factor, pages, table, kv_head, first, last,
                KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
            )  # fmt: skip
            sums = sums / total[:, None]
        where = row * (SHARED_SPLITS + OWN_SPLITS) + place
        tl.store(partial + where[:, None] * HEAD_DIM + dim[None, :], sums, mask=mask)
        tl.store(log_sums + where, peak + tl.log2(total), mask=sequence >= 0)


@triton.jit
def _choose_part(
    program, line, context_lengths, shared_tokens, group_tokens, group_members, num_groups,
    GROUP: tl.constexpr, BLOCK_TOKENS: tl.constexpr, MEMBERS: tl.constexpr,
    SHARED_SPLITS: tl.constexpr, OWN_SPLITS: tl.constexpr,
):  # fmt: skip
    """What a program computes.

    That is the sequence of each row (-1: none), one sequence whose pages hold the tokens, where these begin and end, the length of
    a part, the number of this part among its kind, and its place among a sequence's parts of both kinds.
    """
    own = program - num_groups * SHARED_SPLITS
    if own < 0:
        group, part = program // SHARED_SPLITS, program % SHARED_SPLITS
        start = part * 0
        end = tl.load(group_tokens + group)
        in_group = line < MEMBERS * GROUP
        sequence = tl.load(group_members + group * MEMBERS + line // GROUP, mask=in_group, other=-1)
        leader = tl.maximum(tl.load(group_members + group * MEMBERS), 0)
        pieces = (end + BLOCK_TOKENS - 1) // BLOCK_TOKENS
        length = (pieces + SHARED_SPLITS - 1) // SHARED_SPLITS * BLOCK_TOKENS
        place = part
    else:
        leader, part = own // OWN_SPLITS, own % OWN_SPLITS
        start = tl.load(shared_tokens + leader)
        end = tl.load(context_lengths + leader)
        sequence = tl.where(line < GROUP, leader, -1)
        pieces = (end - start + BLOCK_TOKENS - 1) // BLOCK_TOKENS
        length = (pieces + OWN_SPLITS - 1) // OWN_SPLITS * BLOCK_TOKENS
        place = SHARED_SPLITS + part
    return sequence, leader, start, end, length, part, place


@triton.jit
def merge(
    partial, log_sums, context_lengths, shared_tokens, out,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    SHARED_SPLITS: tl.constexpr, OWN_SPLITS: tl.constexpr, BLOCK_SPLITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one head of one sequence, its parts of both kinds weighted by their sums."""
    SPLITS: tl.constexpr = SHARED_SPLITS + OWN_SPLITS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    shared = tl.load(shared_tokens + tl.program_id(0))
    own = tl.load(context_lengths + tl.program_id(0)) - shared
    shared_pieces, own_pieces = (shared + BLOCK_TOKENS - 1) // BLOCK_TOKENS, (own + BLOCK_TOKENS - 1) // BLOCK_TOKENS
    shared_length = (shared_pieces + SHARED_SPLITS - 1) // SHARED_SPLITS * BLOCK_TOKENS
    own_length = (own_pieces + OWN_SPLITS - 1) // OWN_SPLITS * BLOCK_TOKENS
    part = tl.arange(0, BLOCK_SPLITS)
    is_shared = part < SHARED_SPLITS
    used = tl.where(is_shared, part * shared_length < shared, (part - SHARED_SPLITS) * own_length < own)
    used = used & (part < SPLITS)
    if PDL:
        tl.extra.cuda.gdc_wait()
    decode.join_parts(partial, log_sums, out, row, part, used, HEAD_DIM, BLOCK_DIM, SPLITS)
