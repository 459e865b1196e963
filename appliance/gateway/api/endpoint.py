"""One endpoint for every API that computes: read, check, answer as a stream or as a whole.

What differs between them is an `Inference`: what is asked of the model, and how its answer is worded.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import msgspec

from appliance.gateway.api.streaming import Events, audit_headers, collect, stream
from appliance.gateway.body import parse_object
from appliance.gateway.errors import GatewayFault
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.answer import Answer
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.records import Source
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.observing import ReadAnswer
from appliance.gateway.text.vocabulary import Vocabulary


class Words(Events, Protocol):
    """How one API words one answer."""

    @property
    def reading(self) -> ReadAnswer | None:
        """What it finds in the text, if it looks for anything there."""
        ...

    def whole(self, pieces: list[Piece], generations: list[Generation]) -> object:
        """The answer as one object."""
        ...


async def keep_nothing() -> None:
    """Nothing of the answer is kept."""


class Inference(msgspec.Struct, frozen=True):
    """A request that is sound. `words` is called when the answer begins, with the time at which the request had arrived."""

    asked: Asked
    vocabulary: Vocabulary
    stream: bool
    words: Callable[[Answer, float], Words]
    keep: Callable[[], Awaitable[None]] = keep_nothing
    """Awaited when the answer has been worded to its end, before its last part is sent."""
    fail: Callable[[GatewayFault], bytes] | None = None
    """The last events of a stream that fails, if there is more to say than its dialect does."""
    hand_over: Callable[[Exchange, Answer], Awaitable[None]] | None = None
    """Where the answer does not end with its request: takes it as it is, not entered, and answers the request."""


class Api(Protocol):
    """One API's own part of a request."""

    async def prepare(self, body: dict[str, Any], principal: Principal) -> Inference:
        """Check a body, all of step (3). Raises: GatewayFault."""
        ...


class InferenceEndpoint:
    """Answers the requests of one API."""

    def __init__(self, desk: Desk, api: Api) -> None:
        self._desk = desk
        self._api = api

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        self._desk.verify_accepting()
        await self.answer(exchange, parse_object(await exchange.read_body()))

    async def answer(self, exchange: Exchange, body: dict[str, Any]) -> None:
        """Answer a request whose body has been read."""
        self._desk.verify_accepting()
        arrived_at = time.monotonic()
        # (3) all that can be refused about the request itself.
        inference = await self._api.prepare(body, exchange.identified)
        exchange.request_id = inference.asked.uid
        source = Source(exchange.source_address, exchange.source_port, exchange.trace.trace_id)
        answer = Answer(self._desk, inference.asked, exchange.identified, source, inference.vocabulary, arrived_at)
        if inference.hand_over is not None:
            await inference.hand_over(exchange, answer)
            return
        exchange.describe = partial(answer.describe, is_streamed=inference.stream)
        exchange.watch(answer.client_left)
        try:
            async with answer:
                words = inference.words(answer, arrived_at)
                exchange.describe = partial(answer.describe, is_streamed=inference.stream, read=words.reading)
                await _deliver(exchange, answer, inference, words)
        finally:
            exchange.unwatch(answer.client_left)


async def _deliver(exchange: Exchange, answer: Answer, inference: Inference, words: Words) -> None:
    if inference.stream:
        await stream(exchange, answer, words, inference.keep, inference.fail or words.dialect.fault)
        return
    pieces = await collect(answer)
    whole = words.whole(pieces, answer.generations)
    await inference.keep()
    await exchange.respond(200, whole, audit_headers(answer, with_outcome=True))
