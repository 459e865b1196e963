"""An answer on its way to the client: as server-sent events, or collected into one object.

Nothing is sent before the first token is here: until then a failure still has a status code of its own. Afterwards it is an
event with OpenAI's error body, and the stream ends without `[DONE]`. A good stream ends with the outcome's index in a comment,
`: casemate-audit-outcome 1234`, which clients of named events skip. Where events have no names, some read each line as data (the
load generator of SGLang 0.5 does), so whoever wants the comment there asks for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from msgspec import UNSET

from appliance.gateway.api.dialects import Dialect
from appliance.gateway.api.shapes import CachedTokens, CompletionDetails, Usage
from appliance.gateway.asgi import Headers
from appliance.gateway.errors import ClientGone, GatewayFault
from appliance.gateway.exchange import Exchange, StreamWriter
from appliance.gateway.flow.answer import Answer
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.generation import Generation
from appliance.gateway.sse import comment

CUT_AFTER_S = 0.5
"""A stream that must end is given so long to take its last event, then its connection is cut."""


class Events(Protocol):
    """How one API words its events."""

    @property
    def dialect(self) -> Dialect:
        """How they go over the wire."""
        ...

    def begin(self, generations: list[Generation]) -> Iterable[object]:
        """Before the first token's."""
        ...

    def piece(self, piece: Piece) -> Iterable[object]:
        """For a piece of one choice."""
        ...

    def finish(self, generations: list[Generation]) -> Iterable[object]:
        """After the last, when all is recorded."""
        ...


async def stream(
    exchange: Exchange,
    answer: Answer,
    events: Events,
    keep: Callable[[], Awaitable[None]],
    fail: Callable[[GatewayFault], bytes],
) -> None:
    """Send the answer as events.

    Args:
        keep: awaited when all of them are worded, before the last are sent.
        fail: words the last events of an answer that fails.
    Raises: GatewayFault; where the response has begun, the client has been told.
    """
    loop = asyncio.get_running_loop()
    first = await answer.next_pieces()
    opening = [events.dialect.event(data) for data in events.begin(answer.generations)]
    opening += _worded(events, first)
    answer.response_started = True
    # A client that does not read must not keep its connection when the answer has to end.
    answer.on_fail = lambda: loop.call_later(CUT_AFTER_S, exchange.cut)
    await exchange.start_stream(audit_headers(answer), b"".join(opening))
    try:
        if exchange.writer is not None:
            answer.sink = _Live(exchange.writer, events)
        while pieces := await answer.next_pieces():
            worded = _worded(events, pieces)
            if worded:
                await exchange.send_chunk(b"".join(worded))
        closing = [events.dialect.event(data) for data in events.finish(answer.generations)]
        await keep()
        if events.dialect.has_names or exchange.wants_outcome:
            closing.append(comment(f"casemate-audit-outcome {answer.outcome_indices}"))
        closing.append(events.dialect.done)
        await exchange.end_stream(b"".join(closing))
    except ClientGone:
        raise
    except GatewayFault as fault:
        await exchange.end_stream(fail(fault))
        raise


class _Live:
    """A stream whose client keeps up: pieces become events and are written in the call that brings them."""

    def __init__(self, writer: StreamWriter, events: Events) -> None:
        self._writer = writer
        self._events = events

    @property
    def is_ready(self) -> bool:
        """See `Sink`."""
        return self._writer.is_ready

    def take(self, piece: Piece) -> None:
        """See `Sink`."""
        worded = _worded(self._events, (piece,))
        if worded:
            self._writer.write(b"".join(worded))


async def collect(answer: Answer) -> list[Piece]:
    """The whole answer, when it is there and recorded. Raises: GatewayFault."""
    collected: list[Piece] = []
    while pieces := await answer.next_pieces():
        collected += pieces
    answer.response_started = True
    return collected


def audit_headers(answer: Answer, *, with_outcome: bool = False) -> Headers:
    """Where the log has this request."""
    headers: Headers = [(b"casemate-audit-index", answer.intent_indices.encode())]
    if with_outcome:
        headers.append((b"casemate-audit-outcome", answer.outcome_indices.encode()))
    return headers


def usage(generations: Iterable[Generation], reasoning_tokens: int | None = None) -> Usage:
    """Counts over all prompts and choices; `reasoning_tokens` where the model reasons."""
    prompt = cached = output = proposed = accepted = verified = 0
    for generation in generations:
        prompt += generation.num_prompt_tokens
        cached += generation.num_cached_tokens
        output += generation.num_output_tokens
        if generation.summary is not None:
            proposed += generation.summary.num_proposed
            accepted += generation.summary.num_accepted
            verified += generation.summary.num_verified
    details = CompletionDetails()
    if reasoning_tokens is not None:
        details.reasoning_tokens = reasoning_tokens
    if proposed:
        details.accepted_prediction_tokens, details.rejected_prediction_tokens = accepted, proposed - accepted
        details.spec_verify_ct = verified
    is_empty = reasoning_tokens is None and not proposed
    return Usage(prompt, output, prompt + output, CachedTokens(cached), UNSET if is_empty else details)


def _worded(events: Events, pieces: Iterable[Piece]) -> list[bytes]:
    return [events.dialect.event(data) for piece in pieces for data in events.piece(piece)]
