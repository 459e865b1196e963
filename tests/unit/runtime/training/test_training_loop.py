"""Documents, optimizer, schedule and loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.training.documents import IGNORED, Documents, cut_rows, row_width
from runtime.training.gradients import CapturedGradients, ThreadedGradients
from runtime.training.llama import Llama, LlamaShape
from runtime.training.loop import Progress, Training, TrainingPlan
from runtime.training.muon import MuonAdamW, orthogonalize
from runtime.training.schedule import WarmHoldDecay

SHAPE = LlamaShape(
    vocab_size=31,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=64,
)


def counting_documents(first: int = 0, count: int = 60) -> Documents:
    """Rows that count upwards, modulo the vocabulary; the second half of each is learnt."""
    rows = [[(start + i) % 31 for i in range(6 + start % 9)] for start in range(first, first + count)]
    return Documents.of((row, [int(i >= len(row) // 2) for i in range(len(row))]) for row in rows)


def counting_steps(num_steps: int) -> Iterator[Documents]:
    """Twelve documents a step."""
    return (counting_documents(12 * step % 60, 12) for step in range(num_steps))


def train(num_steps: int, state: Path | None, *, stop_at: int | None = None, num_threads: int = 1) -> Llama:
    """Train a tiny model; `stop_at` interrupts as a killed process would."""
    model = Llama(SHAPE, 1)
    plan = TrainingPlan((num_steps,), tokens_per_block=64, num_warmup=5)
    gradients = ThreadedGradients(model, device="cpu", num_threads=num_threads)
    training = Training(model, counting_steps(num_steps), plan, gradients, state=state)

    def report(progress: Progress) -> None:
        if progress.step - 1 == stop_at:
            raise KeyboardInterrupt

    training.run(report, save_every=5)
    return model


def test_documents_shift_targets_and_pad() -> None:
    """A target is the next token where it is learnt, and ignored elsewhere and in the padding."""
    documents = Documents.of([([5, 6, 7, 8], [0, 0, 1, 1]), ([1, 2], [0, 1])])
    rows = documents.rows([0, 1])
    assert rows.tokens.tolist() == [[5, 6, 7], [1, 0, 0]]
    assert rows.targets.tolist() == [[IGNORED, 7, 8], [2, IGNORED, IGNORED]]


@pytest.mark.parametrize("document", [([1], [1]), ([1, 2], [1])])
def test_malformed_documents_are_refused(document: tuple[list[int], list[int]]) -> None:
    """One token teaches nothing, and flags must match."""
    with pytest.raises(ValueError, match="two tokens and a flag"):
        Documents.of([document])


@given(sizes=st.lists(st.integers(2, 40), min_size=1, max_size=30), budget=st.integers(1, 200), whole=st.booleans())
def test_blocks_hold_every_document_once(sizes: list[int], budget: int, whole: bool) -> None:
    """The learnt tokens of a step are those of its blocks; whole blocks of one width have one shape."""
    documents = Documents.of((list(range(size)), [1] * size) for size in sizes)
    blocks = list(cut_rows(documents, budget, whole=whole))
    learnt = sorted(int(token) for rows in blocks for token in rows.targets[rows.targets != IGNORED])
    assert learnt == sorted(token for size in sizes for token in range(1, size))
    assert len(learnt) == documents.num_learnt
    assert all(rows.tokens.numel() <= budget or len(rows.tokens) == 1 for rows in blocks)
    if whole:
        assert len({tuple(rows.tokens.shape) for rows in blocks}) == len({rows.tokens.shape[1] for rows in blocks})


@given(size=st.integers(1, 3000))
def test_row_widths_are_few_and_near(size: int) -> None:
    """A row is wide enough, and wastes at most a quarter or 15 positions."""
    assert size <= row_width(size) <= max(size + 15, size * 5 / 4)
    assert len({row_width(other) for other in range(1, 2049)}) <= 24


def test_unlaunched_graphs_and_threads_agree() -> None:
    """The GPU's way of summing, run on a CPU without graphs, gives the threads' gradient up to bfloat16."""
    model = Llama(SHAPE, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    plain = ThreadedGradients(model, device="cpu", num_threads=2)
    captured = CapturedGradients(model, device="cpu", captures=False)
    for documents in (counting_documents(0, 7), counting_documents(7, 30)):
        loss, gradients = plain(list(cut_rows(documents, 64)))
        other_loss, others = captured(list(cut_rows(documents, 64, whole=True)))
        torch.testing.assert_close(other_loss, loss, rtol=2e-2, atol=0.0)
        for one, other in zip(gradients, others, strict=True):
            assert float((one - other).norm()) < 0.05 * float(one.norm())


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_orthogonalized_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    """The quintic iteration brings all singular values between 0.5 and 1.4."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrix, 8))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4
    torch.testing.assert_close(orthogonalize(torch.stack((matrix, 3 * matrix)), 8)[1], orthogonalize(matrix, 8))


def test_embeddings_and_gains_are_left_to_adamw() -> None:
    """Muon takes hidden matrices only."""
    optimizer = MuonAdamW(Llama(SHAPE, 1).named_parameters())
    muon = {name.removesuffix(".momentum") for name in optimizer.state if name.endswith(".momentum")}
    assert "model.embed_tokens.weight" not in muon
    assert all(name.endswith("_proj.weight") for name in muon)
    assert len(muon) == 7


def test_schedule_warms_up_holds_and_falls_to_zero() -> None:
    """The held part is 1, the last step is small but not zero."""
    schedule = WarmHoldDecay((1000,), num_warmup=10, decay_share=0.4)
    scales = [schedule.scale(step) for step in range(1000)]
    assert scales[0] == pytest.approx(0.1)
    assert set(scales[10:600]) == {1.0}
    assert scales[600:] == sorted(scales[600:], reverse=True)
    assert 0 < scales[-1] < 0.01


def test_cycles_of_a_schedule_are_alike() -> None:
    """A second cycle starts from its own warm-up; after the last there is nothing."""
    one, two = WarmHoldDecay((40,), num_warmup=5), WarmHoldDecay((40, 40), num_warmup=5)
    assert [two.scale(step) for step in range(80)] == 2 * [one.scale(step) for step in range(40)]
    with pytest.raises(ValueError, match="ended 1 steps ago"):
        two.scale(80)


def test_training_learns() -> None:
    """The loss on counting falls to less than a third."""
    rows = counting_documents().rows(range(60))
    num_learnt = int((rows.targets >= 0).sum())
    trained = train(200, None)
    with torch.inference_mode():
        before = float(Llama(SHAPE, 1).loss(rows.tokens, rows.targets)) / num_learnt
        after = float(trained.loss(rows.tokens, rows.targets)) / num_learnt
    assert after < before / 3


@pytest.mark.parametrize("num_threads", [1, 2])
def test_training_is_repeatable(num_threads: int) -> None:
    """Two runs end with the same bits, whichever thread was faster."""
    first, second = train(8, None, num_threads=num_threads), train(8, None, num_threads=num_threads)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


def test_threads_share_a_step_without_changing_it() -> None:
    """Two threads give one thread's weights up to rounding."""
    one, two = train(3, None), train(3, None, num_threads=2)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-3, rtol=1e-3)


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    """A run that was cut off after step 13 continues from step 10 and ends bit for bit like one that was not."""
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(25, state, stop_at=13)
    resumed, whole = train(25, state), train(25, None)
    assert all(torch.equal(p, q) for p, q in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_too_few_documents_are_an_error() -> None:
    """A plan is never cut short in silence."""
    model = Llama(SHAPE, 1)
    training = Training(model, counting_steps(3), TrainingPlan((4,)), ThreadedGradients(model, device="cpu"))
    with pytest.raises(ValueError, match="a plan of 4 steps got documents for 3"):
        training.run(lambda progress: None)
