"""A whole training: it learns, it resumes to the same weights, its state belongs to it alone."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runtime.errors import TrainingStopped
from runtime.training.draft.answers import Answered
from runtime.training.draft.course import HeadReport, cut_steps, train_head
from runtime.training.draft.plan import HeadPlan, Unrolling
from runtime.training.draft.state import TrainingState
from runtime.training.loop import Progress, pin_arithmetic
from tests.support.tiny_targets import TINY_LAYERS, write_tiny_target

PLAN = HeadPlan(
    draft_vocab_size=24,
    intermediate_size=24,
    layers=TINY_LAYERS,
    unrolling=Unrolling(3, 0.8),
    epochs=6,
    tokens_per_step=120,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target's folder."""
    pin_arithmetic(1)
    folder = tmp_path_factory.mktemp("target")
    write_tiny_target(folder)
    return folder


def texts(first: int, count: int) -> list[Answered]:
    """Prompts whose answers count upwards, in two kinds; no answer of the tiny target's own, but its loss does not mind."""
    return [
        Answered([3, start % 20], [(start + step) % 20 for step in range(1, 12)], kind="even" if start % 2 else "odd")
        for start in range(first, first + count)
    ]


def train(target: Path, out: Path, *, stop_at: int | None = None, plan: HeadPlan = PLAN) -> HeadReport:
    """Train with a state beside `out`; `stop_at` interrupts as a killed process would."""

    def report(progress: Progress) -> None:
        if progress.step - 1 == stop_at:
            raise KeyboardInterrupt

    state = TrainingState(out.with_name(f"{out.name}.state"), plan.describe())
    return train_head(
        target,
        texts(0, 40),
        texts(3, 4),
        plan,
        device="cpu",
        out=out,
        state=state,
        report=report,
        save_every=5,
        num_drafts=3,
    )


def test_resumed_training_gives_the_same_head(target: Path, tmp_path: Path) -> None:
    """Interrupted behind a saved step, it ends with the file of an uninterrupted run, bit for bit."""
    whole = train(target, tmp_path / "whole")
    assert whole.num_steps > 12
    with pytest.raises(KeyboardInterrupt):
        train(target, tmp_path / "cut", stop_at=11)
    assert not (tmp_path / "cut").exists()
    train(target, tmp_path / "cut")
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_head_learns_its_target(target: Path, tmp_path: Path) -> None:
    """The loss falls by a third, and the figures name each kind and all together."""
    losses = []
    state = TrainingState(tmp_path / "state", {})
    report = train_head(
        target,
        texts(0, 40),
        texts(3, 4),
        PLAN,
        device="cpu",
        out=tmp_path / "head",
        state=state,
        report=lambda progress: losses.append(progress.loss),
        num_drafts=3,
    )
    assert losses[-1] < losses[0] * 2 / 3
    assert [(figures.kind, figures.num_answers) for figures in report.kinds] == [("even", 2), ("odd", 2), ("all", 4)]
    assert report.kinds[-1].two_gram.length == pytest.approx(10 / 3)  # counting is what two-grams know
    assert report.coverage == 1.0
    assert report.num_answer_tokens == 440
    assert load_file(tmp_path / "head/model.safetensors")["lm_head.weight"].shape == (24, 32)


def test_steps_are_every_text_once_an_epoch_in_an_order_of_the_seed() -> None:
    """Another epoch, another order; the same seed, the same steps."""
    plan = HeadPlan(epochs=2, tokens_per_step=60, seed=4)

    def steps(plan: HeadPlan) -> list[list[list[int]]]:
        blocks = cut_steps(texts(0, 10), plan)
        return [[block.rows([index]).tokens[0].tolist() for index in range(len(block))] for block in blocks]

    first = steps(plan)
    assert first == steps(plan)
    assert first != steps(HeadPlan(epochs=2, tokens_per_step=60, seed=5))
    assert sum(map(len, first)) == 20
    half = len(first) // 2
    assert first[:half] != first[half:]
    assert sorted(chain(*first[:half])) == sorted(chain(*first[half:]))


def test_state_of_another_training_is_refused(tmp_path: Path) -> None:
    """What differs is named; the same plan goes on, and an ended training leaves nothing."""
    state = TrainingState(tmp_path / "state", {"seed": "1", "model": "a"})
    state.store_answers("training", 0, [[1, 2], []])
    assert TrainingState(tmp_path / "state", {"seed": "1", "model": "a"}).load_answers("training", 0) == [[1, 2], []]
    assert state.load_answers("training", 1) is None
    with pytest.raises(TrainingStopped, match="other model"):
        TrainingState(tmp_path / "state", {"seed": "1", "model": "b"})
    state.remove()
    assert not (tmp_path / "state").exists()


def test_damaged_state_is_named(tmp_path: Path) -> None:
    """A file that is no JSON is not taken for an absent one."""
    state = TrainingState(tmp_path / "state", {})
    (tmp_path / "state/training-000000.json").write_text("[[1,")
    with pytest.raises(TrainingStopped, match="training-000000"):
        state.load_answers("training", 0)


def test_state_on_a_full_disk_is_named() -> None:
    """Before anything is computed."""
    with pytest.raises(TrainingStopped, match="cannot be written"):
        TrainingState(Path("/dev/full/state"), {})


def test_answers_of_one_token_teach_nothing(target: Path, tmp_path: Path) -> None:
    """A head drafts from the second token on, so there must be one."""
    state = TrainingState(tmp_path / "state", {})
    with pytest.raises(TrainingStopped, match="two tokens"):
        train_head(
            target, [Answered([1], [2])], [], PLAN, device="cpu", out=tmp_path, state=state, report=lambda _: None
        )


def test_threads_change_nothing_but_last_digits(target: Path, tmp_path: Path) -> None:
    """Two threads sum in another order and end near the same weights."""
    one = train(target, tmp_path / "one", plan=HeadPlan(**{**vars(PLAN), "epochs": 1}))
    two = train(target, tmp_path / "two", plan=HeadPlan(**{**vars(PLAN), "epochs": 1, "num_threads": 2}))
    assert one.num_steps == two.num_steps
    weights = [load_file(tmp_path / name / "model.safetensors")["fc.weight"].float() for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=0.02, atol=0.02)
