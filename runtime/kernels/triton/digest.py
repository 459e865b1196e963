"""BLAKE3 over bytes in device memory: one lane hashes a chunk of 1,024 bytes, one program a group of chunks and their tree.

A chunk is 16 blocks of 64 bytes, each compressed into the chaining value (CV) of those before; two CVs make their parent's. Where
a level of the tree has an odd number of nodes the last one stands on the next level as it is, which is the tree of the
specification (its left subtrees are as large as a power of 2 can be). So a group that is full is a whole subtree, whatever comes
behind it, and `hash_chunks` leaves one CV of each. `merge_nodes` makes one of a group of those, until one is left: the digest.

All integers are taken modulo 2**32. Source: BLAKE3, one function, fast everywhere (2021), sections 2.1 to 2.5.
"""

import triton
import triton.language as tl

# The first words of SHA-256's state (table 1).
_START_0 = tl.constexpr(0x6A09E667)
_START_1 = tl.constexpr(0xBB67AE85)
_START_2 = tl.constexpr(0x3C6EF372)
_START_3 = tl.constexpr(0xA54FF53A)
_START_4 = tl.constexpr(0x510E527F)
_START_5 = tl.constexpr(0x9B05688C)
_START_6 = tl.constexpr(0x1F83D9AB)
_START_7 = tl.constexpr(0x5BE0CD19)
# Flags (table 3).
_CHUNK_START = tl.constexpr(1)
_CHUNK_END = tl.constexpr(2)
_PARENT = tl.constexpr(4)
_ROOT = tl.constexpr(8)

_CHUNK_BYTES = tl.constexpr(1024)
_CHUNK_WORDS = tl.constexpr(256)
_BLOCKS = tl.constexpr(16)
_BLOCK_BYTES = tl.constexpr(64)
_BLOCK_WORDS = tl.constexpr(16)


@triton.jit(do_not_specialize=["size_bytes", "first_group", "is_root"])
def hash_chunks(content, nodes, size_bytes, first_group, is_root, GROUP: tl.constexpr):
    """One program: the CV of one group of chunks; of all that there are in the last one.

    `content` are words, little-endian, `size_bytes` of them counted in bytes and zeroes behind them up to the end of a chunk;
    `first_group` is the place of the first group in its file; `is_root` is 1 where this group is all of the file.
    """
    group = tl.program_id(0)
    lanes = tl.arange(0, GROUP)
    chunks = group * GROUP + lanes
    numbers = (first_group + group).to(tl.int64) * GROUP + lanes
    low, high = numbers.to(tl.uint32), (numbers >> 32).to(tl.uint32)
    # Lanes behind the end read nothing, and what they have is not merged. An empty file is one empty chunk.
    left_bytes = size_bytes - chunks * _CHUNK_BYTES
    num_chunks = tl.minimum(tl.maximum((size_bytes + _CHUNK_BYTES - 1) // _CHUNK_BYTES - group * GROUP, 1), GROUP)
    last_block = tl.minimum(tl.maximum((left_bytes + _BLOCK_BYTES - 1) // _BLOCK_BYTES, 1), _BLOCKS) - 1
    last_flags = tl.where((is_root != 0) & (num_chunks == 1), _CHUNK_END | _ROOT, _CHUNK_END).to(tl.uint32)
    cv = _start(lanes)
    for block in range(tl.max(last_block) + 1):
        words = content + chunks * _CHUNK_WORDS + block * _BLOCK_WORDS
        length = tl.minimum(tl.maximum(left_bytes - block * _BLOCK_BYTES, 0), _BLOCK_BYTES)
        flags = tl.where(block == 0, _CHUNK_START, 0).to(tl.uint32) | tl.where(block == last_block, last_flags, 0)
        found = _compress(cv, _load_block(words, length > 0), low, high, length.to(tl.uint32), flags.to(tl.uint32))
        cv = _choose(block <= last_block, found, cv)
    cv = _merge(cv, num_chunks, is_root, GROUP)
    _store(nodes + group * 8 + lanes, cv, lanes == 0)


@triton.jit(do_not_specialize=["count", "is_root"])
def merge_nodes(nodes, parents, count, is_root, GROUP: tl.constexpr):
    """One program: the CV of a group of neighbours, of all that there are in the last; `is_root` is 1 where it is the only one."""
    group = tl.program_id(0)
    lanes = tl.arange(0, GROUP)
    places = group * GROUP + lanes
    words = nodes + places * 8
    is_there = places < count
    cv = _load_half(words, is_there)
    cv = _merge(cv, tl.minimum(count - group * GROUP, GROUP), is_root, GROUP)
    _store(parents + group * 8 + lanes, cv, lanes == 0)


@triton.jit
def _merge(cv, count, is_root, GROUP: tl.constexpr):
    """In lane 0: one CV of the first `count` of a group of neighbours."""
    lanes = tl.arange(0, GROUP)
    zero = tl.zeros_like(lanes).to(tl.uint32)
    # Of a lane that is behind the last pair nothing is used.
    first = tl.minimum(2 * lanes, GROUP - 2)
    while count > 1:
        left, right = _gather(cv, first), _gather(cv, first + 1)
        flags = zero + tl.where((is_root != 0) & (count == 2), _PARENT | _ROOT, _PARENT).to(tl.uint32)
        parents = _compress(_start(lanes), left + right, zero, zero, zero + _BLOCK_BYTES, flags)
        cv = _choose(2 * lanes + 1 < count, parents, left)
        count = (count + 1) // 2
    return cv


@triton.jit
def _compress(cv, block, low, high, length, flags):
    """The next CV: seven rounds over four rows of four words, the block's words in another order each time (section 2.2)."""
    a0, a1, a2, a3, b0, b1, b2, b3 = cv
    c0, c1, c2, c3, _, _, _, _ = _start(length)
    d0, d1, d2, d3 = low, high, length, flags
    for _ in tl.static_range(7):
        m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15 = block
        a0, b0, c0, d0 = _mix(a0, b0, c0, d0, m0, m1)
        a1, b1, c1, d1 = _mix(a1, b1, c1, d1, m2, m3)
        a2, b2, c2, d2 = _mix(a2, b2, c2, d2, m4, m5)
        a3, b3, c3, d3 = _mix(a3, b3, c3, d3, m6, m7)
        a0, b1, c2, d3 = _mix(a0, b1, c2, d3, m8, m9)
        a1, b2, c3, d0 = _mix(a1, b2, c3, d0, m10, m11)
        a2, b3, c0, d1 = _mix(a2, b3, c0, d1, m12, m13)
        a3, b0, c1, d2 = _mix(a3, b0, c1, d2, m14, m15)
        block = (m2, m6, m3, m10, m7, m0, m4, m13, m1, m11, m12, m5, m9, m14, m15, m8)
    return a0 ^ c0, a1 ^ c1, a2 ^ c2, a3 ^ c3, b0 ^ d0, b1 ^ d1, b2 ^ d2, b3 ^ d3


@triton.jit
def _mix(a, b, c, d, x, y):
    a = a + b + x
    d ^= a
    d = (d >> 16) | (d << 16)
    c = c + d
    b ^= c
    b = (b >> 12) | (b << 20)
    a = a + b + y
    d ^= a
    d = (d >> 8) | (d << 24)
    c = c + d
    b ^= c
    return a, (b >> 7) | (b << 25), c, d


@triton.jit
def _start(like):
    zero = tl.zeros_like(like).to(tl.uint32)
    return (
        zero + _START_0, zero + _START_1, zero + _START_2, zero + _START_3,
        zero + _START_4, zero + _START_5, zero + _START_6, zero + _START_7,
    )  # fmt: skip


@triton.jit
def _load_block(words, mask):
    return _load_half(words, mask) + _load_half(words + 8, mask)


@triton.jit
def _load_half(words, mask):
    return (
        _word(words, mask), _word(words + 1, mask), _word(words + 2, mask), _word(words + 3, mask),
        _word(words + 4, mask), _word(words + 5, mask), _word(words + 6, mask), _word(words + 7, mask),
    )  # fmt: skip


@triton.jit
def _word(words, mask):
    return tl.load(words, mask=mask, other=0).to(tl.uint32, bitcast=True)


@triton.jit
def _store(words, cv, mask):
    for index in tl.static_range(8):
        tl.store(words + index, cv[index].to(tl.int32, bitcast=True), mask=mask)


@triton.jit
def _choose(condition, taken, otherwise):
    a0, a1, a2, a3, a4, a5, a6, a7 = taken
    b0, b1, b2, b3, b4, b5, b6, b7 = otherwise
    return (
        tl.where(condition, a0, b0), tl.where(condition, a1, b1), tl.where(condition, a2, b2), tl.where(condition, a3, b3),
        tl.where(condition, a4, b4), tl.where(condition, a5, b5), tl.where(condition, a6, b6), tl.where(condition, a7, b7),
    )  # fmt: skip


@triton.jit
def _gather(cv, lanes):
    """The words of other lanes."""
    a0, a1, a2, a3, a4, a5, a6, a7 = cv
    return (
        tl.gather(a0, lanes, 0), tl.gather(a1, lanes, 0), tl.gather(a2, lanes, 0), tl.gather(a3, lanes, 0),
        tl.gather(a4, lanes, 0), tl.gather(a5, lanes, 0), tl.gather(a6, lanes, 0), tl.gather(a7, lanes, 0),
    )  # fmt: skip
