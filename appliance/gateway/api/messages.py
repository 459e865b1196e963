"""`POST /v1/messages` and `/v1/messages/count_tokens`, in Anthropic's words.

Errors have the form and the types of Anthropic's, with OpenAI's members `code` and `param` beside theirs.
"""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from appliance.gateway.api.blocks import Block, BlockBuilder, BlockEvent
from appliance.gateway.api.chat_request import ChatRequest, parse_chat_request
from appliance.gateway.api.dialects import ANTHROPIC, MESSAGES_ROUTE
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.intake import Intake, new_uid
from appliance.gateway.api.messages_request import (
    CHAT_NAMES,
    CountedFields,
    chat_body,
    parse_count,
    parse_messages,
)
from appliance.gateway.api.naming import named_as
from appliance.gateway.api.reading import ChatReading
from appliance.gateway.body import parse_object
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.choice import ChoiceEnd, Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.models import ServedModel


class MessagesApi:
    """Answers conversations."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        fields = parse_messages(body)
        with _named(fields):
            request = _chat_request(fields, self._intake)
            asked, model = await self._intake.ask_chat(principal, request, new_uid("msg", "_"), MESSAGES_ROUTE)
        return Inference(
            asked,
            model.tokenizer.vocabulary,
            request.fields.stream,
            lambda answer, _arrived_at: _MessageWords(asked, request, model, answer.generations[0]),
        )


class CountTokensEndpoint:
    """Counts the tokens of a prompt; asks no model, so it is neither recorded nor paid for, but counted (`Intake.look_up`)."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        fields = parse_count(parse_object(await exchange.read_body()))
        with _named(fields):
            request = _chat_request(fields, self._intake)
            model = await self._intake.look_up(exchange.identified, request.fields.model)
            prompt = await self._intake.tokenize_chat(model, request)
        await exchange.respond(200, {"input_tokens": len(prompt)})


def _named(fields: CountedFields) -> AbstractContextManager[None]:
    return named_as(CHAT_NAMES, [f"tools[{index}]" for index in range(len(fields.tools))], "input_schema")


def _chat_request(fields: CountedFields, intake: Intake) -> ChatRequest:
    model = intake.find_model(fields.model)
    reasons, has_effort = model.forms.reasoning != "none", "reasoning_effort" in model.template.variables
    return parse_chat_request(chat_body(fields, reasons=reasons, has_effort=has_effort), intake.settings)


class _MessageWords:
    """Words one message, as events or as a whole."""

    dialect = ANTHROPIC

    def __init__(self, asked: Asked, request: ChatRequest, model: ServedModel, generation: Generation) -> None:
        self._asked = asked
        self._generation = generation
        parallel = request.fields.parallel_tool_calls
        self.reading = ChatReading(model, asked.prompts[0], 1, has_tools=bool(request.tools), parallel=parallel)
        self._builder = BlockBuilder()
        self._end: ChoiceEnd | None = None

    def begin(self, generations: list[Generation]) -> Iterable[dict[str, Any]]:
        """The message without content."""
        yield {"type": "message_start", "message": self._message([], None)}

    def piece(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Blocks as they begin, grow and end."""
        for event in self._take(piece):
            yield self._block_event(event)

    def finish(self, generations: list[Generation]) -> Iterable[dict[str, Any]]:
        """Why it stopped, and the counts."""
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence()}
        yield {"type": "message_delta", "delta": delta, "usage": self._usage()}
        yield {"type": "message_stop"}

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, Any]:
        """The message as one object."""
        for piece in pieces:
            self._take(piece)
        return self._message([self._shown(block) for block in self._builder.blocks], self._stop_reason())

    def _take(self, piece: Piece) -> list[BlockEvent]:
        events = self._builder.take(self.reading.read(piece))
        if piece.end is not None:
            self._end = piece.end
            events += self._builder.finish()
        return events

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._asked.uid,
            "type": "message",
            "role": "assistant",
            "model": self._asked.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_sequence(),
            "usage": self._usage(),
        }

    def _block_event(self, event: BlockEvent) -> dict[str, Any]:
        index = event.block.index
        if event.what == "begin":
            empty = Block(index, event.block.kind, event.block.name)
            return {"type": "content_block_start", "index": index, "content_block": self._shown(empty)}
        if event.what == "end":
            return {"type": "content_block_stop", "index": index}
        kind, member = _DELTAS[event.block.kind]
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, member: event.text}}

    def _shown(self, block: Block) -> dict[str, Any]:
        if block.kind == "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        if block.kind == "text":
            return {"type": "text", "text": block.text}
        return {
            "type": "tool_use",
            "id": f"toolu_{self._asked.uid.removeprefix('msg_')}{block.index:04}",
            "name": block.name,
            "input": _object(block.text),
        }

    def _stop_reason(self) -> str | None:
        if self._end is None:
            return None
        if self._end.reason == "length":
            return "max_tokens"
        if any(block.kind == "call" for block in self._builder.blocks):
            return "tool_use"
        return "stop_sequence" if self._stop_sequence() is not None else "end_turn"

    def _stop_sequence(self) -> str | None:
        matched = None if self._end is None else self._end.matched
        return matched if isinstance(matched, str) else None

    def _usage(self) -> dict[str, Any]:
        cached, thinking = self._generation.num_cached_tokens, self.reading.reasoning_tokens
        counted = {
            "input_tokens": self._generation.num_prompt_tokens - cached,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": self._generation.num_output_tokens,
        }
        return counted if thinking is None else counted | {"output_tokens_details": {"thinking_tokens": thinking}}


_DELTAS = {
    "reasoning": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}


def _object(text: str) -> dict[str, Any]:
    """Arguments as a value; what a cut answer left of them is none."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
