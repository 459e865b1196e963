"""Gumbel noise as a function of (seed, position, token id): a counter-based hash, without any state.

Construction, all in unsigned 32-bit arithmetic:
    mix(x):   x ^= x >> 16;  x *= 0x21F0AAAD;  x ^= x >> 15;  x *= 0x735A2D97;  x ^= x >> 15
    key_i:    start from the constant START[i]; for each 32-bit word w of (seed low, seed high, position low, position
              high): key_i = mix(key_i ^ w)
    hash:     h = mix(mix(token_id ^ key_0) + key_1 mod 2**32)
    uniform:  u = (h + 0.5) / 2**32, exactly representable in float64 and never 0 or 1
    noise:    -log(-log(u)) in float64, rounded to float32
mix is a bijection, so for one seed all positions below 2**32 have different keys, and within one position all tokens
have different hashes. The two keys together keep two positions from seeing one another's noise in another order.

On every device the hash is the same to the bit: it is computed in int64 with both multipliers below 2**31, so no
product overflows. The logarithms of two devices may differ in the last bit of float64, which the rounding to float32
hides but for one element in some 10**8.

Noise lies between -3.2 and 22.9, so a token is never drawn whose logit over temperature is 26.1 below the best one's
(5e-12 of its probability).
Source of the multipliers: the two-round 32-bit hash of least bias in C. Wellons' hash-prospector (public domain). Gumbel-max:
Gumbel 1954; as a coupling for speculation: Daliri et al. 2024.
"""

import torch
from torch import Tensor

_START = (0x9E3779B9, 0x85EBCA6B)
_MASK = 0xFFFFFFFF
_SCALE = 2.0**-32


def noise_keys(seeds: Tensor, positions: Tensor) -> Tensor:
    """Keys of some rows.

    Args:
        seeds, positions: [n] int64, not negative.
    Returns: [n, 2] int64, each below 2**32. Capture-safe.
    """
    keys = []
    for start in _START:
        key = torch.full_like(seeds, start)
        for word in (seeds & _MASK, seeds >> 32, positions & _MASK, positions >> 32):
            key = _mix_(key ^ word)
        keys.append(key)
    return torch.stack(keys, dim=-1)


def uniform_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64.

    Args:
        keys: [n, 2] of `noise_keys`.
        token_ids: [m] int64.
    Returns: [n, m]. Capture-safe.
    """
    hashed = _mix_(token_ids ^ keys[:, :1])
    hashed = _mix_(hashed.add_(keys[:, 1:]).bitwise_and_(_MASK))
    return hashed.double().add_(0.5).mul_(_SCALE)


def gumbel_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, [n, m] float32; arguments as for `uniform_noise`. Capture-safe."""
    return uniform_noise(keys, token_ids).log_().neg_().log_().neg_().float()


def _mix_(values: Tensor) -> Tensor:
    """The bijection `mix` on int64 values below 2**32, in place."""
    values ^= values >> 16
    values *= 0x21F0AAAD
    values &= _MASK
    values ^= values >> 15
    values *= 0x735A2D97
    values &= _MASK
    values ^= values >> 15
    return values
