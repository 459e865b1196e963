"""The choice of tokens, compared with a slow and obvious reference and with the distribution it should have."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from runtime.sampling.masks import mask_unlikely
from runtime.sampling.noise import gumbel_noise, noise_keys
from runtime.sampling.penalties import apply_penalties
from runtime.sampling.sampler import Sampler
from tests.support.step_batches import sampling_batch

CPU = torch.device("cpu")


def random_logits(num_rows: int, vocab_size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


def sample(logits: torch.Tensor, **given: Any) -> list[int]:
    sampler = Sampler(logits.shape[1], CPU)
    chosen: list[int] = sampler.sample(logits, sampling_batch(len(logits), **given)).token_ids.tolist()
    return chosen


def kept_by_definition(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> set[int]:
    """Temperature, then top-k, then top-p over what is left, then min-p, token by token in float64."""
    scaled = logits.astype(np.float64) / temperature
    order = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))[: top_k or None]
    weights = np.exp(scaled[order] - scaled[order[0]])
    weights /= weights.sum()
    kept, total = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        if kept and total >= top_p and top_p < 1:
            break
        kept.append(token)
        total += weight
    floor = min_p * math.exp(scaled[order[0]])
    return {token for token in kept if math.exp(scaled[token]) >= floor * (1 - 1e-9)}


@pytest.mark.parametrize("top_k", [0, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-6, 0.0])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 1.0])
def test_masks_keep_what_their_definition_keeps(top_k: int, top_p: float, min_p: float) -> None:
    """In the documented order, over random rows."""
    logits = random_logits(6, 50)
    shifted = (logits - logits.amax(-1, keepdim=True)) / 0.7
    masked = mask_unlikely(shifted.clone(), sampling_batch(6, top_k=top_k, top_p=top_p, min_p=min_p))
    for row, values, before in zip(logits.numpy(), masked, shifted, strict=True):
        kept = set(torch.isfinite(values).nonzero()[:, 0].tolist())
        assert kept == kept_by_definition(row, 0.7, top_k, top_p, min_p)
        assert torch.equal(values[sorted(kept)], before[sorted(kept)])


def test_masks_of_a_row_leave_other_rows_alone() -> None:
    """Each row has its own limits."""
    scaled = random_logits(3, 40) - 20
    masked = mask_unlikely(scaled.clone(), sampling_batch(3, top_k=[0, 2, 0], top_p=[1, 1, 0.5], min_p=[0, 0, 0]))
    assert torch.equal(masked[0], scaled[0])
    assert torch.isfinite(masked[1]).sum() == 2


def test_equal_logits_at_a_limit_keep_lower_ids() -> None:
    """Exactly k survive top-k."""
    masked = mask_unlikely(torch.zeros(1, 8), sampling_batch(1, top_k=3))
    assert torch.isfinite(masked[0]).tolist() == [True] * 3 + [False] * 5


def penalized_by_definition(
    row: list[float], seen: dict[int, tuple[int, int]], frequency: float, presence: float, repetition: float
) -> list[float]:
    result = list(row)
    for token, (in_prompt, in_output) in seen.items():
        assert in_prompt + in_output
        result[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
        result[token] -= frequency * in_output + (presence if in_output else 0.0)
    return result


def test_penalties_follow_their_definition() -> None:
    """Repetition over prompt and output, frequency and presence over output, bias added, bans last."""
    logits = random_logits(3, 12)
    seen = {0: {1: (2, 0), 5: (0, 3)}, 2: {5: (1, 1), 7: (1, 0), 11: (0, 1)}}
    entries = [(row, token, *counts) for row, tokens in seen.items() for token, counts in tokens.items()]
    rows, ids, in_prompt, in_output = (list(column) for column in zip(*entries, strict=True))
    penalties: dict[str, list[float]] = {
        "frequency_penalty": [0.5, 0.0, -0.3],
        "presence_penalty": [0.2, 0.0, 1.0],
        "repetition_penalty": [1.3, 1.0, 0.8],
    }
    batch = sampling_batch(
        3, **penalties, seen_rows=rows, seen_ids=ids, seen_prompt_counts=in_prompt, seen_output_counts=in_output,
        bias_rows=[1, 2], bias_ids=[3, 5], bias_values=[4.0, -100.0], banned_rows=[0, 1], banned_ids=[1, 3],
    )  # fmt: skip
    expected = [
        penalized_by_definition(
            logits[row].tolist(), seen.get(row, {}), *(values[row] for values in penalties.values())
        )
        for row in range(3)
    ]
    expected[1][3] += 4.0
    expected[2][5] -= 100.0
    expected[0][1] = expected[1][3] = -math.inf
    before = logits.clone()
    torch.testing.assert_close(apply_penalties(logits, batch), torch.tensor(expected))
    assert torch.equal(logits, before)


def test_temperature_zero_takes_the_largest_after_penalties() -> None:
    """Greedy choice ignores noise and masks, heeds bias and bans, and takes the lowest id among equals."""
    logits = torch.tensor([[1.0, 5.0, 5.0, 2.0]] * 3)
    assert sample(logits, banned_rows=[1], banned_ids=[1], bias_rows=[2], bias_ids=[3], bias_values=[9.0]) == [1, 2, 3]
    assert sample(logits, top_k=1, min_p=0.5, seed=[1, 2, 3]) == [1, 1, 1]


def test_the_token_is_the_documented_argmax() -> None:
    """argmax(logits/temperature + noise(seed, position, id)), for many seeds and positions."""
    logits = random_logits(1, 300).expand(200, 300).contiguous()
    seeds, positions = np.arange(200) * 10**15, np.arange(200)[::-1] * 37
    keys = noise_keys(torch.from_numpy(seeds), torch.from_numpy(positions.copy()))
    expected = (logits / 0.8 + gumbel_noise(keys, torch.arange(300))).argmax(-1).tolist()
    assert sample(logits, temperature=0.8, seed=seeds, position=positions) == expected


def test_tiny_and_huge_temperatures_are_sound() -> None:
    """A temperature just above 0 is greedy rather than an overflow; a huge one draws uniformly from what is left."""
    logits = random_logits(64, 50)
    assert sample(logits, temperature=1e-38, seed=range(64)) == logits.argmax(-1).tolist()
    assert len(set(sample(logits[:1].expand(64, 50), temperature=100.0, top_k=20, seed=range(64)))) > 10


@pytest.mark.parametrize("vocab_size", [64, 199, 2048])
def test_a_row_is_sampled_as_if_alone(vocab_size: int) -> None:
    """Tokens are the same to the id, and masked scores to the bit, whatever other rows there are."""
    num_rows = 37
    logits = random_logits(num_rows, vocab_size)
    generator = np.random.default_rng(1)
    given: dict[str, Any] = {
        "temperature": generator.choice([0.0, 0.5, 1.0, 1.7], num_rows),
        "top_k": generator.choice([0, 3, 40], num_rows),
        "top_p": generator.choice([1.0, 0.9], num_rows),
        "min_p": generator.choice([0.0, 0.05], num_rows),
        "seed": generator.integers(0, 1 << 62, num_rows),
        "position": generator.integers(0, 5000, num_rows),
    }
    together = sample(logits, **given)
    for row in range(num_rows):
        assert sample(logits[row : row + 1], **{name: values[row] for name, values in given.items()}) == [together[row]]
    masked = mask_unlikely(logits - logits.amax(-1, keepdim=True), sampling_batch(num_rows, top_p=0.9, top_k=30))
    for row in range(num_rows):
        alone = logits[row : row + 1] - logits[row : row + 1].amax(-1, keepdim=True)
        assert torch.equal(mask_unlikely(alone, sampling_batch(1, top_p=0.9, top_k=30))[0], masked[row])


@pytest.mark.parametrize(
    ("given", "vary"),
    [
        ({"temperature": 1.0}, "seed"),
        ({"temperature": 1.0}, "position"),
        ({"temperature": 0.6, "top_k": 7}, "seed"),
        ({"temperature": 1.4, "top_p": 0.8, "min_p": 0.01}, "position"),
    ],
)
def test_frequencies_are_those_of_the_distribution(given: dict[str, Any], vary: str) -> None:
    """Chi-square of 8,000 draws against softmax over what the masks keep; false-alarm rate 1e-4 each."""
    count, vocab_size = 8_000, 24
    row = random_logits(1, vocab_size, seed=5) / 2
    drawn = sample(row.expand(count, vocab_size).contiguous(), **given, **{vary: np.arange(count) + 10**9})
    kept = sorted(
        kept_by_definition(
            row[0].numpy(),
            given["temperature"],
            given.get("top_k", 0),
            given.get("top_p", 1.0),
            given.get("min_p", 0.0),
        )
    )
    probabilities = torch.softmax(row[0, kept].double() / given["temperature"], -1).numpy()
    counts = np.bincount(drawn, minlength=vocab_size)
    assert counts.sum() == counts[kept].sum()
    expected = probabilities * count
    large = expected >= 5
    observed, wanted = counts[kept][large], expected[large]
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    degrees = large.sum() - 1
    limit = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3
    assert statistic < limit


def test_rows_that_are_not_finite_are_told() -> None:
    """NaN, plus infinity, nothing but minus infinity, or everything banned: told, with an id inside the vocabulary."""
    logits = torch.zeros(6, 4)
    logits[1, 2] = torch.nan
    logits[2, 0] = torch.inf
    logits[3] = -torch.inf
    logits[4, :3] = -torch.inf
    given = {"banned_rows": [5] * 4, "banned_ids": range(4)}
    for temperature in (0.0, 1.0):
        result = Sampler(4, CPU).sample(logits, sampling_batch(6, temperature=temperature, **given))
        assert result.is_finite.tolist() == [True, False, False, False, True, False]
        assert int(result.token_ids[4]) == 3
        assert bool(((result.token_ids >= 0) & (result.token_ids < 4)).all())


def test_rows_that_ask_for_more_are_sampled_as_if_they_were_alone() -> None:
    """A batch's demanding rows by themselves are chosen as among the others, with what its sparse fields say of them."""
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))
    given: dict[str, Any] = {
        "temperature": [0.0, 0.8, 0.8, 0.0, 1.0, 1.0], "top_p": [1.0, 0.5, 1.0, 0.5, 1.0, 1.0], "seed": [1, 2, 3, 4, 5, 6],
        "position": [9, 8, 7, 6, 5, 4],
    }  # fmt: skip
    favoured = np.array([20, 30], np.int32)
    whole = replace(
        sampling_batch(6, **given), bias_rows=np.array([3, 5], np.int32), bias_ids=favoured,
        bias_values=np.array([50.0, 50.0], np.float32), banned_rows=np.array([0], np.int32),
        banned_ids=np.array([int(logits[0].argmax())], np.int32),
    )  # fmt: skip
    rows = whole.demanding_rows()
    assert rows.tolist() == [0, 1, 3, 5]
    sampler = Sampler(50, CPU)
    expected = sampler.sample(logits, whole).token_ids[rows]
    assert torch.equal(sampler.sample(logits[rows], whole.select(rows)).token_ids, expected)
    assert expected[2:].tolist() == favoured.tolist()
