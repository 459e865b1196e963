"""Tokens straight from logits: the argmax, or the argmax of logits over temperature plus the noise of (seed, position, id).

Two kernels: `block_candidates` finds the best of each block of the vocabulary, `choose` the best of these. The noise is
that of `runtime.sampling.noise`, whose hash is repeated here bit for bit. Its logarithms are taken in float32: u close to
1, where float32 cannot hold it, is seen as 1 - v, whose logarithm comes from a series in v. Noise so computed is within
2e-6 of the reference's, so only two scores as close as that can be chosen differently.

As in the reference the largest logit is subtracted before the division by the temperature. A block knows only its own
largest; `choose` computes the scores of the blocks' candidates again with that of the row.
"""

import triton
import triton.language as tl

_KEY_START_0 = tl.constexpr(0x9E3779B9)
_KEY_START_1 = tl.constexpr(0x85EBCA6B)


@triton.jit
def block_candidates(
    logits, temperatures, seeds, positions, block_largest, best_logits, best_noise, best_ids,
    VOCAB: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, DRAWN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: the candidate of one block of one row, and the block's largest logit, infinite if one is NaN.

    Without DRAWN every row is greedy, whatever its temperature.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, block = tl.program_id(0), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    ids = block * BLOCK + at
    values = tl.load(
        logits + row.to(tl.int64) * VOCAB + ids, mask=ids < VOCAB, other=-float("inf"), eviction_policy="evict_first"
    ).to(tl.float32)
    is_nan = values != values
    values = tl.where(is_nan, -float("inf"), values)
    largest, index = tl.max(values, axis=0, return_indices=True, return_indices_tie_break_left=True)
    best = largest
    noise = tl.full([], 0.0, tl.float32)
    if DRAWN:
        temperature = tl.load(temperatures + row)
        if temperature > 0.0:
            all_noise = _gumbel(ids, tl.load(seeds + row).to(tl.int64), tl.load(positions + row).to(tl.int64))
            # In a block without a finite value the difference would be NaN.
            shifted = tl.where(values == -float("inf"), -float("inf"), values - largest)
            scores = shifted / temperature + all_noise
            _, index = tl.max(scores, axis=0, return_indices=True, return_indices_tie_break_left=True)
            noise = tl.sum(tl.where(at == index, all_noise, 0.0))
            best = tl.max(tl.where(at == index, values, -float("inf")))
    broken = tl.max(is_nan.to(tl.int32)) > 0
    where = row * BLOCKS + block
    tl.store(block_largest + where, tl.where(broken, float("inf"), largest))
    tl.store(best_logits + where, best)
    tl.store(best_noise + where, noise)
    tl.store(best_ids + where, tl.minimum(block * BLOCK + index, VOCAB - 1))


@triton.jit
def choose(
    temperatures, block_largest, best_logits, best_noise, best_ids, token_ids, is_finite,
    BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: the token of one row, and 1 if the row's logits can be trusted, else 0."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    at = tl.arange(0, BLOCKS_PADDED)
    where, mask = row * BLOCKS + at, at < BLOCKS
    largest = tl.max(tl.load(block_largest + where, mask=mask, other=-float("inf")))
    values = tl.load(best_logits + where, mask=mask, other=-float("inf"))
    noise = tl.load(best_noise + where, mask=mask, other=0.0)
    temperature = tl.load(temperatures + row)
    temperature = tl.where(temperature > 0.0, temperature, 1.0)
    shifted = tl.where(values == -float("inf"), -float("inf"), values - largest)
    scores = shifted / temperature + noise
    _, index = tl.max(scores, axis=0, return_indices=True, return_indices_tie_break_left=True)
    chosen = tl.load(best_ids + row * BLOCKS + tl.minimum(index, BLOCKS - 1))
    tl.store(token_ids + row, chosen.to(token_ids.dtype.element_ty))
    finite = (largest > -float("inf")) & (largest < float("inf"))
    tl.store(is_finite + row, finite.to(is_finite.dtype.element_ty))


@triton.jit
def _gumbel(ids, seed, position):
    key_0 = _key(_KEY_START_0, seed, position)
    key_1 = _key(_KEY_START_1, seed, position)
    hashed = _mix(_mix(ids.to(tl.uint32) ^ key_0) + key_1)
    # u = (hashed + 0.5) / 2**32 and v = 1 - u, each exact to float32's relative precision.
    uniform = (hashed.to(tl.float32) + 0.5) * (1.0 / 4294967296.0)
    rest = ((hashed ^ 0xFFFFFFFF).to(tl.float32) + 0.5) * (1.0 / 4294967296.0)
    # -log(1 - v) = v + v**2 / 2 + v**3 / 3 + …; at v = 1/8 what is left out is below 2e-9 of it.
    series = 1.0 / 8.0
    for term in tl.static_range(7, 0, -1):
        series = series * rest + 1.0 / term
    exponential = tl.where(rest < 0.125, series * rest, -tl.log(uniform))
    return -tl.log(exponential)


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
