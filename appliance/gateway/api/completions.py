"""`POST /v1/completions`: the legacy API, which also takes token ids and lists of prompts."""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.gateway.api.chat import fingerprint
from appliance.gateway.api.completion_request import CompletionRequest, parse_completion_request
from appliance.gateway.api.logprobs import joined, prompt_logprobs, text_logprobs
from appliance.gateway.api.shapes import Completion, TextChoice, TextLogprobs
from appliance.gateway.api.streaming import attended, audit_headers, collect, stream, usage
from appliance.gateway.api.tokenization import TokenizerThreads
from appliance.gateway.api.validation import (
    audit_parameters,
    build_sampling,
    resolve_max_tokens,
    verify_priority,
    verify_prompt,
    verify_prompt_logprobs,
)
from appliance.gateway.body import parse_object
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.answer import Answer
from appliance.gateway.flow.choice import Piece, ShownToken
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.records import Source
from appliance.gateway.flow.request import Asked
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.text.detokenizer import Detokenizer
from appliance.gateway.text.vocabulary import Vocabulary

ROUTE = "/v1/completions"


class CompletionEndpoint:
    """Continues texts."""

    def __init__(self, desk: Desk, models: Models, threads: TokenizerThreads) -> None:
        self._desk = desk
        self._models = models
        self._threads = threads

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        self._desk.verify_accepting()
        body = await exchange.read_body()
        arrived_at = time.monotonic()
        # (3) all that can be refused about the request itself.
        request = parse_completion_request(parse_object(body), self._desk.settings)
        model = self._models.find(request.fields.model)
        asked = await self._ask(request, model)
        exchange.request_id = asked.uid
        vocabulary = model.tokenizer.vocabulary
        source = Source(exchange.source_address, exchange.source_port)
        answer = Answer(self._desk, asked, exchange.identified, source, vocabulary, arrived_at)
        async with attended(exchange, answer):
            words = _CompletionWords(asked, request, vocabulary, answer.engine_build)
            if request.fields.stream:
                await stream(exchange, answer, words)
            else:
                pieces = await collect(answer)
                whole = words.whole(pieces, answer.generations)
                await exchange.respond(200, whole, audit_headers(answer, with_outcome=True))

    async def _ask(self, request: CompletionRequest, model: ServedModel) -> Asked:
        fields = request.fields
        verify_priority(fields.priority, self._desk.settings.max_client_priority)
        engine = self._desk.engines.for_model(model.name)
        prompts: list[list[int]] = []
        for index, prompt in enumerate(request.prompts):
            where = request.where(index)
            token_ids = await self._threads.prompt(model, prompt, engine.facts.context_length, where)
            verify_prompt(token_ids, engine.facts, where)
            prompts.append(token_ids)
        longest = max(len(prompt) for prompt in prompts)
        verify_prompt_logprobs(longest, request.prompt_logprobs, "logprobs")
        max_tokens = resolve_max_tokens(fields.max_tokens, "max_tokens", longest, fields.n, engine.facts, engine.status)
        sampling = build_sampling(
            fields,
            model,
            engine.facts,
            max_tokens=max_tokens,
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
        )
        return Asked(
            uid=f"cmpl-{secrets.token_hex(16)}",
            route=ROUTE,
            model=model.name,
            prompts=prompts,
            sampling=sampling,
            n=fields.n,
            stops=request.stops,
            priority=fields.priority,
            parameters=audit_parameters(
                sampling, n=fields.n, num_stops=len(request.stops), stream=fields.stream, user=fields.user
            ),
        )


@dataclass(frozen=True)
class EchoedPrompt:
    """A prompt as text, and where each of its tokens begins in it."""

    text: str
    offsets: list[int]


def echo_prompt(vocabulary: Vocabulary, token_ids: Sequence[int]) -> EchoedPrompt:
    """The text of a prompt, from its ids: those are what the model saw."""
    detokenizer = Detokenizer(vocabulary, at_start=True)
    text, offsets = "", []
    for token_id in token_ids:
        offsets.append(len(text))
        text += detokenizer.feed(token_id)
    return EchoedPrompt(text + detokenizer.finish(), offsets)


class _CompletionWords:
    """Words one completion, as events or as a whole."""

    def __init__(self, asked: Asked, request: CompletionRequest, vocabulary: Vocabulary, engine_build: str) -> None:
        self._asked = asked
        self._vocabulary = vocabulary
        self._created = int(time.time())
        self._fingerprint = fingerprint(engine_build)
        self._shows_logprobs = request.logprobs >= 0
        options = request.fields.stream_options
        self._includes_usage = options is not None and options.include_usage
        self._echoes = [echo_prompt(vocabulary, prompt) for prompt in asked.prompts] if request.fields.echo else []

    def begin(self, generations: list[Generation]) -> Iterable[Completion]:
        """The echo, if it was asked for."""
        for generation in generations if self._echoes else ():
            for index in range(self._asked.n):
                text, logprobs = self._echo(generation)
                yield self._event(TextChoice(self._index(generation.index, index), text, logprobs))

    def piece(self, piece: Piece) -> Iterable[Completion]:
        """Text and end of a choice."""
        if piece.text or piece.shown or piece.end is not None:
            logprobs = self._logprobs(piece.prompt, piece.shown) if piece.shown else None
            reason = None if piece.end is None else piece.end.reason
            yield self._event(TextChoice(self._index(piece.prompt, piece.choice), piece.text, logprobs, reason))

    def finish(self, generations: list[Generation]) -> Iterable[Completion]:
        """The usage, in an event without choices."""
        if self._includes_usage:
            last = self._event(None)
            last.usage = usage(generations)
            yield last

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> Completion:
        """The completion as one object."""
        result = self._event(None)
        result.usage = usage(generations)
        for generation in generations:
            for choice in range(self._asked.n):
                own = [piece for piece in pieces if (piece.prompt, piece.choice) == (generation.index, choice)]
                result.choices.append(self._choice(generation, choice, own))
        return result

    def _choice(self, generation: Generation, choice: int, pieces: list[Piece]) -> TextChoice:
        echo, echo_logprobs = self._echo(generation) if self._echoes else ("", None)
        text = echo + "".join(piece.text for piece in pieces)
        logprobs = None
        if self._shows_logprobs:
            logprobs = self._logprobs(generation.index, [token for piece in pieces for token in piece.shown])
            if echo_logprobs is not None:
                logprobs = joined(echo_logprobs, logprobs)
        end = pieces[-1].end
        assert end is not None
        return TextChoice(self._index(generation.index, choice), text, logprobs, end.reason)

    def _echo(self, generation: Generation) -> tuple[str, TextLogprobs | None]:
        echoed = self._echoes[generation.index]
        delivered = generation.prompt_delivery
        if not self._shows_logprobs or delivered is None or delivered.logprobs is None:
            return echoed.text, None
        token_ids = self._asked.prompts[generation.index]
        return echoed.text, prompt_logprobs(self._vocabulary, token_ids, echoed.offsets, delivered.logprobs)

    def _logprobs(self, prompt: int, tokens: Sequence[ShownToken]) -> TextLogprobs:
        offset = len(self._echoes[prompt].text) if self._echoes else 0
        return text_logprobs(self._vocabulary, tokens, offset)

    def _index(self, prompt: int, choice: int) -> int:
        """Choices are numbered through, prompt by prompt."""
        return prompt * self._asked.n + choice

    def _event(self, choice: TextChoice | None) -> Completion:
        choices = [] if choice is None else [choice]
        result = Completion(self._asked.uid, self._created, self._asked.model, choices, self._fingerprint)
        if self._includes_usage:
            result.usage = None
        return result
