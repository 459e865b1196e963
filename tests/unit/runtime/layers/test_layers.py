"""The layers against their definitions, written out."""

import math

import pytest
import torch

from runtime.layers.activation import silu_and_multiply
from runtime.layers.norm import RMSNorm
from runtime.layers.rotary import RotaryTable, apply_rotary, rotary_frequencies
from runtime.weights.rope import RopeConfig

LLAMA3 = RopeConfig(
    500_000.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_norm_divides_by_the_root_mean_square() -> None:
    """x / sqrt(mean(x**2) + eps) * weight."""
    x, weight = rows(5, 12), rows(12) + 1
    expected = [[v / math.sqrt(sum(u * u for u in row) / 12 + 1e-3) for v in row] for row in x.double().tolist()]
    torch.testing.assert_close(RMSNorm(weight, 1e-3)(x), (torch.tensor(expected) * weight).float())


def test_activation_gates_the_second_half() -> None:
    """silu of the first half times the second."""
    x = rows(3, 10)
    gate, up = x[:, :5].double(), x[:, 5:].double()
    torch.testing.assert_close(
        silu_and_multiply(x.clone()).double(), gate / (1 + torch.exp(-gate)) * up, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("rope", [RopeConfig(10_000.0), RopeConfig(1_000.0, "linear", factor=4.0), LLAMA3])
def test_rotation_turns_pairs_by_their_angle(rope: RopeConfig) -> None:
    """The pair (i, i + dim/2) of position p, taken as a complex number, is multiplied by exp(1j * p * frequency_i)."""
    heads, positions = rows(4, 3, 8), torch.tensor([0, 1, 17, 63])
    cosines, sines = RotaryTable(rope, 8, 64, device=torch.device("cpu"), dtype=torch.float32).at(positions)
    pairs = torch.complex(heads[..., :4].double(), heads[..., 4:].double())
    angles = positions[:, None, None] * rotary_frequencies(rope, 8).double()
    expected = pairs * torch.polar(torch.ones_like(angles), angles)
    turned = apply_rotary(heads, cosines, sines).double()
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), -1), rtol=0, atol=1e-5)


def test_frequencies_follow_their_rules() -> None:
    """theta ** (-2i/dim); linear divides all; llama3 keeps short waves, slows long ones by the factor, and blends between."""
    plain = rotary_frequencies(RopeConfig(500_000.0), 128)
    torch.testing.assert_close(plain, torch.tensor([500_000.0 ** (-2 * i / 128) for i in range(64)]))
    assert torch.equal(rotary_frequencies(RopeConfig(500_000.0, "linear", factor=4.0), 128), plain / 4)
    scaled = rotary_frequencies(LLAMA3, 128)
    waves = 2 * math.pi / plain
    assert torch.equal(scaled[waves < 2048], plain[waves < 2048])
    assert torch.equal(scaled[waves > 8192], plain[waves > 8192] / 8)
    between = (waves > 2048) & (waves < 8192)
    assert bool(between.any())
    for frequency, wave, found in zip(plain[between], waves[between], scaled[between], strict=True):
        share = (8192 / wave - 1) / 3
        torch.testing.assert_close(found, share * frequency + (1 - share) * frequency / 8)


def test_the_table_does_not_depend_on_its_length() -> None:
    """A larger cache tabulates more positions and changes no bit of the others."""

    def table(num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        built = RotaryTable(LLAMA3, 24, num_positions, device=torch.device("cpu"), dtype=torch.float32)
        return built.at(torch.arange(50))

    for short, long in zip(table(50), table(5000), strict=True):
        assert torch.equal(short, long)
