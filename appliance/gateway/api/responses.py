"""`POST /v1/responses`: answers as rows of items; whole, as typed events, or made in the background; and kept for a while."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from appliance.gateway.api.background import Background
from appliance.gateway.api.background_store import Key
from appliance.gateway.api.chat_request import parse_chat_request
from appliance.gateway.api.endpoint import Inference, keep_nothing
from appliance.gateway.api.following import follow
from appliance.gateway.api.intake import Intake, new_uid
from appliance.gateway.api.naming import named_as
from appliance.gateway.api.response_conversation import load_conversation
from appliance.gateway.api.response_reasoning import ReasoningSeal
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.response_words import ResponseWords
from appliance.gateway.api.responses_request import (
    CHAT_NAMES,
    ResponsesFields,
    chat_body,
    parse_responses,
    tool_places,
)
from appliance.gateway.api.streaming import audit_headers
from appliance.gateway.errors import BadRequest, GatewayFault
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.answer import Answer
from appliance.gateway.identity import Principal
from appliance.gateway.observing import EndedInference, EndedRequest, Observer
from appliance.gateway.trace_context import TraceContext

ROUTE = "/v1/responses"


class ResponsesApi:
    """Answers conversations."""

    def __init__(
        self, intake: Intake, store: ResponseStore, background: Background, observer: Observer | None = None
    ) -> None:
        """`observer` is told of the end of what is made in the background; of requests it hears by itself."""
        self._intake = intake
        self._store = store
        self._background = background
        self._observer = observer

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body. Raises: GatewayFault."""
        fields = parse_responses(body)
        self._verify_kept(fields)
        items = await load_conversation(self._store, principal.tenant, fields)
        with named_as(CHAT_NAMES, tool_places(fields), "parameters"):
            request = parse_chat_request(chat_body(fields, items), self._intake.settings)
            asked, model = await self._intake.ask_chat(principal, request, new_uid("resp", "_"), ROUTE)
        if fields.background:
            asked = msgspec.structs.replace(asked, parameters={**asked.parameters, "background": 1})
        is_kept = self._store.keeps and fields.store is not False
        seal = ReasoningSeal(self._store.file, principal.tenant).seal
        words = ResponseWords(asked, fields, request, model, items, is_kept=is_kept, seal=seal)
        keep = partial(self._keep, principal.tenant, words)
        start = partial(self._start, Key(principal.tenant, asked.uid), words, fields.stream)
        return Inference(
            asked,
            model.tokenizer.vocabulary,
            fields.stream,
            lambda answer, _at: words.attach(answer.generations[0]),
            keep if is_kept else keep_nothing,
            words.fail,
            start if fields.background else None,
        )

    def _verify_kept(self, fields: ResponsesFields) -> None:
        """Raises: BadRequest."""
        for name in ("background", "store"):
            if getattr(fields, name) and not self._store.keeps:
                message = f"{name}: this appliance keeps no responses (gateway.response_retention_s is 0)"
                raise BadRequest("unsupported_parameter", message, parameter=name)

    async def _keep(self, tenant: str, words: ResponseWords) -> None:
        """Raises: PeerUnavailable."""
        await self._store.put(tenant, words.response["id"], words.record)

    async def _start(
        self, key: Key, words: ResponseWords, is_streamed: bool, exchange: Exchange, answer: Answer
    ) -> None:
        """Answer that it has begun, or with its events."""
        words.attach(answer.generations[0])
        describe = partial(answer.describe, is_streamed=is_streamed, read=words.reading)
        told = partial(self._tell, describe, exchange.trace.child(), time.monotonic())
        await self._background.start(key, answer, words, is_streamed=is_streamed, told=told)
        if is_streamed:
            await follow(exchange, self._background, key, 0, audit_headers(answer))
        else:
            await exchange.respond(200, words.response, audit_headers(answer))

    def _tell(
        self, describe: Callable[[], EndedInference], trace: TraceContext, began: float, fault: GatewayFault | None
    ) -> None:
        if self._observer is None:
            return
        code, took_s = "" if fault is None else fault.code, time.monotonic() - began
        self._observer.request_ended(EndedRequest(trace, "POST", ROUTE, 200, took_s, code, describe()))
