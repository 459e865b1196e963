"""`POST /v1/completions`: the legacy API, which also takes token ids and lists of prompts."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from appliance.gateway.api.chat import fingerprint
from appliance.gateway.api.completion_request import CompletionRequest, parse_completion_request
from appliance.gateway.api.dialects import OPENAI
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.fields import StreamOptions
from appliance.gateway.api.intake import Intake, Limit, Scores, Wanted, new_uid
from appliance.gateway.api.logprobs import joined, prompt_logprobs, text_logprobs
from appliance.gateway.api.shapes import Completion, TextChoice, TextLogprobs
from appliance.gateway.api.streaming import usage
from appliance.gateway.api.text_events import PLACE, TextEvents
from appliance.gateway.flow.answer import Answer
from appliance.gateway.flow.choice import Piece, ShownToken
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.text.detokenizer import Detokenizer
from appliance.gateway.text.vocabulary import Vocabulary

ROUTE = "/v1/completions"


class CompletionApi:
    """Continues texts."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        request = parse_completion_request(body, self._intake.settings)
        fields = request.fields
        model = self._intake.find_model(fields.model)
        prompts = await self._intake.tokenize_prompts(model, request.prompts, request.where)
        wanted = Wanted(
            uid=new_uid("cmpl"),
            route=ROUTE,
            sampling=fields,
            limit=Limit(max(1, fields.max_tokens)),
            gives_text=fields.max_tokens > 0,
            scores=Scores(request.logprobs, request.prompt_logprobs),
            n=fields.n,
            stops=request.stops,
            priority=fields.priority,
            structure=request.structure,
            stream=fields.stream,
            user=fields.user,
        )
        asked = await self._intake.ask(principal, model, prompts, wanted)
        vocabulary = model.tokenizer.vocabulary
        return Inference(
            asked,
            vocabulary,
            fields.stream,
            lambda answer, _arrived_at: _CompletionWords(asked, request, vocabulary, answer),
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

    dialect = OPENAI
    reading = None

    def __init__(self, asked: Asked, request: CompletionRequest, vocabulary: Vocabulary, answer: Answer) -> None:
        self._asked = asked
        self._vocabulary = vocabulary
        self._created = int(time.time())
        self._fingerprint = fingerprint(answer.engine_build)
        self._shows_logprobs = request.logprobs >= 0
        options = request.fields.stream_options or StreamOptions()
        self._includes_usage = bool(options.include_usage)
        self._repeats_usage = bool(options.include_usage and options.continuous_usage_stats)
        self._generations = answer.generations
        self._echoes = [echo_prompt(vocabulary, prompt) for prompt in asked.prompts] if request.fields.echo else []
        self._unechoed = set(range(len(self._echoes)))
        self._texts: dict[int, TextEvents] = {}

    def begin(self, generations: list[Generation]) -> Iterable[Completion]:
        """Nothing: each prompt's echo comes before its own first token, as its logprobs are not there earlier."""
        return ()

    def piece(self, piece: Piece) -> Iterable[Completion | Raw]:
        """Text and end of a choice, and before the first of a prompt its echo, if it was asked for."""
        if piece.text and not piece.shown and piece.end is None and not self._unechoed and not self._repeats_usage:
            return (self._texts_of(self._index(piece.prompt, piece.choice)).say(piece.text),)
        return self._word(piece)

    def _word(self, piece: Piece) -> Iterable[Completion]:
        if piece.prompt in self._unechoed:
            self._unechoed.remove(piece.prompt)
            text, logprobs = self._echo(self._generations[piece.prompt])
            for index in range(self._asked.n):
                yield self._event(TextChoice(self._index(piece.prompt, index), text, logprobs))
        if piece.text or piece.shown or piece.end is not None:
            logprobs = self._logprobs(piece.prompt, piece.shown) if piece.shown else None
            choice = TextChoice(self._index(piece.prompt, piece.choice), piece.text, logprobs)
            if piece.end is not None:
                choice.finish_reason, choice.matched_stop = piece.end.reason, piece.end.matched
            yield self._event(choice)

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
        return TextChoice(self._index(generation.index, choice), text, logprobs, end.reason, end.matched)

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

    def _texts_of(self, index: int) -> TextEvents:
        if (texts := self._texts.get(index)) is None:
            texts = self._texts[index] = TextEvents(self._event(TextChoice(index, PLACE)))
        return texts

    def _event(self, choice: TextChoice | None) -> Completion:
        choices = [] if choice is None else [choice]
        result = Completion(self._asked.uid, self._created, self._asked.model, choices, self._fingerprint)
        if self._includes_usage:
            result.usage = usage(self._generations) if self._repeats_usage else None
        return result
