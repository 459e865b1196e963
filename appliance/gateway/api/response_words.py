"""One response of `/v1/responses` in words: as typed events while it grows, and as a whole."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import msgspec

from appliance.gateway.api.blocks import BlockBuilder, BlockEvent
from appliance.gateway.api.chat_request import ChatRequest
from appliance.gateway.api.dialects import RESPONSES, responses_error
from appliance.gateway.api.logprobs import token_logprob
from appliance.gateway.api.reading import ChatReading
from appliance.gateway.api.response_items import added_events, delta_event, done_events, shown_item
from appliance.gateway.api.response_turns import Item
from appliance.gateway.api.responses_request import ENCRYPTED, ResponsesFields, namespaced
from appliance.gateway.errors import GatewayFault, InternalFault
from appliance.gateway.flow.choice import ChoiceEnd, Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.request import Asked
from appliance.gateway.models import ServedModel

Event = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
_IN_TIME = ("rate_limit", "too_many_requests", "quota_exhausted", "queue_full")
"""Codes of ours that mean what OpenAI calls `rate_limit_exceeded`. Of its other codes of failures `server_error` is the nearest."""


class ResponseWords:
    """Words one response."""

    dialect = RESPONSES

    def __init__(
        self,
        asked: Asked,
        fields: ResponsesFields,
        request: ChatRequest,
        model: ServedModel,
        items: list[Item],
        *,
        is_kept: bool,
        seal: Callable[[str], str],
    ) -> None:
        """
        Args:
            items: the conversation up to the answer.
            is_kept: what the response says of itself.
            seal: encrypts reasoning, for who asked for it so.
        """
        self._asked = asked
        self._fields = fields
        self._items = items
        self._is_kept = is_kept
        self._seal = seal if ENCRYPTED in fields.include else None
        self._created = int(time.time())
        self._number = 0
        self._builder = BlockBuilder()
        self._namespaced = namespaced(fields.tools)
        self._end: ChoiceEnd | None = None
        self._generation: Generation
        self.response: dict[str, Any] = {}
        """As it was told last."""
        self.reading = ChatReading(
            model,
            asked.prompts[0],
            1,
            has_tools=bool(request.tools),
            parallel=request.fields.parallel_tool_calls,
            score=partial(token_logprob, model.tokenizer.vocabulary) if request.logprobs >= 0 else None,
        )

    def attach(self, generation: Generation) -> "ResponseWords":
        """The answer begins."""
        self._generation = generation
        self._show("in_progress")
        return self

    @property
    def record(self) -> bytes:
        """What is kept: the response as it was told last, and the conversation up to its end."""
        return msgspec.json.encode({"response": self.response, "items": [*self._items, *self.response["output"]]})

    def begin(self, generations: list[Generation]) -> Iterable[Event]:
        """The response without output."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._show("in_progress"))

    def piece(self, piece: Piece) -> Iterable[Event]:
        """Items as they begin, grow and end."""
        for event in self._take(piece):
            yield from self._item_events(event)

    def finish(self, generations: list[Generation]) -> Iterable[Event]:
        """The response as a whole."""
        response = self._finished()
        yield self._event(f"response.{response['status']}", response=response)

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> dict[str, Any]:
        """The response as one object."""
        for piece in pieces:
            self._take(piece)
        return self._finished()

    def fail(self, fault: GatewayFault) -> bytes:
        """The last events of a stream that fails: the error, and the response as far as it has come."""
        if self.response["status"] != "in_progress":
            self._number -= 1  # Its end was worded, and nobody has seen it.
        error = responses_error(fault, self._number)
        self._number += 1
        return b"".join(self.dialect.event(event) for event in (error, *self.stop("failed", fault)))

    def stop(self, status: Literal["failed", "cancelled"], fault: GatewayFault) -> Iterable[Event]:
        """The response as far as it has come, which is its end; after a bug of ours, as it was told last."""
        if isinstance(fault, InternalFault):
            error = error_of(fault) if status == "failed" else None
            self.response = self.response | {"status": status, "error": error}
            yield self._event(f"response.{status}", response=self.response)
            return
        for event in self._noted(self._builder.finish(is_cut=True)) if self._builder.blocks else ():
            yield from self._item_events(event)
        yield self._event(f"response.{status}", response=self._show(status, fault))

    def recall(self) -> Iterable[Event]:
        """Another last event in place of the one before, which nobody has seen: it was cancelled."""
        self._number -= 1
        yield self._event("response.cancelled", response=self._show("cancelled"))

    def _take(self, piece: Piece) -> list[BlockEvent]:
        events = self._builder.take(self.reading.read(piece))
        if piece.end is not None:
            self._end = piece.end
            events += self._builder.finish(is_cut=piece.end.reason == "length")
        return self._noted(events)

    def _noted(self, events: list[BlockEvent]) -> list[BlockEvent]:
        """The blocks of these events with what they have beyond the model's words."""
        for event in events:
            block = event.block
            if event.what == "begin" and block.name in self._namespaced:
                block.namespace, block.name = self._namespaced[block.name]
            elif event.what == "end" and block.kind == "reasoning" and self._seal is not None:
                block.encrypted = self._seal(block.text)
        return events

    def _finished(self) -> dict[str, Any]:
        is_cut = self._end is not None and self._end.reason == "length"
        return self._show("incomplete" if is_cut else "completed")

    def _item_events(self, event: BlockEvent) -> Iterable[Event]:
        block = event.block
        if event.what == "begin":
            empty = dataclasses.replace(block, text="", is_cut=False, scores=[], encrypted="")
            yield from (self._event(kind, **members) for kind, members in added_events(self._asked.uid, empty))
        elif event.what == "end":
            yield from (self._event(kind, **members) for kind, members in done_events(self._asked.uid, block))
        else:
            kind, members = delta_event(self._asked.uid, event)
            yield self._event(kind, **members)

    def _event(self, kind: str, **members: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **members}

    def _show(self, status: Status, fault: GatewayFault | None = None) -> dict[str, Any]:
        fields, sampling = self._fields, self._asked.sampling
        is_over = status != "in_progress"
        self.response = {
            "id": self._asked.uid,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": fields.background,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": error_of(fault) if status == "failed" and fault is not None else None,
            "frequency_penalty": sampling.frequency_penalty,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": fields.instructions,
            "max_output_tokens": fields.max_output_tokens,
            "max_tool_calls": None,
            "model": self._asked.model,
            "output": [shown_item(self._asked.uid, block) for block in self._builder.blocks] if is_over else [],
            "parallel_tool_calls": fields.parallel_tool_calls,
            "presence_penalty": sampling.presence_penalty,
            "previous_response_id": fields.previous_response_id,
            "prompt_cache_key": fields.prompt_cache_key,
            "reasoning": {"effort": fields.reasoning.effort, "summary": None},
            "safety_identifier": fields.safety_identifier,
            "service_tier": "default",
            "store": self._is_kept,
            "temperature": sampling.temperature,
            "text": {"format": _shown_format(fields.text.format), "verbosity": "medium"},
            "tool_choice": fields.tool_choice,
            "tools": [msgspec.to_builtins(tool) for tool in fields.tools],
            "top_logprobs": fields.top_logprobs,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": self._usage() if is_over else None,
            "user": fields.user or None,
            "metadata": fields.metadata,
        }
        return self.response

    def _usage(self) -> dict[str, Any]:
        generation = self._generation
        output = generation.num_output_tokens
        return {
            "input_tokens": generation.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": generation.num_cached_tokens, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": self.reading.reasoning_tokens or 0},
            "total_tokens": generation.num_prompt_tokens + output,
        }


def _shown_format(asked: dict[str, Any]) -> dict[str, Any]:
    """With what it says by its absence."""
    shown = {"type": "text"} | asked
    return {"description": None, "strict": False} | shown if shown["type"] == "json_schema" else shown


def error_of(fault: GatewayFault) -> dict[str, Any]:
    """`error` of a response that failed: one of OpenAI's codes, ours before the message."""
    code = "rate_limit_exceeded" if fault.code in _IN_TIME else "server_error"
    return {"code": code, "message": f"{fault.code}: {fault}"}
