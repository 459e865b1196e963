"""One HTTP request and its answer, over bare ASGI, with the bounds that a hostile client meets.

The body is counted while it is read and must arrive in time. Every send has a time limit, so that a client which does not
read holds its own answer only, and not for long. What comes after the response has begun can no longer change its status;
`started` tells.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from appliance.gateway.asgi import Event, Headers, Receive, Scope, Send
from appliance.gateway.errors import BadRequest, BodyTimeout, BodyTooLarge, ClientGone, Overloaded, UnsupportedMedia
from appliance.gateway.framing import has_body
from appliance.gateway.identity import Principal
from appliance.gateway.observing import EndedInference
from appliance.gateway.trace_context import trace_of

_SECURITY_HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
]
_SECURITY_NAMES = frozenset(name for name, _ in _SECURITY_HEADERS)
_CREDENTIALS = (b"authorization", b"x-api-key", b"dpop")
_encoder = msgspec.json.Encoder()
ABORT = "casemate.abort"
"""Our protocol class puts the transport's `abort` under this key of the scope."""
WRITER = "casemate.writer"
"""And under this one a `StreamWriter` of the exchange's own response."""


class StreamWriter(Protocol):
    """Writes parts of a response that has begun, without waiting and without a task."""

    @property
    def is_ready(self) -> bool:
        """False before the response has begun, once it is over, and while the client is behind or gone."""
        ...

    @property
    def has_whole_body(self) -> bool:
        """Whether the request has been read to its end, so that nobody waits for more of it."""
        ...

    def take_whole_body(self) -> bytes | None:
        """What nobody has read of the request's body, if it is here to its end and somebody still waits for the answer."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether so much is unread that writing would have to wait."""
        ...

    async def catch_up(self) -> None:
        """Wait until it is not behind, or gone."""
        ...

    def begin(self, status: int, headers: Headers, chunk: bytes) -> None:
        """Write the head of a response of unknown length and its first part, in one piece; unless it `is_behind`."""
        ...

    def write(self, chunk: bytes) -> None:
        """Write a part, if it `is_ready`."""
        ...

    def finish(self, chunk: bytes) -> None:
        """Write the last part, if it `is_ready`: the response is over."""
        ...

    def watch(self, on_leave: Callable[[], None]) -> None:
        """Call this when the connection is lost; at once, if it is."""
        ...

    def unwatch(self, on_leave: Callable[[], None]) -> None:
        """No longer."""
        ...


CERTIFICATE = "casemate.certificate"
"""Our protocol class puts the client's certificate, DER, under this key of the scope, if it showed one."""


class BodyBudget:
    """Bytes of all bodies that one worker holds: many clients with large bodies must not take its memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Hold more. Raises: Overloaded."""
        if self._num_bytes + num_bytes > self._max_bytes:
            raise Overloaded("overloaded", "the bodies of the open requests are larger than this worker may hold")
        self._num_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Hold less."""
        self._num_bytes -= num_bytes


class Exchange:
    """A request that the gate admitted, and the way to answer it.

    Attributes:
        trace: which trace the request belongs to, and our span in it.
        request_id: ours, in `x-request-id`; what the client sends under that name is not read.
        principal: who asks; None on a public route without a token.
        segment: the value of the path's variable segment.
        started: the status line is out.
        finished: the last byte is.
        status: what was answered, for the metrics; 0 before.
        error: the stable word for what went wrong; empty before, and if nothing does.
        describe: tells of the inference, once there is one.
        writer: writes as `send_chunk` does, but at once, while the client keeps up.
        also_names_request: another header with `request_id`, where an API's clients look for it under that name.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        send_timeout_s: float,
        budget: BodyBudget,
        statement: bytes = b"",
        id_prefix: str = "req",
    ) -> None:
        """`id_prefix` begins the request's id, unless it is given one."""
        self._id_prefix = id_prefix
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._send_timeout_s = send_timeout_s
        self._budget = budget
        self._statement = statement
        self.writer: StreamWriter | None = scope.get(WRITER)
        self._num_body_bytes = 0
        self._body_was_read = False
        self._headers: Headers = scope["headers"]
        self._fields = dict(self._headers)
        """The last value of each name: most names are looked up, and nearly none is repeated."""
        self._request_id = ""
        self.trace = trace_of(self._headers if b"traceparent" in self._fields else ())
        self.principal: Principal | None = None
        self.segment = ""
        self.started = False
        self.finished = False
        self.status = 0
        self.error = ""
        self.describe: Callable[[], EndedInference] | None = None
        self.also_names_request = b""

    @property
    def request_id(self) -> str:
        """Made when it is first asked for: an answer of a model has its own."""
        self._request_id = self._request_id or f"{self._id_prefix}-{secrets.token_hex(16)}"
        return self._request_id

    @request_id.setter
    def request_id(self, name: str) -> None:
        """It has another one from now on."""
        self._request_id = name

    @property
    def identified(self) -> Principal:
        """The principal of a route that needs a token."""
        assert self.principal is not None
        return self.principal

    @property
    def query(self) -> bytes:
        """As it was sent."""
        raw: bytes = self._scope["query_string"]
        return raw

    @property
    def source_address(self) -> str:
        """Address of the connection's other end. Headers that claim another are not read."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    @property
    def source_port(self) -> int:
        """Port of the connection's other end."""
        client = self._scope.get("client")
        return int(client[1]) if client else 0

    @property
    def wants_outcome(self) -> bool:
        """The client asks for the outcome's index in a comment of its stream."""
        return (b"casemate-audit-outcome", b"comment") in self._headers

    def _header(self, name: bytes) -> bytes | None:
        if len(self._fields) < len(self._headers) and [key for key, _ in self._headers].count(name) > 1:
            raise BadRequest("repeated_header", f"the header {name.decode()} is repeated")
        return self._fields.get(name)

    def forget_credentials(self) -> None:
        """The gate has seen them; an open stream need not keep its token in memory."""
        self._headers[:] = [header for header in self._headers if header[0] not in _CREDENTIALS]
        for name in _CREDENTIALS:
            self._fields.pop(name, None)

    async def read_body(self) -> bytes:
        """Read the whole JSON body.

        Raises: UnsupportedMedia, BodyTooLarge, BodyTimeout, BadRequest, Overloaded, ClientGone.
        """
        self._verify_media()
        length = self._header(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._max_body_bytes):
            raise _too_large(self._max_body_bytes)
        writer = self.writer
        body = None if writer is None else writer.take_whole_body()
        if body is not None:  # Nearly always: there is nothing to wait for, and no timer to be set for it.
            self._hold(body)
            self._body_was_read = True
            return body
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await self._receive_body()
        except TimeoutError:
            raise BodyTimeout("body_timeout", f"the request body took longer than {self._body_timeout_s:g} s") from None

    async def _receive_body(self) -> bytes:
        parts: list[bytes] = []
        while not self._body_was_read:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone("client_disconnected", "the client left while sending its request")
            part: bytes = event.get("body", b"")
            self._hold(part)
            parts.append(part)
            self._body_was_read = not event.get("more_body", False)
        return b"".join(parts)

    def _hold(self, part: bytes) -> None:
        if self._num_body_bytes + len(part) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)
        self._budget.take(len(part))
        self._num_body_bytes += len(part)

    def _verify_media(self) -> None:
        media = (self._header(b"content-type") or b"").lower()
        kind, _, parameter = media.partition(b";")
        if kind.strip() != b"application/json" or parameter.strip() not in (b"", b"charset=utf-8", b'charset="utf-8"'):
            raise UnsupportedMedia("unsupported_media_type", "the request body must be application/json in UTF-8")
        if (self._header(b"content-encoding") or b"identity").lower() != b"identity":
            raise UnsupportedMedia("unsupported_content_encoding", "compressed request bodies are not accepted")

    async def respond(self, status: int, body: Any, headers: Headers | None = None) -> None:
        """Send a whole JSON answer."""
        await self.respond_bytes(status, _encoder.encode(body), b"application/json", headers)

    async def respond_bytes(self, status: int, body: bytes, media: bytes, headers: Headers | None = None) -> None:
        """Send a whole answer of any kind."""
        await self._start(status, [(b"content-type", media), (b"content-length", b"%d" % len(body)), *(headers or [])])
        await self._send_in_time({"type": "http.response.body", "body": body, "more_body": False})
        self.finished = True

    async def start_stream(self, headers: Headers, first: bytes) -> None:
        """Begin a stream of server-sent events with its first part. Proxies are asked not to buffer it.

        Raises: ClientGone if the client does not take it in time.
        """
        self.started, self.status = True, 200
        head = self._complete_headers([*_STREAM_HEADERS, *headers])
        writer = self.writer
        if writer is not None:
            await self._catch_up(writer)
            writer.begin(200, head, first)
            return
        await self._send_in_time({"type": "http.response.start", "status": 200, "headers": head})
        await self._send_in_time({"type": "http.response.body", "body": first, "more_body": True})

    async def send_chunk(self, chunk: bytes) -> None:
        """Send a part of a stream.

        Raises: ClientGone if the client does not take it in time.
        """
        writer = self.writer
        if writer is None:
            await self._send_in_time({"type": "http.response.body", "body": chunk, "more_body": True})
            return
        await self._catch_up(writer)
        if writer.is_ready:
            writer.write(chunk)

    async def end_stream(self, last: bytes = b"") -> None:
        """End a stream in good order, after a last part."""
        writer = self.writer
        if writer is None:
            await self._send_in_time({"type": "http.response.body", "body": last, "more_body": False})
        else:
            await self._catch_up(writer)
            if writer.is_ready:
                writer.finish(last)
        self.finished = True

    async def _catch_up(self, writer: StreamWriter) -> None:
        """Let the client read what it has not. Raises: ClientGone if it does not in time."""
        if not writer.is_behind:
            return
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await writer.catch_up()
        except TimeoutError:
            raise self._stalled() from None

    def _stalled(self) -> ClientGone:
        return ClientGone("client_stalled", f"the client read nothing for {self._send_timeout_s:g} s")

    async def _start(self, status: int, headers: Headers) -> None:
        self.started, self.status = True, status
        head = self._complete_headers(headers)
        await self._send_in_time({"type": "http.response.start", "status": status, "headers": head})

    def _complete_headers(self, headers: Headers) -> Headers:
        """An answer's own headers, and those that every answer has; what it says itself is not said again."""
        own: Headers = [(b"x-request-id", self.request_id.encode()), (b"traceresponse", self.trace.traceresponse)]
        names = dict(headers).keys()
        if names.isdisjoint(_SECURITY_NAMES):
            own += _SECURITY_HEADERS
        else:
            own += [header for header in _SECURITY_HEADERS if header[0] not in names]
        if self.also_names_request:
            own.append((self.also_names_request, self.request_id.encode()))
        if self.principal is not None:
            own += self.principal.notice.headers
            if self.principal.dpop_nonce:
                own.append((b"dpop-nonce", self.principal.dpop_nonce.encode()))
        if self._statement:
            own.append((b"casemate-statement", self._statement))
        if not self._body_was_read and has_body(self._headers):
            # What is left of the body would otherwise be read for ever, at whatever pace its sender likes.
            own.append((b"connection", b"close"))
        return [*headers, *own]

    def release(self) -> None:
        """The exchange is over: its body is held no longer, and nothing holds the exchange in a circle."""
        self._budget.give_back(self._num_body_bytes)
        self._num_body_bytes = 0
        self.writer = None
        self._scope.pop(WRITER, None)

    async def _send_in_time(self, event: Event) -> None:
        writer = self.writer
        try:
            if writer is not None and not writer.is_behind:
                # Only a client that is behind makes us wait; for the others a timer would be set and taken back in vain.
                await self._send(event)
                return
            async with asyncio.timeout(self._send_timeout_s):
                await self._send(event)
        except TimeoutError:
            raise self._stalled() from None
        except OSError as error:
            raise ClientGone("client_disconnected", "the client left") from error

    def cut(self) -> None:
        """Cut the connection at once, unless the answer is out: what the client has not read by now is dropped."""
        abort = self._scope.get(ABORT)
        if abort is not None and not self.finished:
            abort()

    async def abort(self) -> None:
        """Cut the connection, and let the server notice before the request ends."""
        self.cut()
        await asyncio.sleep(0)

    def watch(self, on_leave: Callable[[], None]) -> None:
        """Call `on_leave` as soon as the client leaves, until `unwatch`.

        ASGI has a message for it, which a task of its own would wait for; thousands of open streams would have thousands of them.
        """
        if (writer := self.writer) is not None:
            writer.watch(on_leave)

    def unwatch(self, on_leave: Callable[[], None]) -> None:
        """The client may leave."""
        if (writer := self.writer) is not None:
            writer.unwatch(on_leave)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge("body_too_large", f"the request body is larger than {limit} bytes")
