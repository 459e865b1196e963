"""`/v1/responses`: answers as rows of items, streamed as typed events, and kept for a while if asked and allowed."""

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from appliance.gateway.api.blocks import Block, BlockBuilder, BlockEvent
from appliance.gateway.api.chat_request import ChatRequest, parse_chat_request
from appliance.gateway.api.dialects import RESPONSES
from appliance.gateway.api.endpoint import Inference
from appliance.gateway.api.intake import Intake, new_uid
from appliance.gateway.api.reading import ChatReading
from appliance.gateway.api.response_conversation import load_conversation
from appliance.gateway.api.response_items import added_events, done_events, item_of, shown_item
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.responses_request import Item, ResponsesFields, chat_body, parse_responses
from appliance.gateway.errors import BadRequest
from appliance.gateway.flow.choice import ChoiceEnd, Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.models import ServedModel

ROUTE = "/v1/responses"


class ResponsesApi:
    """Answers conversations."""

    def __init__(self, intake: Intake, store: ResponseStore) -> None:
        self._intake = intake
        self._store = store

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        fields = parse_responses(body)
        if fields.store and not self._store.keeps:
            message = "store: this appliance keeps no responses (gateway.response_retention_s is 0)"
            raise BadRequest("unsupported_parameter", message, parameter="store")
        items = await load_conversation(self._store, principal.tenant, fields)
        request = parse_chat_request(chat_body(fields, items), self._intake.settings)
        asked, model = await self._intake.ask_chat(principal, request, new_uid("resp", "_"), ROUTE)
        store = self._store if self._store.keeps and fields.store is not False else None
        words = _ResponseWords(asked, fields, request, model, items, _Keeper(store, principal.tenant))
        return Inference(
            asked,
            model.tokenizer.vocabulary,
            fields.stream,
            lambda answer, _at: words.attach(answer.generations[0]),
            words.keep,
        )


class _Keeper:
    """Keeps one response, or does not."""

    def __init__(self, store: ResponseStore | None, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self.keeps = store is not None

    async def keep(self, response: dict[str, Any], items: list[Item]) -> None:
        """The response, and the conversation up to its end. Raises: PeerUnavailable."""
        if self._store is not None:
            body = msgspec.json.encode({"response": response, "items": [*items, *response["output"]]})
            await self._store.put(self._tenant, response["id"], body)


class _ResponseWords:
    """Words one response, as events or as a whole."""

    dialect = RESPONSES

    def __init__(
        self,
        asked: Asked,
        fields: ResponsesFields,
        request: ChatRequest,
        model: ServedModel,
        items: list[Item],
        keeper: _Keeper,
    ) -> None:
        self._asked = asked
        self._fields = fields
        self._items = items
        self._keeper = keeper
        self._created = int(time.time())
        self._number = 0
        self._builder = BlockBuilder()
        self._end: ChoiceEnd | None = None
        self._response: dict[str, Any] | None = None
        self._generation: Generation
        parallel = request.fields.parallel_tool_calls
        self._reading = ChatReading(model, asked.prompts[0], 1, has_tools=bool(request.tools), parallel=parallel)

    def attach(self, generation: Generation) -> "_ResponseWords":
        """The answer begins."""
        self._generation = generation
        return self

    def begin(self, generations: list[Generation]) -> Iterable[dict[str, Any]]:
        """The response without output."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._shown("in_progress"))

    def piece(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Items as they begin, grow and end."""
        for event in self._take(piece):
            yield from self._item_events(event)

    def finish(self, generations: list[Generation]) -> Iterable[dict[str, Any]]:
        """The response as a whole."""
        response = self._ended()
        yield self._event(f"response.{response['status']}", response=response)

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, Any]:
        """The response as one object."""
        for piece in pieces:
            self._take(piece)
        return self._ended()

    def _take(self, piece: Piece) -> list[BlockEvent]:
        events = self._builder.take(self._reading.read(piece))
        if piece.end is not None:
            self._end = piece.end
            events += self._builder.finish(is_cut=piece.end.reason == "length")
        return events

    async def keep(self) -> None:
        """Keep the response that `finish` or `whole` gave. Raises: PeerUnavailable."""
        if self._response is not None:
            await self._keeper.keep(self._response, self._items)

    def _ended(self) -> dict[str, Any]:
        is_cut = self._end is not None and self._end.reason == "length"
        self._response = self._shown("incomplete" if is_cut else "completed")
        return self._response

    def _item_events(self, event: BlockEvent) -> Iterable[dict[str, Any]]:
        block = event.block
        if event.what == "begin":
            empty = Block(block.index, block.kind, block.name)
            yield from (self._event(kind, **members) for kind, members in added_events(self._asked.uid, empty))
        elif event.what == "end":
            yield from (self._event(kind, **members) for kind, members in done_events(self._asked.uid, block))
        else:
            kind, place = item_of(self._asked.uid, block)
            yield self._event(f"response.{kind}.delta", **place, delta=event.text)

    def _event(self, kind: str, **members: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **members}

    def _shown(self, status: str) -> dict[str, Any]:
        fields, sampling = self._fields, self._asked.sampling
        is_over = status != "in_progress"
        return {
            "id": self._asked.uid,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": fields.instructions,
            "max_output_tokens": fields.max_output_tokens,
            "model": self._asked.model,
            "output": [shown_item(self._asked.uid, block) for block in self._builder.blocks] if is_over else [],
            "parallel_tool_calls": fields.parallel_tool_calls,
            "previous_response_id": fields.previous_response_id,
            "reasoning": {"effort": fields.reasoning.effort, "summary": None},
            "store": self._keeper.keeps,
            "temperature": sampling.temperature,
            "text": {"format": fields.text.format},
            "tool_choice": fields.tool_choice,
            "tools": [msgspec.to_builtins(tool) for tool in fields.tools],
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": self._usage() if is_over else None,
            "user": fields.user or None,
            "metadata": fields.metadata,
        }

    def _usage(self) -> dict[str, Any]:
        generation = self._generation
        output = generation.num_output_tokens
        return {
            "input_tokens": generation.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": generation.num_cached_tokens, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": self._reading.reasoning_tokens or 0},
            "total_tokens": generation.num_prompt_tokens + output,
        }
