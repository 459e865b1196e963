"""`POST /v1/chat/completions`."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import Any

from appliance.gateway.api.chat_request import ChatRequest, parse_chat_request
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.intake import Intake, Limit, Scores, Wanted, new_uid
from appliance.gateway.api.logprobs import chat_logprobs
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
)
from appliance.gateway.api.streaming import usage
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.text.tool_calls import Parsed, ToolCallParser
from appliance.gateway.text.vocabulary import Vocabulary

ROUTE = "/v1/chat/completions"


class ChatApi:
    """Answers conversations."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        request = parse_chat_request(body, self._intake.settings)
        model = self._intake.find_model(request.fields.model)
        prompt = await self._intake.tokenize_chat(model, request)
        fields = request.fields
        limit, name = request.max_tokens
        wanted = Wanted(
            uid=new_uid("chatcmpl"),
            route=ROUTE,
            sampling=fields,
            limit=Limit(limit, name),
            scores=Scores(request.logprobs),
            n=fields.n,
            stops=request.stops,
            priority=fields.priority,
            stream=fields.stream,
            user=fields.user,
            begins_text=True,
        )
        asked = self._intake.ask(model, [prompt], wanted)
        vocabulary = model.tokenizer.vocabulary
        return Inference(
            asked,
            vocabulary,
            fields.stream,
            lambda answer, _arrived_at: _ChatWords(asked, request, vocabulary, answer.engine_build),
        )


class _ChatWords:
    """Words one chat answer, as events or as a whole."""

    def __init__(self, asked: Asked, request: ChatRequest, vocabulary: Vocabulary, engine_build: str) -> None:
        self._asked = asked
        self._vocabulary = vocabulary
        self._created = int(time.time())
        self._fingerprint = fingerprint(engine_build)
        self._shows_logprobs = request.logprobs >= 0
        options = request.fields.stream_options
        self._includes_usage = options is not None and options.include_usage
        self._parsers = [ToolCallParser() for _ in range(asked.n)] if request.tools else []
        self._num_calls = [0] * asked.n

    def begin(self, generations: list[Generation]) -> Iterable[ChatChunk]:
        """Every choice begins with its role."""
        for index in range(self._asked.n):
            yield self._chunk(ChunkChoice(index, Delta(role="assistant", content="")))

    def piece(self, piece: Piece) -> Iterable[ChatChunk]:
        """Text, tool calls and the end of a choice, each in an event of its own."""
        parsed = self._parse(piece)
        logprobs = self._logprobs([piece]) if piece.shown else None
        if parsed.content or logprobs is not None:
            yield self._chunk(ChunkChoice(piece.choice, Delta(content=parsed.content), logprobs))
        for call in parsed.calls:
            index = self._num_calls[piece.choice]
            self._num_calls[piece.choice] += 1
            called = ChatToolCall(_call_id(), FunctionCall(call.name, call.arguments), index=index)
            yield self._chunk(ChunkChoice(piece.choice, Delta(tool_calls=[called])))
        if piece.end is not None:
            reason = self._reason(piece.choice, piece.end.reason)
            yield self._chunk(ChunkChoice(piece.choice, Delta(), finish_reason=reason))

    def finish(self, generations: list[Generation]) -> Iterable[ChatChunk]:
        """The usage, in an event without choices."""
        if self._includes_usage:
            chunk = self._chunk(None)
            chunk.usage = usage(generations)
            yield chunk

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> ChatCompletion:
        """The answer as one object."""
        choices = [
            self._choice(index, [piece for piece in pieces if piece.choice == index]) for index in range(self._asked.n)
        ]
        return ChatCompletion(
            self._asked.uid, self._created, self._asked.model, choices, usage(generations), self._fingerprint
        )

    def _choice(self, index: int, pieces: list[Piece]) -> ChatChoice:
        content, calls = "", []
        for piece in pieces:
            parsed = self._parse(piece)
            content += parsed.content
            calls += [ChatToolCall(_call_id(), FunctionCall(call.name, call.arguments)) for call in parsed.calls]
        self._num_calls[index] = len(calls)
        end = pieces[-1].end
        assert end is not None
        message = AssistantMessage(content.strip() or None if calls else content)
        if calls:
            message.tool_calls = calls
        logprobs = self._logprobs(pieces) if self._shows_logprobs else None
        return ChatChoice(index, message, logprobs, self._reason(index, end.reason))

    def _parse(self, piece: Piece) -> Parsed:
        if not self._parsers:
            return Parsed(piece.text)
        parser = self._parsers[piece.choice]
        parsed = parser.feed(piece.text)
        if piece.end is not None:
            parsed.content += parser.finish().content
        return parsed

    def _reason(self, choice: int, reason: str) -> str:
        return "tool_calls" if self._num_calls[choice] and reason == "stop" else reason

    def _logprobs(self, pieces: list[Piece]) -> ChatLogprobs:
        return chat_logprobs(self._vocabulary, [token for piece in pieces for token in piece.shown])

    def _chunk(self, choice: ChunkChoice | None) -> ChatChunk:
        choices = [] if choice is None else [choice]
        chunk = ChatChunk(self._asked.uid, self._created, self._asked.model, choices, self._fingerprint)
        if self._includes_usage:
            chunk.usage = None
        return chunk


def fingerprint(engine_build: str) -> str:
    """OpenAI's `system_fingerprint`: changes when seeds may give other texts."""
    return "fp_" + hashlib.sha256(engine_build.encode()).hexdigest()[:12]


def _call_id() -> str:
    return "call_" + secrets.token_hex(12)
