"""`POST /v1/chat/completions`."""

import hashlib
import time
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import UNSET, Raw, UnsetType

from appliance.gateway.api.chat_request import ChatRequest, parse_chat_request
from appliance.gateway.api.dialects import OPENAI
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.fields import StreamOptions
from appliance.gateway.api.intake import Intake, new_uid
from appliance.gateway.api.logprobs import chat_logprobs
from appliance.gateway.api.reading import ChatReading
from appliance.gateway.api.shapes import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatToolCall,
    ChunkChoice,
    Delta,
    FunctionCall,
    Usage,
)
from appliance.gateway.api.streaming import usage
from appliance.gateway.api.text_events import PLACE, TextEvents
from appliance.gateway.flow.answer import Answer
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.models import ServedModel
from appliance.gateway.tools.events import CallArguments, CallBegun, Content, Event, Reasoning, gather

ROUTE = "/v1/chat/completions"


class ChatApi:
    """Answers conversations."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        request = parse_chat_request(body, self._intake.settings)
        asked, model = await self._intake.ask_chat(principal, request, new_uid("chatcmpl"), ROUTE)
        return Inference(
            asked,
            model.tokenizer.vocabulary,
            request.fields.stream,
            lambda answer, _arrived_at: _ChatWords(asked, request, model, answer),
        )


class _ChatWords:
    """Words one chat answer, as events or as a whole."""

    dialect = OPENAI

    def __init__(self, asked: Asked, request: ChatRequest, model: ServedModel, answer: Answer) -> None:
        self._asked = asked
        self._vocabulary = model.tokenizer.vocabulary
        self._created = int(time.time())
        self._fingerprint = fingerprint(answer.engine_build)
        self._generations = answer.generations
        self._tier: Literal["default"] | UnsetType = UNSET if request.fields.service_tier is None else "default"
        self._shows_logprobs = request.logprobs >= 0
        options = request.fields.stream_options or StreamOptions()
        self._includes_usage = bool(options.include_usage)
        self._repeats_usage = bool(options.include_usage and options.continuous_usage_stats)
        self.reading = ChatReading(
            model,
            asked.prompts[0],
            asked.n,
            has_tools=bool(request.tools),
            parallel=request.fields.parallel_tool_calls,
        )
        self._num_calls = [0] * asked.n
        self._texts: dict[int, TextEvents] = {}

    def begin(self, generations: list[Generation]) -> Iterable[ChatChunk]:
        """Every choice begins with its role."""
        for index in range(self._asked.n):
            chunk = self._chunk(ChunkChoice(index, Delta(role="assistant", content="")))
            if isinstance(chunk.usage, Usage):  # The first token is here already, but not in this event.
                chunk.usage.completion_tokens, chunk.usage.total_tokens = 0, chunk.usage.prompt_tokens
            yield chunk

    def piece(self, piece: Piece) -> Iterable[ChatChunk | Raw]:
        """Text, reasoning, tool calls and the end of a choice, each in an event of its own."""
        said = self.reading.read(piece)
        if len(said) == 1 and piece.end is None and not piece.shown and not self._repeats_usage:
            only = said[0]
            if isinstance(only, Content):
                return (self._texts_of(piece.choice).say(only.text),)
        return self._word(piece, said)

    def _word(self, piece: Piece, said: list[Event]) -> Iterable[ChatChunk]:
        deltas = [self._delta(piece.choice, event) for event in said]
        logprobs = self._logprobs([piece]) if piece.shown else None
        if logprobs is not None and not deltas:
            deltas.append(Delta(content=""))
        for delta in deltas:
            yield self._chunk(ChunkChoice(piece.choice, delta, logprobs))
            logprobs = None
        if piece.end is not None:
            reason = self.reading.reason(piece)
            yield self._chunk(ChunkChoice(piece.choice, Delta(), None, reason, piece.end.matched))

    def finish(self, generations: list[Generation]) -> Iterable[ChatChunk]:
        """The usage, in an event without choices."""
        if self._includes_usage:
            chunk = self._chunk(None)
            chunk.usage = self._usage()
            yield chunk

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> ChatCompletion:
        """The answer as one object."""
        choices = [
            self._choice(index, [piece for piece in pieces if piece.choice == index]) for index in range(self._asked.n)
        ]
        return ChatCompletion(
            self._asked.uid, self._created, self._asked.model, choices, self._usage(), self._fingerprint, self._tier
        )

    def _choice(self, index: int, pieces: list[Piece]) -> ChatChoice:
        parsed = gather(event for piece in pieces for event in self.reading.read(piece))
        # Beside calls, white space alone is no content.
        content = parsed.content if not parsed.calls or parsed.content.strip() else None
        message = AssistantMessage(content)
        if parsed.calls:
            message.tool_calls = [
                ChatToolCall(FunctionCall(call.arguments, call.name), self.reading.forms.new_call_id(), "function")
                for call in parsed.calls
            ]
        if parsed.reasoning:
            message.reasoning_content = parsed.reasoning
        logprobs = self._logprobs(pieces) if self._shows_logprobs else None
        last = pieces[-1]
        assert last.end is not None
        return ChatChoice(index, message, logprobs, self.reading.reason(last), last.end.matched)

    def _delta(self, choice: int, event: Event) -> Delta:
        match event:
            case Content(text):
                return Delta(content=text)
            case Reasoning(text):
                return Delta(reasoning_content=text)
            case CallBegun(name):
                self._num_calls[choice] += 1
                call = ChatToolCall(FunctionCall("", name), self.reading.forms.new_call_id(), "function")
            case CallArguments(text):
                call = ChatToolCall(FunctionCall(text))
        call.index = self._num_calls[choice] - 1
        return Delta(tool_calls=[call])

    def _logprobs(self, pieces: list[Piece]) -> ChatLogprobs:
        return chat_logprobs(self._vocabulary, [token for piece in pieces for token in piece.shown])

    def _usage(self) -> Usage:
        return usage(self._generations, self.reading.reasoning_tokens)

    def _texts_of(self, index: int) -> TextEvents:
        if (texts := self._texts.get(index)) is None:
            texts = self._texts[index] = TextEvents(self._chunk(ChunkChoice(index, Delta(content=PLACE))))
        return texts

    def _chunk(self, choice: ChunkChoice | None) -> ChatChunk:
        choices = [] if choice is None else [choice]
        chunk = ChatChunk(
            self._asked.uid, self._created, self._asked.model, choices, self._fingerprint, service_tier=self._tier
        )
        if self._includes_usage:
            chunk.usage = self._usage() if self._repeats_usage else None
        return chunk


def fingerprint(engine_build: str) -> str:
    """OpenAI's `system_fingerprint`: changes when seeds may give other texts."""
    return "fp_" + hashlib.sha256(engine_build.encode()).hexdigest()[:12]
