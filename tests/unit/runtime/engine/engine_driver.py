"""Drives an engine over the paged text runner and keeps account of everything that it delivers."""

from dataclasses import dataclass, field

import numpy as np

from runtime.engine.loop import Engine
from runtime.request import (
    Finish,
    GenerationRequest,
    PromptDelivery,
    RequestSummary,
    SamplingParams,
    TokenLogprobs,
)
from runtime.settings import EngineSettings
from tests.unit.runtime.engine.paged_text import EOS, CycleGrammars, PagedTextRunner, expected_text, scores

CONTEXT_LENGTH = 128


@dataclass
class Told:
    """What the client of one choice was told."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: Finish | None = None
    is_cancelled: bool = False
    """Whether a cancel was sent before its end was seen; later ones change nothing."""
    kept: int | None = None
    """Tokens kept, where a cancel said so."""


class EngineDriver:
    """An engine, its clock, and its clients' accounts."""

    def __init__(
        self,
        *,
        num_pages: int = 64,
        num_drafts: int = 0,
        tree: tuple[int, int] | None = None,
        wrong_drafts: float = 0.3,
        **settings: object,
    ) -> None:
        """
        Args:
            num_drafts: of a speculating engine; so many are made at a time, one after the other, of which a share is wrong.
            tree: top-k, and tokens verified at once, where drafts are trees around those.
        """
        defaults: dict[str, object] = {"model_path": "none", "chunked_prefill_size": 16, "max_running_requests": 8}
        if num_drafts:
            defaults |= {"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "none"}
            topk, num_tokens = tree or (1, num_drafts + 1)
            defaults |= {"speculative_num_steps": num_drafts, "speculative_eagle_topk": topk}
            defaults |= {"speculative_num_draft_tokens": num_tokens, "speculative_adaptive": False}
        self.now = 100.0
        self.runner = PagedTextRunner(num_pages, wrong_drafts=wrong_drafts)
        engine_settings = EngineSettings(**{**defaults, **settings})  # type: ignore[arg-type]
        self.engine = Engine(self.runner, engine_settings, [EOS], CONTEXT_LENGTH, lambda: self.now, CycleGrammars())
        self.asked: dict[int, GenerationRequest] = {}
        self.told: dict[tuple[int, int], Told] = {}
        self.prompts: dict[int, PromptDelivery] = {}
        self.summaries: dict[int, RequestSummary] = {}

    def submit(self, prompt: list[int], *, n: int = 1, **fields: object) -> int:
        """Submit; sampling parameters and request fields by name. Returns the request's id."""
        request_fields = {"namespace", "priority", "deadline", "caches_output", "grammar"}
        sampling = {name: value for name, value in fields.items() if name not in request_fields}
        others = {name: value for name, value in fields.items() if name in request_fields}
        request_id = len(self.asked) + 1
        request = GenerationRequest(
            request_id=request_id,
            prompt=prompt,
            n=n,
            sampling=SamplingParams(**sampling),
            **others,  # type: ignore[arg-type]
        )
        self.engine.submit(request)
        self.asked[request_id] = request
        self.told.update({(request_id, choice): Told() for choice in range(n)})
        return request_id

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """Cancel, and note for the account what is kept."""
        for (owner, index), told in self.told.items():
            if owner == request_id and choice in (None, index) and told.finish is None and not told.is_cancelled:
                told.is_cancelled = True
                told.kept = None if keep_tokens is None else min(keep_tokens, len(told.tokens))
        self.engine.cancel(request_id, choice, keep_tokens)

    def step(self) -> None:
        """One step; what it delivers is entered and checked for order."""
        output = self.engine.step()
        self.engine.check_integrity()
        for prompt in output.prompts:
            assert prompt.request_id not in self.prompts, "a prompt is delivered twice"
            self.prompts[prompt.request_id] = prompt
        for request_id, choice, token in output.plain:
            told = self.told[request_id, choice]
            assert told.finish is None, "a token after the end"
            assert told.tokens, "an answer begins with a plain token"
            told.tokens.append(token)
        plain = {(request_id, choice) for request_id, choice, _ in output.plain}
        for delivery in output.tokens:
            assert (delivery.request_id, delivery.choice) not in plain or not delivery.token_ids
            told = self.told[delivery.request_id, delivery.choice]
            assert told.finish is None, "a delivery after the end"
            assert delivery.request_id in self.prompts or not delivery.token_ids, "tokens before the prompt"
            told.tokens += delivery.token_ids
            told.logprobs += delivery.logprobs or []
            told.finish = delivery.finish
        for summary in output.summaries:
            assert summary.request_id not in self.summaries
            self.summaries[summary.request_id] = summary

    def drain(self) -> None:
        """Step until nothing is left; a bound catches an engine that goes round in circles."""
        for _ in range(20_000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "the engine makes no progress"
        stats = self.engine.stats()
        assert stats.num_free_pages + stats.num_evictable_pages == stats.num_pages, "pages did not come back"
        assert self.summaries.keys() == self.asked.keys()

    def text(self, request_id: int, choice: int = 0) -> list[int]:
        """Tokens that a choice's client got."""
        return self.told[request_id, choice].tokens

    def finish(self, request_id: int, choice: int = 0) -> str:
        """Why a choice ended."""
        finish = self.told[request_id, choice].finish
        assert finish is not None
        return finish.reason

    def verify_against_oracle(self) -> None:
        """Every choice that ended by itself has the oracle's text, every other one the beginning of it."""
        for (request_id, choice), told in self.told.items():
            request = self.asked[request_id]
            tokens, reason = expected_text(request, choice)
            assert told.finish is not None
            if told.finish.reason in ("cancelled", "deadline"):
                assert told.tokens == tokens[: len(told.tokens)], (request_id, choice)
            else:
                assert (told.tokens, told.finish.reason) == (tokens, reason), (request_id, choice)
            if told.finish.reason == "stop":
                assert told.finish.matched_token == told.tokens[-1]
            self._verify_logprobs(request, told)
        for request_id, summary in self.summaries.items():
            self._verify_summary(self.asked[request_id], summary)

    def _verify_summary(self, request: GenerationRequest, summary: RequestSummary) -> None:
        choices = [told for (owner, _), told in self.told.items() if owner == request.request_id]
        kept = sum(len(told.tokens) if told.kept is None else told.kept for told in choices)
        assert summary.output_tokens == kept
        assert summary.prompt_tokens == len(request.prompt)
        assert 0 <= summary.cached_tokens < len(request.prompt)
        prompt = self.prompts.get(request.request_id)
        if prompt is None:
            return
        assert prompt.cached_tokens == summary.cached_tokens
        if request.sampling.prompt_logprobs < 0:
            assert prompt.logprobs is None
            return
        assert prompt.cached_tokens == 0
        assert prompt.logprobs is not None
        assert [entry is None for entry in prompt.logprobs] == [True] + [False] * (len(request.prompt) - 1)
        for position, entry in enumerate(prompt.logprobs[1:], 1):
            assert entry is not None
            _verify_entry(entry, request.prompt[:position], request.prompt[position], request.sampling.prompt_logprobs)

    def _verify_logprobs(self, request: GenerationRequest, told: Told) -> None:
        asked = request.sampling.logprobs
        assert len(told.logprobs) == (len(told.tokens) if asked >= 0 else 0)
        for index, entry in enumerate(told.logprobs):
            _verify_entry(entry, [*request.prompt, *told.tokens[:index]], told.tokens[index], asked)


def _verify_entry(entry: TokenLogprobs, context: list[int] | tuple[int, ...], token: int, count: int) -> None:
    expected = scores(np.array(context)).astype(np.float32)
    assert entry.chosen == expected[token]
    assert len(entry.top_ids) == len(entry.top_values) == count
    assert entry.top_values == sorted(expected.tolist(), reverse=True)[:count]
