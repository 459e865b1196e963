"""Tokens straight from logits: the argmax, or the argmax of logits over temperature plus the noise of (seed, position, id).

Two kernels: `block_candidates` finds the best of each block of the vocabulary, `choose` the best of these. The noise is
that of `runtime.sampling.noise`, whose hash is repeated here bit for bit.

The argmax of x + noise is the argmin of e * exp(-x), where noise = -log(e) and e = -log(u): one logarithm less for each
token of the vocabulary. float32 cannot hold a u close to 1; there e comes from a series in v = 1 - u. e * exp(-x) so
computed has a relative error below 2e-6, so only two scores as close as that can be chosen differently than by the
reference. `choose` computes the scores of the candidates themselves, after subtracting the row's largest logit as the
reference does.
"""

import triton
import triton.language as tl

_KEY_START_0 = tl.constexpr(0x9E3779B9)
_KEY_START_1 = tl.constexpr(0x85EBCA6B)


@triton.jit
def block_candidates(
    logits, temperatures, seeds, positions, block_largest, best_logits, best_ids,
    VOCAB: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, DRAWN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: the candidate of one block of one row, and the block's largest logit, infinite if one is NaN.

    Without DRAWN every row is greedy, whatever its temperature. What a block with an infinite logit gives means nothing,
    but is a token of the vocabulary.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, block = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    ids = block * BLOCK + at
    source = logits + row.to(tl.int64) * VOCAB
    values = tl.load(source + ids, mask=ids < VOCAB, other=-float("inf"), eviction_policy="evict_first").to(tl.float32)
    values = tl.where(values != values, float("inf"), values)
    largest = tl.max(values)
    index = tl.min(tl.where(values == largest, at, BLOCK))
    if DRAWN:
        temperature = tl.load(temperatures + row)
        if temperature > 0.0:
            # In a block without a finite value the difference to the largest would be NaN.
            shifted = values - tl.where(largest == -float("inf"), 0.0, largest)
            hashed = _hash(ids, tl.load(seeds + row).to(tl.int64), tl.load(positions + row).to(tl.int64))
            race = _exponential(hashed) * tl.exp2(shifted * (-1.4426950408889634 / temperature))
            index = tl.min(tl.where(race == tl.min(race), at, BLOCK))
    best = tl.minimum(block * BLOCK + index, VOCAB - 1)
    where = row * BLOCKS + block
    tl.store(block_largest + where, largest)
    tl.store(best_logits + where, tl.load(source + best).to(tl.float32))
    tl.store(best_ids + where, best)


@triton.jit
def choose(
    temperatures, seeds, positions, block_largest, best_logits, best_ids, token_ids, is_finite,
    BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr, DRAWN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: the token of one row, and 1 if the row's logits can be trusted, else 0."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    at = tl.arange(0, BLOCKS_PADDED)
    where, mask = row * BLOCKS + at, at < BLOCKS
    largest = tl.max(tl.load(block_largest + where, mask=mask, other=-float("inf")))
    scores = tl.load(best_logits + where, mask=mask, other=-float("inf"))
    ids = tl.load(best_ids + where, mask=mask, other=0)
    if DRAWN:
        temperature = tl.load(temperatures + row)
        if temperature > 0.0:
            hashed = _hash(ids, tl.load(seeds + row).to(tl.int64), tl.load(positions + row).to(tl.int64))
            shifted = tl.where(scores == -float("inf"), -float("inf"), scores - largest)
            scores = shifted / temperature - tl.log(_exponential(hashed))
    index = tl.min(tl.where(scores == tl.max(scores), at, BLOCKS_PADDED))
    chosen = tl.load(best_ids + row * BLOCKS + tl.minimum(index, BLOCKS - 1))
    tl.store(token_ids + row, chosen.to(token_ids.dtype.element_ty))
    finite = (largest > -float("inf")) & (largest < float("inf"))
    tl.store(is_finite + row, finite.to(is_finite.dtype.element_ty))


@triton.jit
def _exponential(hashed):
    """-log(u), where u = (hashed + 0.5) / 2**32."""
    uniform = hashed.to(tl.float32) * (1.0 / 4294967296.0) + (0.5 / 4294967296.0)
    rest = (hashed ^ 0xFFFFFFFF).to(tl.float32) * (1.0 / 4294967296.0) + (0.5 / 4294967296.0)
    # -log(1 - v) = v + v**2 / 2 + v**3 / 3 + …; at v = 1/8 what is left out is below 1e-7 of it.
    series = 1.0 / 7.0
    for term in tl.static_range(6, 0, -1):
        series = series * rest + 1.0 / term
    return tl.where(rest < 0.125, series * rest, tl.log2(uniform) * -0.6931471805599453)


@triton.jit
def _hash(ids, seed, position):
    key_0 = _key(_KEY_START_0, seed, position)
    key_1 = _key(_KEY_START_1, seed, position)
    return _mix(_mix(ids.to(tl.uint32) ^ key_0) + key_1)


@triton.jit
def _key(start, seed, position):
    key = tl.full([], start, tl.uint32)
    key = _mix(key ^ seed.to(tl.uint32))
    key = _mix(key ^ (seed >> 32).to(tl.uint32))
    key = _mix(key ^ position.to(tl.uint32))
    return _mix(key ^ (position >> 32).to(tl.uint32))


@triton.jit
def _mix(values):
    values ^= values >> 16
    values *= 0x21F0AAAD
    values ^= values >> 15
    values *= 0x735A2D97
    return values ^ (values >> 15)
