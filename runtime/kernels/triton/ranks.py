"""Sums and rows over ranks, each on a GPU of its own that reads the others' memory (NVLink).

What a rank gives lies in memory that all can read. A program first meets the programs of its number on all ranks: it writes how
often it has met into a word of each rank's memory, and waits until theirs say the same. Kernels are enqueued behind what
gave the parts, so whoever has met may read all of every rank's part. All ranks add in the same order, and have the same bits.

A sum does not wait again at its end. Whoever writes the next part uses other memory; by the time it writes here again it has met
all ranks once more, which they do behind their last read. `join` does wait, as one may follow another at once.

Counts of meetings wrap around; their differences are small. Programs that wait keep their multiprocessors, so there are never
more of them than fit at once.
"""

import triton
import triton.language as tl


@triton.jit
def add_sum(
    hidden, parts, flags, counts, rank, units,
    UNIT: tl.constexpr, RANKS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """hidden[0 : units * UNIT] += the sum of all ranks' parts, rounded once; programs take blocks in turn.

    Threads read whole units at once, as the size is seen to be one of units: NVLink is ten times as slow by single elements.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    _meet(flags, counts, rank, RANKS)
    size = units * UNIT
    for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < size
        total = tl.zeros((BLOCK,), tl.float32)
        for other in tl.static_range(RANKS):
            part = tl.multiple_of(tl.load(parts + other).to(tl.pointer_type(hidden.dtype.element_ty)), 16)
            total += tl.load(part + at, mask=mask, other=0.0, cache_modifier=".cg").to(tl.float32)
        values = tl.load(hidden + at, mask=mask, other=0.0).to(tl.float32) + total
        tl.store(hidden + at, values.to(hidden.dtype.element_ty), mask=mask)


@triton.jit
def add_sum_by_slices(
    hidden, parts, flags, counts, rank, units,
    UNIT: tl.constexpr, RANKS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The same where a part is large and ranks are many, over `units` of each slice: of four ranks it
    reads half as much.

    Hidden has a slice for each rank. A rank adds up its own, and leaves it in its own part, where the others fetch it: nobody
    else reads that slice of its part before, and the program that fetches a block has met the one that made it.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    _meet(flags, counts, rank, RANKS)
    size = units * UNIT
    first = rank * size
    own = tl.multiple_of(tl.load(parts + rank).to(tl.pointer_type(hidden.dtype.element_ty)), 16)
    for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < size
        total = tl.zeros((BLOCK,), tl.float32)
        for other in tl.static_range(RANKS):
            part = tl.multiple_of(tl.load(parts + other).to(tl.pointer_type(hidden.dtype.element_ty)), 16)
            total += tl.load(part + first + at, mask=mask, other=0.0, cache_modifier=".cg").to(tl.float32)
        values = tl.load(hidden + first + at, mask=mask, other=0.0).to(tl.float32) + total
        tl.store(own + first + at, values.to(hidden.dtype.element_ty), mask=mask)
    tl.debug_barrier()
    _meet(flags, counts, rank, RANKS)
    for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < size
        for other in tl.static_range(RANKS):
            part = tl.multiple_of(tl.load(parts + other).to(tl.pointer_type(hidden.dtype.element_ty)), 16)
            values = tl.load(part + other * size + at, mask=mask, cache_modifier=".cg")
            tl.store(hidden + other * size + at, values, mask=mask)


@triton.jit
def join(
    out, parts, flags, counts, rank, rows,
    WIDTH: tl.constexpr, RANKS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [rows, RANKS * WIDTH] = all ranks' parts [rows, WIDTH] side by side; programs take blocks of rows in turn."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    _meet(flags, counts, rank, RANKS)
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    for index in range(tl.program_id(0), rows * blocks, tl.num_programs(0)):
        row = index // blocks
        at = (index % blocks) * BLOCK + tl.arange(0, BLOCK)
        mask = at < WIDTH
        for other in tl.static_range(RANKS):
            part = tl.multiple_of(tl.load(parts + other).to(tl.pointer_type(out.dtype.element_ty)), 16)
            values = tl.load(part + row * WIDTH + at, mask=mask, cache_modifier=".cg")
            tl.store(out + row * (RANKS * WIDTH) + other * WIDTH + at, values, mask=mask)
    tl.debug_barrier()
    _meet(flags, counts, rank, RANKS)


@triton.jit
def _meet(flags, counts, rank, RANKS: tl.constexpr):
    """Wait for the programs of this number on all ranks.

    `flags` are the addresses of each rank's words, [program, rank that writes]; `counts` this rank's own meetings.
    """
    program = tl.program_id(0)
    met = tl.atomic_add(counts + program, 1, sem="relaxed", scope="gpu") + 1
    for other in tl.static_range(RANKS):
        theirs = tl.load(flags + other).to(tl.pointer_type(tl.int32))
        tl.atomic_xchg(theirs + program * RANKS + rank, met, sem="release", scope="sys")
    own = tl.load(flags + rank).to(tl.pointer_type(tl.int32))
    for other in tl.static_range(RANKS):
        while tl.atomic_add(own + program * RANKS + other, 0, sem="acquire", scope="sys") - met < 0:
            pass
