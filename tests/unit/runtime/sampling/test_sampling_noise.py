"""The noise: equal to its written definition, uniform, Gumbel, and independent across seeds, positions and tokens.

The statistical tests have fixed seeds, so each either always passes or always fails; on a sound hash with other seeds
each would fail with the stated probability.
"""

import math

import torch

from runtime.sampling.noise import gumbel_noise, noise_keys, uniform_noise

TOKENS = torch.arange(4096)


def uniforms(seeds: list[int], positions: list[int], token_ids: torch.Tensor = TOKENS) -> torch.Tensor:
    return uniform_noise(noise_keys(torch.tensor(seeds), torch.tensor(positions)), token_ids)


def defined_mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def defined_uniform(seed: int, position: int, token_id: int) -> float:
    keys = []
    for key in (0x9E3779B9, 0x85EBCA6B):
        for word in (seed % 2**32, seed >> 32, position % 2**32, position >> 32):
            key = defined_mix(key ^ word)
        keys.append(key)
    return (defined_mix((defined_mix(token_id ^ keys[0]) + keys[1]) % 2**32) + 0.5) / 2**32


def test_the_noise_is_the_documented_hash() -> None:
    """Whole-number arithmetic without bounds, done by the definition, gives the same uniforms to the bit."""
    for seed, position in ((0, 0), (1, 2), ((1 << 63) - 1, (1 << 40) + 5), (12345678901234567, 999)):
        ids = [0, 1, 77, 128_255]
        expected = [defined_uniform(seed, position, token_id) for token_id in ids]
        assert uniforms([seed], [position], torch.tensor(ids)).tolist() == [expected]


def test_the_noise_stays_what_it_is() -> None:
    """A seed a user noted down gives the same text after an upgrade: the values are part of the product."""
    keys = noise_keys(torch.tensor([42]), torch.tensor([7]))
    assert keys.tolist() == [[3467240202, 3703659792]]
    assert gumbel_noise(keys, torch.tensor([0, 1, 2047])).tolist() == [
        [-0.696136474609375, -0.9677494168281555, 1.5742576122283936]
    ]


def test_rows_are_computed_as_if_alone() -> None:
    """A row's uniforms do not depend on which rows come with it."""
    seeds, positions = list(range(50, 70)), list(range(20))
    together = uniforms(seeds, positions)
    for row, (seed, position) in enumerate(zip(seeds, positions, strict=True)):
        assert torch.equal(together[row : row + 1], uniforms([seed], [position]))


def chi_square_quantile(degrees: int, normal_quantile: float) -> float:
    """Wilson and Hilferty's approximation, good to a fraction of a percent for the degrees used here."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + normal_quantile * math.sqrt(spread)) ** 3


def chi_square(counts: torch.Tensor, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_uniforms_are_uniform() -> None:
    """Chi-square over 256 bins of 2**18 values; false-alarm rate 1e-4 for each of three ways of taking them.

    Along tokens, along positions (of one seed and token) and along seeds: counters in a row are the hard case.
    """
    count = 1 << 18
    along = {
        "tokens": uniforms([1], [1], torch.arange(count))[0],
        "positions": uniforms([9] * count, list(range(count)), torch.tensor([17]))[:, 0],
        "seeds": uniforms(list(range(count)), [3] * count, torch.tensor([17]))[:, 0],
    }
    for name, values in along.items():
        counts = torch.bincount((values * 256).long(), minlength=256).double()
        assert chi_square(counts, count / 256) < chi_square_quantile(255, 3.719), name


def test_neighbours_are_independent() -> None:
    """Chi-square over 32 x 32 cells of pairs (u, u of the next token, position or seed); false-alarm rate 1e-4 each."""
    count, bins = 1 << 18, 32
    pairs = {
        "tokens": (uniforms([5], [5], torch.arange(count))[0], uniforms([5], [5], torch.arange(1, count + 1))[0]),
        "positions": (uniforms([5], [5], torch.arange(count))[0], uniforms([5], [6], torch.arange(count))[0]),
        "seeds": (uniforms([5], [5], torch.arange(count))[0], uniforms([6], [5], torch.arange(count))[0]),
        "seed_and_position": (uniforms([5], [6], torch.arange(count))[0], uniforms([6], [5], torch.arange(count))[0]),
    }
    for name, (first, second) in pairs.items():
        cells = (first * bins).long() * bins + (second * bins).long()
        counts = torch.bincount(cells, minlength=bins * bins).double()
        assert chi_square(counts, count / bins**2) < chi_square_quantile(bins**2 - 1, 3.719), name


def test_noise_is_gumbel() -> None:
    """Kolmogorov-Smirnov distance of 2**18 values from exp(-exp(-x)); false-alarm rate 1e-4 (2.225 / sqrt(n))."""
    count = 1 << 18
    values = gumbel_noise(noise_keys(torch.tensor([3]), torch.tensor([4])), torch.arange(count))[0].double()
    distribution = torch.exp(-torch.exp(-values.sort().values))
    steps = torch.arange(count + 1) / count
    distance = torch.maximum((steps[1:] - distribution).max(), (distribution - steps[:-1]).max())
    assert float(distance) < 2.225 / math.sqrt(count)
