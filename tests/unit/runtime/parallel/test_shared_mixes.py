"""Two ranks against one over whole lives of an engine: whatever is asked, withdrawn and put back, both deliver the same.

Requests come and go by numbers that a seed draws; no clock has a say, so the schedules are the same as long as the tokens are.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from runtime.batch import ModelRunner
from runtime.engine.loop import Engine
from runtime.parallel.channel import Channel
from runtime.request import GenerationRequest, SamplingParams
from runtime.runner.building import build_runner
from runtime.speculative.source import HeadSource
from runtime.structured.compiler import compile_structure
from runtime.structured.matching import Grammars
from runtime.structured.vocabulary import GrammarVocabulary
from tests.support.draft_heads import EOS, VOCAB_SIZE, write_head, write_target
from tests.support.engine_runs import build_engine
from tests.support.ranks import started_ranks

NUM_REQUESTS = 6
ATOL = 2e-3
"""Of logprobs and embeddings, whose sums are made in another order."""
PATTERNS = ("[a-z]{3,40}", "(ab|cd)+x", "[0-9]+(,[0-9]+){2,9}")
OPTIONS: dict[str, Any] = {
    "frequency_penalty": 0.6,
    "presence_penalty": 0.4,
    "repetition_penalty": 1.4,
    "logit_bias": {5: 3.0, 9: -2.0},
    "logprobs": 3,
    "prompt_logprobs": 2,
    "top_k": 7,
    "top_p": 0.8,
    "min_p": 0.05,
    "min_tokens": 1,
    "stop_token_ids": (40, 41, 77),
}
SHAPES: dict[str, tuple[int, int]] = {"none": (0, 0), "chain": (1, 4), "tree": (3, 7)}
"""Top-k, and tokens verified at once."""
Told = tuple[Any, ...]


def draw_requests(random: Random, grammars: list[bytes]) -> Iterator[GenerationRequest]:
    """Of every kind; many begin alike."""
    beginning = [random.randrange(3, VOCAB_SIZE) for _ in range(64)]
    for request_id in range(NUM_REQUESTS):
        prompt = [*beginning[: random.choice([1, 15, 16, 17, 40, 64])], random.randrange(3, VOCAB_SIZE), 7]
        kind = random.choice(["plain", "plain", "plain", "grammar", "embedding"])
        sampling: dict[str, Any] = {
            "max_tokens": 1 if kind == "embedding" else random.choice([1, 5, 17, 30]),
            "temperature": random.choice([0.0, 0.0, 0.8, 1.3]),
            "seed": random.randrange(9),
            "ignore_eos": kind != "grammar" and random.random() < 0.6,
        } | {name: OPTIONS[name] for name in random.sample(sorted(OPTIONS), random.choice([0, 1, 3]))}
        if kind == "grammar":
            sampling.pop("min_tokens", None)  # It says by itself when an answer may end.
        yield GenerationRequest(
            request_id=request_id,
            prompt=prompt,
            n=1 if kind == "embedding" else random.choice([1, 1, 2, 3]),
            sampling=SamplingParams(**sampling),
            namespace=random.choice([b"a", b"b"]),
            caches_output=random.random() < 0.8,
            grammar=random.choice(grammars) if kind == "grammar" else b"",
            wants_embedding=kind == "embedding",
        )


def live(engine: Engine, seed: int, grammars: list[bytes]) -> list[tuple[Told, list[float]]]:
    """All that leaves an engine, in order: what has to be the same, and the numbers of it, which may be rounded otherwise."""
    random, told = Random(seed), []
    waiting = list(draw_requests(random, grammars))
    while waiting or engine.has_work:
        while waiting and random.random() < 0.5:
            engine.submit(waiting.pop())
        if random.random() < 0.08:
            engine.cancel(random.randrange(NUM_REQUESTS), random.choice([None, 0]), random.choice([None, 2]))
        if random.random() < 0.03:
            engine.flush_cache()
        output = engine.step()
        engine.check_integrity()
        told += [(token, []) for token in output.plain]
        for part in output.tokens:
            scores = [number for entry in part.logprobs or [] for number in (entry.chosen, *entry.top_values)]
            told.append(((part.request_id, part.choice, *part.token_ids, part.finish), scores))
        for prompt in output.prompts:
            scores = [
                number for entry in prompt.logprobs or [] if entry for number in (entry.chosen, *entry.top_values)
            ]
            scores += np.frombuffer(prompt.embedding, "<f4").tolist()
            told.append(((prompt.request_id, prompt.prompt_tokens, prompt.cached_tokens), scores))
        told += [((summary,), []) for summary in output.summaries]
    return told


@pytest.mark.parametrize(
    ("drafts", "seed", "num_pages"), [("none", 2, 10), ("none", 7, 10), ("chain", 7, 14), ("tree", 4, 20)]
)
def test_two_ranks_live_the_life_of_one(drafts: str, seed: int, num_pages: int, tmp_path: Path) -> None:
    """Token by token, with the same ends, counts and cached prefixes; with little memory, so that answers are put back."""
    target, head = write_target(tmp_path / "target"), write_head(tmp_path / "head")
    vocabulary = GrammarVocabulary(
        [b"", b"", b"", *(bytes([byte]) for byte in range(3, VOCAB_SIZE))], [EOS], vocab_size=VOCAB_SIZE
    )
    grammars = [
        compile_structure(
            vocabulary, json.dumps({"type": "structural_tag", "format": {"type": "regex", "pattern": pattern}})
        )
        for pattern in PATTERNS
    ]
    topk, num_tokens = SHAPES[drafts]
    settings: dict[str, Any] = {"chunked_prefill_size": 32, "max_running_requests": 5, "grammars": Grammars(vocabulary)}
    if topk:
        settings |= {
            "speculative_algorithm": "EAGLE3",
            "speculative_draft_model_path": "head",
            "speculative_num_steps": 3,
            "speculative_eagle_topk": topk,
            "speculative_num_draft_tokens": num_tokens,
            "speculative_adaptive": False,
        }

    def build(channel: Channel | None = None) -> ModelRunner:
        source = HeadSource(head, is_dummy=False, topk=topk) if topk else None
        return build_runner(target, num_pages=num_pages, head=source, channel=channel)

    alone = build_engine(build(), eos_token_ids=[EOS], **settings)
    expected = live(alone, seed, grammars)
    with started_ranks(2, build) as ranks:
        got = live(build_engine(ranks.leading, eos_token_ids=[EOS], **settings), seed, grammars)
    assert [told for told, _ in got] == [told for told, _ in expected]
    for (told, scores), (_, expected_scores) in zip(got, expected, strict=True):
        np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=ATOL, err_msg=str(told))
    stats = alone.stats()
    assert stats.num_accepted > 0 or drafts == "none"
    assert stats.num_retractions + stats.cached_tokens > 0
