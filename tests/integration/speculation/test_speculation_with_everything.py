"""Drafts beside all else that an engine does, at once: FP8 weights, a cache in e4m3, grammars of xgrammar, penalties, bias, masks,
min_tokens, logprobs, seeds, shared prefixes, prompts in chunks, and pauses of the drafts. No text changes.

On the reference bits are compared, logprobs as well; over the runner that a GPU uses, with plain torch as its kernels and graphs
captured, tokens: products of other shapes differ in their last bits there, and where that carries an activation over to the next
number of e4m3 logprobs were seen to differ by a quarter. Plain decoding by the same kind of runner is the judge.
"""

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from runtime.attention.pages import SCALE_COLUMNS
from runtime.batch import ModelRunner
from runtime.engine.loop import Engine
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.runner.cache_choice import CacheFormat
from runtime.runner.torch_runner import TorchRunner
from runtime.speculative.source import HeadSource
from runtime.structured.compiler import compile_structure
from runtime.structured.matching import Grammars
from runtime.structured.vocabulary import GrammarVocabulary
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import EOS, LAYERS, VOCAB_SIZE
from tests.support.draft_trees import NUM_STEPS, NUM_TREE_DRAFTS, TREES, KnowingTrees
from tests.support.engine_runs import Answer, ask, build_engine
from tests.support.speculation_runs import NUM_DRAFTS, NUM_PAGES, SPECULATION, Knowing

VOCABULARY = GrammarVocabulary(
    [b"", b"", b"", *(bytes([byte]) for byte in range(3, 127)), b"ab", b"the", b'":', b"12"],
    [EOS],
    vocab_size=VOCAB_SIZE,
)


def structure(kind: str, **fields: Any) -> bytes:
    """A compiled grammar."""
    return compile_structure(VOCABULARY, json.dumps({"type": "structural_tag", "format": {"type": kind, **fields}}))


def requests() -> list[GenerationRequest]:
    """Grammars, greedy and sampled, alone and with penalties; and all kinds of sampling without; over shared beginnings."""
    ids = np.random.default_rng(6).integers(3, VOCAB_SIZE, 120).tolist()
    words = structure("regex", pattern="[a-z]{2,6}( [a-z]{2,6}){2,5}")
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
    }
    record = structure("json_schema", json_schema=schema)
    common: dict[str, Any] = {"max_tokens": 30, "logprobs": 1}
    asked = [
        ask(1, ids[:70], temperature=0.0, **common),
        ask(2, ids[:70], temperature=0.9, seed=3, n=2, top_p=0.9, **common),
        ask(3, ids[:75], temperature=1.1, seed=4, presence_penalty=0.5, **common),
        ask(4, ids[:40], temperature=0.8, seed=5, **common),
        ask(5, ids[:70], temperature=0.0, frequency_penalty=0.7, repetition_penalty=1.2, min_tokens=12, **common),
        ask(6, ids[:33], temperature=1.2, seed=6, min_p=0.05, logit_bias={9: 3.0, 11: -2.0}, min_tokens=9, **common),
        ask(7, ids[:75], temperature=0.9, seed=7, top_k=12, ignore_eos=True, **common),
    ]
    grammars = {1: words, 2: words, 3: words, 4: record}
    return [msgspec.structs.replace(request, grammar=grammars.get(request.request_id, b"")) for request in asked]


@dataclass(frozen=True)
class Folders:
    """A model and its head."""

    target: Path
    head: HeadSource

    def engine(self, *, on_device: bool, is_tree: bool | None, **settings: Any) -> Engine:
        """FP8 weights and cache; `is_tree` None: without drafts."""
        if not on_device:
            return self.engine_on_reference(is_tree=is_tree, **settings)[1]
        cache = CacheFormat(torch.float8_e4m3fn, torch.ones(LAYERS, SCALE_COLUMNS))
        tree = (TREES["speculative_eagle_topk"], NUM_TREE_DRAFTS + 1) if is_tree else None
        steps = 0 if is_tree is None else NUM_STEPS if is_tree else NUM_DRAFTS
        runner = build_plain_device(
            self.target,
            num_pages=NUM_PAGES,
            head=None if is_tree is None else self.head,
            num_steps=steps,
            tree=tree,
            cache=cache,
            quantization="fp8",
        ).runner
        return self._engine(runner, is_tree, settings)

    def engine_on_reference(self, *, is_tree: bool | None, **settings: Any) -> tuple[TorchRunner, Engine]:
        """The same, and what it runs on."""
        head = None if is_tree is None else self.head
        runner = build_runner(
            self.target, num_pages=NUM_PAGES, head=head, quantization="fp8", kv_cache_dtype="fp8_e4m3"
        )
        return runner, self._engine(runner, is_tree, settings)

    def _engine(self, runner: ModelRunner, is_tree: bool | None, settings: dict[str, Any]) -> Engine:
        drafts: dict[str, Any] = {} if is_tree is None else TREES if is_tree else SPECULATION
        return build_engine(runner, eos_token_ids=[EOS], grammars=Grammars(VOCABULARY), **drafts, **settings)


@pytest.fixture
def folders(folder: Path, head: HeadSource) -> Folders:
    return Folders(folder, head)


def answers_of(engine: Engine, levels: list[int]) -> dict[tuple[int, int], Answer]:
    """All requests at once, so many drafts in each step in turn; none: as many as the engine likes."""
    for request in requests():
        engine.submit(request)
    told = {(request.request_id, choice): Answer() for request in requests() for choice in range(request.n)}
    turns = cycle(levels)
    while engine.has_work:
        if levels:
            engine.pin_drafts(next(turns))
        output = engine.step()
        engine.check_integrity()
        for delivery in output.tokens:
            answer = told[delivery.request_id, delivery.choice]
            answer.tokens += delivery.token_ids
            answer.logprobs += [entry.chosen for entry in delivery.logprobs or []]
            answer.reason = "" if delivery.finish is None else delivery.finish.reason
    return told


@pytest.mark.parametrize(
    ("on_device", "is_tree"),
    [
        pytest.param(False, False, id="reference, chains"),
        pytest.param(False, True, id="reference, trees"),
        pytest.param(True, False, id="graphs, chains", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
        pytest.param(True, True, id="graphs, trees", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_everything_at_once_changes_no_text(folders: Folders, *, on_device: bool, is_tree: bool) -> None:
    """Cold and then from cached prefixes, in chunks of 33; drafts pause now and then."""
    plain = answers_of(folders.engine(on_device=on_device, is_tree=None), [])
    engine = folders.engine(on_device=on_device, is_tree=is_tree, chunked_prefill_size=33)
    most = NUM_STEPS if is_tree else NUM_DRAFTS
    for _ in range(2):
        told = answers_of(engine, [most] * 5 + [0] * 3)
        assert {key: (answer.tokens, answer.reason) for key, answer in told.items()} == {
            key: (answer.tokens, answer.reason) for key, answer in plain.items()
        }
        for key, answer in told.items():
            assert on_device or answer.logprobs == plain[key].logprobs
    stats = engine.stats()
    assert stats.cached_tokens > 0
    assert stats.num_verified > 50
    assert stats.num_late_entries > 0
    assert bool(stats.num_graph_steps) == on_device


@pytest.mark.parametrize("error_in", [1000, 3])
@pytest.mark.parametrize("is_tree", [False, True], ids=["chains", "trees"])
def test_drafts_that_are_taken_change_no_text_either(folders: Folders, *, is_tree: bool, error_in: int) -> None:
    """The same with drafts that know the texts, in place of a random head's, of which hardly one is right: grammars, penalties
    and masks are followed along accepted rows, and back from where a draft errs."""
    plain = answers_of(folders.engine(on_device=False, is_tree=None), [])
    asked = {request.request_id: list(request.prompt) for request in requests()}
    texts = [asked[request] + answer.tokens for (request, _), answer in plain.items()]
    runner, engine = folders.engine_on_reference(is_tree=is_tree, chunked_prefill_size=33)
    assert runner.drafter is not None
    if is_tree:
        runner.drafter.draft_trees = KnowingTrees(texts, error_in).draft_trees  # type: ignore[method-assign]
    else:
        runner.drafter.draft = Knowing(texts, error_in).draft  # type: ignore[method-assign]
    most = NUM_STEPS if is_tree else NUM_DRAFTS
    for levels in ([most] * 5 + [0] * 3, [most]):
        assert answers_of(engine, levels) == plain
    stats = engine.stats()
    assert 1 + stats.num_accepted / stats.num_verified > (4 if error_in == 1000 else 3)


def test_the_grammars_hold(folders: Folders) -> None:
    """What is compared above is text that its grammar allows, to its end or to the last token that was asked for."""
    told = answers_of(folders.engine(on_device=False, is_tree=None), [])
    matchers = Grammars(VOCABULARY)
    for request in requests():
        for choice in range(request.n if request.grammar else 0):
            matcher = matchers.matcher(request.grammar)
            tokens = told[request.request_id, choice].tokens
            assert len(tokens) > 5
            for token in tokens:
                mask = np.zeros(VOCABULARY.num_words, np.int32)
                matcher.fill(mask)
                assert int(mask[token // 32]) >> (token % 32) & 1
                if token != EOS:
                    matcher.accept(token)
