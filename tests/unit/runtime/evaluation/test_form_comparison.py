"""Figures of two forms of one model, against a plain restatement."""

import math
from pathlib import Path

import pytest
import torch

from runtime.errors import EngineMisconfigured
from runtime.evaluation.comparison import compare_models, score_places
from runtime.runner.whole_texts import WholeTexts, load_whole_texts
from tests.support.tiny_targets import write_tiny_target

TEXT = [(7 * place * place + 3) % 48 for place in range(60)]


def load(folder: Path, quantization: str = "auto", seed: int = 0) -> WholeTexts:
    """A tiny model, written for the purpose."""
    write_tiny_target(folder, seed)
    return load_whole_texts(folder, device="cpu", num_positions=64, quantization=quantization)


def test_figures_are_those_of_a_plain_restatement(tmp_path: Path) -> None:
    """Two windows of 40 and 20 tokens, all places but the first of each, one after the other, in float64."""
    before, after = load(tmp_path / "a"), load(tmp_path / "b", "fp8")
    divergences, agreed, losses = [], 0, [0.0, 0.0]
    for window in (TEXT[:40], TEXT[40:]):
        said = [
            model.logits(model.states(torch.tensor([window]))[-1])[0].double().softmax(-1) for model in (before, after)
        ]
        for place in range(len(window) - 1):
            one, other = said[0][place].tolist(), said[1][place].tolist()
            divergences.append(sum(p * math.log(p / q) for p, q in zip(one, other, strict=True)))
            agreed += one.index(max(one)) == other.index(max(other))
            for index, probabilities in enumerate((one, other)):
                losses[index] -= math.log(probabilities[window[place + 1]])
    seen = []
    found = compare_models(before, after, TEXT, window=40, report=lambda done, total: seen.append((done, total)))
    count = len(divergences)
    assert found.num_tokens == count == 58
    assert found.mean_divergence == pytest.approx(sum(divergences) / count, rel=1e-3)
    assert found.mean_divergence > 1e-5
    assert found.p99_divergence == pytest.approx(sorted(divergences)[int(0.99 * 57)], rel=1e-2)
    assert found.agreement == agreed / count
    assert found.reference_perplexity == pytest.approx(math.exp(losses[0] / count), rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(losses[1] / count), rel=1e-4)
    assert seen == [(40, 60), (60, 60)]


def test_a_model_agrees_with_itself(tmp_path: Path) -> None:
    """No divergence, full agreement, one perplexity."""
    model = load(tmp_path)
    found = compare_models(model, model, TEXT, window=64)
    assert (found.mean_divergence, found.p99_divergence, found.agreement) == (0.0, 0.0, 1.0)
    assert found.reference_perplexity == found.perplexity


def test_another_model_is_far_away(tmp_path: Path) -> None:
    """The figures tell a rounded model from a wrong one."""
    model = load(tmp_path / "a")
    rounded = compare_models(model, load(tmp_path / "b", "fp8"), TEXT, window=64)
    other = compare_models(model, load(tmp_path / "c", seed=5), TEXT, window=64)
    assert other.mean_divergence > 10 * rounded.mean_divergence
    assert other.agreement < rounded.agreement


def test_divergence_is_towards_the_changed_form() -> None:
    """D(reference || changed) of two coins, by hand."""
    coins = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    divergence, agrees, *losses = score_places(coins[:1], coins[1:], torch.tensor([1]))
    assert float(divergence) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert float(agrees) == 1.0
    assert [float(loss) for loss in losses] == pytest.approx([-math.log(0.5), -math.log(0.1)])


def test_text_without_a_place_to_score_is_refused(tmp_path: Path) -> None:
    """One token has nothing before it."""
    model = load(tmp_path)
    with pytest.raises(EngineMisconfigured, match="text of 1 tokens"):
        compare_models(model, model, [3], window=8)
