"""Speculation with the real runner on a CPU: no draft, good or bad, changes a text by one bit.

A small random Llama answers the same requests without a head and with heads of three kinds: random numbers, whose drafts
are nearly always wrong; one that knows the text; and one that knows it and errs now and then.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from runtime.batch import Int32, Int64, StepBatch
from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from runtime.speculative.source import HeadSource
from tests.support.draft_heads import EOS, VOCAB_SIZE, head_tensors, write_head, write_target
from tests.support.draft_trees import TREES
from tests.support.engine_runs import ask, build_engine, run_all
from tests.support.speculation_runs import NUM_PAGES, SPECULATION, Answers, Knowing, requests, scored_tokens_of
from tests.support.step_batches import Chunk, sampling_batch, step_batch

SHAPES = pytest.mark.parametrize("drafts", [SPECULATION, TREES], ids=["chains", "trees"])


@pytest.mark.parametrize("overlap", [True, False])
def test_random_drafts_change_nothing(speculating: TorchRunner, plain_answers: Answers, *, overlap: bool) -> None:
    """Tokens, ends and logprobs are equal, greedy and sampled, with penalties, masks, bias and several choices."""
    engine = build_engine(speculating, eos_token_ids=[EOS], overlap_schedule=overlap, **SPECULATION)
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    assert engine.stats().num_verified > 100


@pytest.mark.parametrize("error_in", [1000, 5])
def test_good_drafts_change_nothing_and_save_steps(
    speculating: TorchRunner, plain_answers: Answers, monkeypatch: pytest.MonkeyPatch, error_in: int
) -> None:
    """With drafts that know the text most tokens come without a pass of their own."""
    asked = {request.request_id: list(request.prompt) for request in requests()}
    texts = [asked[request] + answer.tokens for (request, _), answer in plain_answers.items()]
    assert speculating.drafter is not None
    monkeypatch.setattr(speculating.drafter, "draft", Knowing(texts, error_in).draft)
    engine = build_engine(speculating, eos_token_ids=[EOS], **SPECULATION)
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    stats = engine.stats()
    length = 1 + stats.num_accepted / stats.num_verified
    assert length > 4.5 if error_in == 1000 else 3 < length < 4.9


@pytest.mark.parametrize(
    "settings",
    [
        {"chunked_prefill_size": 7, "overlap_schedule": False},
        {"chunked_prefill_size": 33, "schedule_policy": "lpm"},
        {"max_running_requests": 4},
        {"disable_radix_cache": True},
        {"speculative_adaptive": True},
    ],
    ids=["small chunks", "lpm", "few rows", "no sharing", "as many as pay"],
)
def test_every_way_to_a_text_is_the_same(
    speculating: TorchRunner, plain_answers: Answers, settings: dict[str, Any]
) -> None:
    """Chunks, order, batch sizes and prefixes that are shared or not."""
    engine = build_engine(speculating, eos_token_ids=[EOS], **(SPECULATION | settings))
    assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers)
    if "disable_radix_cache" not in settings:
        assert scored_tokens_of(run_all(engine, requests())) == scored_tokens_of(plain_answers), "from cached prefixes"


def test_drafts_that_break_the_rows_before_them_end_no_answer(tmp_path: Path, head: HeadSource) -> None:
    """Of a token whose embedding is no number: its values reach the rows before it, for which it was only a guess."""
    broken = VOCAB_SIZE - 1
    folder = write_target(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][broken] = np.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    never = {"logit_bias": {broken: -100.0}, "max_tokens": 12, "ignore_eos": True, "logprobs": 0}
    asked = [ask(1, range(3, 40), temperature=0.0, **never), ask(2, range(9, 20), seed=2, n=2, **never)]
    plain = run_all(build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS]), asked)
    runner = build_runner(folder, num_pages=NUM_PAGES, head=head)
    assert runner.drafter is not None

    def draft(batch: StepBatch, _captured: torch.Tensor, _chosen: Int64, num_tokens: Int32) -> Int64:
        assert batch.speculation is not None
        return np.full((len(num_tokens), batch.speculation.num_steps), broken)

    runner.drafter.draft = draft  # type: ignore[method-assign]
    engine = build_engine(runner, eos_token_ids=[EOS], **SPECULATION)
    assert scored_tokens_of(run_all(engine, asked)) == scored_tokens_of(plain)
    assert engine.stats().num_verified == len(plain), "tried once by each"


@SHAPES
def test_retraction_under_speculation(folder: Path, tmp_path: Path, drafts: dict[str, Any]) -> None:
    """With memory for little more than one request some are sent back and go on later, and drafts get what is left."""
    ids = np.random.default_rng(8).integers(3, VOCAB_SIZE, 120).tolist()
    asked = [ask(place, ids[35 * place : 35 * place + 40], max_tokens=60, seed=place) for place in range(3)]
    head = HeadSource(write_head(tmp_path))
    engine = build_engine(build_runner(folder, num_pages=12, head=head), eos_token_ids=[EOS], **drafts)
    engine._scheduler._estimate.fraction = 0.05
    plain = build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS])
    assert scored_tokens_of(run_all(engine, asked)) == scored_tokens_of(run_all(plain, asked))
    assert engine.stats().num_retractions > 0
    assert engine.stats().num_verified > 0


@SHAPES
def test_fp8_weights_and_cache_change_nothing_either(folder: Path, tmp_path: Path, drafts: dict[str, Any]) -> None:
    """Rounded matrices, a cache in e4m3, and drafts: the texts are those of the same without drafts.

    What a tree's path holds in the cache is moved as it is.
    """
    head = HeadSource(write_head(tmp_path))
    answers = []
    for given, settings in (({}, {}), ({"head": head}, drafts)):
        runner = build_runner(folder, num_pages=NUM_PAGES, quantization="fp8", kv_cache_dtype="fp8_e4m3", **given)
        answers.append(scored_tokens_of(run_all(build_engine(runner, eos_token_ids=[EOS], **settings), requests()[:4])))
    assert answers[0] == answers[1]


def test_drafts_follow_from_the_text_alone(speculating: TorchRunner) -> None:
    """A prompt in one chunk, in many, and from the cache gives the same drafts: the head's entries are whole."""
    (request,) = (request for request in requests() if request.request_id == 2)
    runs: list[list[list[int]]] = []
    for chunk in (512, 9):
        engine = build_engine(speculating, eos_token_ids=[EOS], chunked_prefill_size=chunk, **SPECULATION)
        for _ in range(2):
            drafts: list[list[int]] = []
            engine.submit(request)
            while engine.has_work:
                engine.step()
                table = engine._scheduler._running.table
                drafts += [table.drafts[row].tolist() for row in table.decode_rows().tolist()]
            runs.append([entry for entry in drafts if any(entry)])
    assert len(runs[0]) > 20
    assert runs == [runs[0]] * 4


VOCAB_OF_FIVE = 5
NUM_TEXTS = 700
FALSE_ALARM_DEVIATIONS = 3.99
"""Of a normal variable: a right sampler fails once in 30,000 draws of seeds. They are fixed, so it fails always or never."""


def test_sampled_texts_have_the_targets_distribution(tmp_path: Path) -> None:
    """Three tokens at temperature 1 over a vocabulary of five, by chi-square against the target's own probabilities."""
    folder = write_target(tmp_path / "target", vocab_size=VOCAB_OF_FIVE, scale=0.15)
    tensors = head_tensors(vocab_size=VOCAB_OF_FIVE, draft_vocab_size=VOCAB_OF_FIVE)
    changes = {"vocab_size": VOCAB_OF_FIVE, "draft_vocab_size": VOCAB_OF_FIVE}
    head = HeadSource(write_head(tmp_path / "head", tensors, **changes))
    queue = {"max_queued_requests": NUM_TEXTS}
    engine = build_engine(build_runner(folder, num_pages=200, head=head), eos_token_ids=[], **SPECULATION, **queue)
    prompt = [3, 1, 4]
    asked = [ask(seed, prompt, temperature=1.0, seed=seed, max_tokens=3) for seed in range(NUM_TEXTS)]
    texts = Counter(tuple(answer.tokens) for answer in run_all(engine, asked).values())
    assert engine.stats().num_accepted > NUM_TEXTS / 10, "hardly a draft was accepted: nothing is shown"
    expected = NUM_TEXTS * text_probabilities(build_runner(folder, num_pages=200), prompt)
    counts = np.zeros_like(expected)
    for text, count in texts.items():
        counts[text] = count
    rare = expected < 5  # together they are one cell
    cells = np.append(expected[~rare], expected[rare].sum())
    found = np.append(counts[~rare], counts[rare].sum())
    statistic = float(((found - cells)[cells > 0] ** 2 / cells[cells > 0]).sum())
    assert statistic < chi_square_bound(int((cells > 0).sum()) - 1)


def text_probabilities(runner: TorchRunner, prompt: list[int]) -> np.ndarray:
    """Of every text of three tokens after the prompt, [5, 5, 5]."""
    joint = np.ones((VOCAB_OF_FIVE,) * 3)
    for length in range(3):
        for text in np.ndindex((VOCAB_OF_FIVE,) * length):
            batch = step_batch([Chunk([*prompt, *text], 0, [1])], sampling_batch(1, num_logprobs=VOCAB_OF_FIVE))
            logprobs = runner.launch(batch).result().logprobs
            assert logprobs is not None
            of_next = np.empty(VOCAB_OF_FIVE)
            of_next[logprobs.top_ids[0]] = np.exp(logprobs.top_values[0])
            joint[text] *= of_next.reshape((VOCAB_OF_FIVE,) + (1,) * (2 - length))
    return joint


def chi_square_bound(freedom: int) -> float:
    """By Wilson and Hilferty."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + FALSE_ALARM_DEVIATIONS * part**0.5) ** 3)
