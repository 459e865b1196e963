"""A head that was trained here drafts in our own engine, and exactly as well as its training said that it would."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import CheckpointRejected
from runtime.request import RequestSummary
from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from runtime.speculative.source import HeadSource
from runtime.training.draft.acceptance import Rounds, TwoGrams
from runtime.training.draft.answers import Answered
from runtime.training.draft.checkpoint import load_head_tensors
from runtime.training.draft.course import build_head, train_head
from runtime.training.draft.measuring import head_hits
from runtime.training.draft.plan import HeadPlan, Unrolling
from runtime.training.draft.state import TrainingState
from runtime.training.draft.target import load_target
from runtime.training.draft.trainee import DraftTrainee
from runtime.training.draft.vocabulary import choose_vocabulary
from tests.support.engine_runs import ask, build_engine
from tests.support.tiny_targets import TINY, TINY_LAYERS, write_tiny_target

EOS, NUM_DRAFTS, MAX_TOKENS, NUM_PROMPTS = 2, 3, 24, 40
PLAN = HeadPlan(
    draft_vocab_size=40,
    intermediate_size=40,
    layers=TINY_LAYERS,
    unrolling=Unrolling(NUM_DRAFTS),
    epochs=12,
    tokens_per_step=300,
)
SETTINGS = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_num_steps": NUM_DRAFTS,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": NUM_DRAFTS + 1,
    "speculative_adaptive": False,
    "disable_radix_cache": True,
}


def prompts() -> list[list[int]]:
    """Prompts of 2 to 5 tokens."""
    return [[3 + (7 * number + place * place) % 45 for place in range(2 + number % 4)] for number in range(NUM_PROMPTS)]


def serve(runner: TorchRunner, **settings: object) -> tuple[list[list[int]], list[RequestSummary]]:
    """Greedy answers to all prompts, and what the engine counted for each."""
    engine = build_engine(runner, eos_token_ids=[EOS], context_length=90, **settings)
    answers: list[list[int]] = [[] for _ in prompts()]
    summaries: list[RequestSummary] = []
    for number, prompt in enumerate(prompts()):
        engine.submit(ask(number, prompt, temperature=0.0, max_tokens=MAX_TOKENS, ignore_eos=True))
    while engine.has_work:
        output = engine.step()
        for number, _, token in output.plain:
            answers[number].append(token)
        for delivery in output.tokens:
            answers[delivery.request_id] += delivery.token_ids
        summaries += output.summaries
    return answers, sorted(summaries, key=lambda summary: summary.request_id)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    write_tiny_target(folder)
    return folder


@pytest.fixture(scope="module")
def answered(target: Path) -> list[Answered]:
    answers, _ = serve(build_runner(target, num_pages=80))
    return [Answered(prompt, answer) for prompt, answer in zip(prompts(), answers, strict=True)]


@pytest.fixture(scope="module")
def head(target: Path, answered: list[Answered], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the very answers that it will draft, so that it has something to offer."""
    out = tmp_path_factory.mktemp("head")
    state = TrainingState(out / "state", {})
    train_head(target, answered, answered, PLAN, device="cpu", out=out, state=state, report=lambda _: None)
    state.remove()
    return out


def hits_on_paper(target: Path, head: Path, answered: list[Answered]) -> list[Rounds]:
    """Rounds of each answer, by the training's own measure of the stored head."""
    loaded = load_target(target, device="cpu", num_positions=80)
    vocabulary = choose_vocabulary([], vocab_size=48, draft_vocab_size=40, always=[])
    network = build_head(loaded, vocabulary, PLAN)
    trainee = DraftTrainee(network, loaded, load_head_tensors(network, head), PLAN.unrolling)
    rounds = [Rounds(NUM_DRAFTS) for _ in answered]
    for one, hits in zip(rounds, head_hits(trainee, answered, NUM_DRAFTS), strict=True):
        one.add(hits)
    return rounds


def test_rounds_served_are_the_rounds_on_paper(target: Path, head: Path, answered: list[Answered]) -> None:
    """Answer by answer, the engine needs as many passes as the report counts rounds: both draft the same tokens.

    Passes are counted by tokens that were not drafted: the engine drafts nothing where one token is left.
    """
    runner = build_runner(target, num_pages=80, head=HeadSource(head))
    answers, summaries = serve(runner, **SETTINGS)
    assert answers == [one.answer for one in answered]
    on_paper = hits_on_paper(target, head, answered)
    passes = [summary.output_tokens - 1 - summary.num_accepted for summary in summaries]
    assert passes == [rounds.num_rounds for rounds in on_paper]
    num_tokens, num_rounds = (
        sum(getattr(rounds, name) for rounds in on_paper) for name in ("num_tokens", "num_rounds")
    )
    assert num_tokens / num_rounds > 1.2


def test_head_drafts_better_than_it_did_untrained(target: Path, head: Path, answered: list[Answered]) -> None:
    """Training is what makes it draft, and the two-gram is what it is told beside."""
    trained = sum(rounds.num_rounds for rounds in hits_on_paper(target, head, answered))
    grams, plain = TwoGrams((one.prompt + one.answer, len(one.prompt)) for one in answered), Rounds(NUM_DRAFTS)
    for one in answered:
        plain.add(grams.hits(one.answer, NUM_DRAFTS))
    assert plain.num_tokens == sum(len(one.answer) - 1 for one in answered)
    assert trained < 0.8 * plain.num_tokens


def test_head_of_another_target_is_refused(head: Path, tmp_path: Path) -> None:
    """What serving checks is in what training writes."""
    write_tiny_target(tmp_path, shape=replace(TINY, vocab_size=64))
    with pytest.raises(CheckpointRejected, match="vocab_size"):
        build_runner(tmp_path, num_pages=80, head=HeadSource(head))
