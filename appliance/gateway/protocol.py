"""HTTP/1.1 on one connection: uvicorn's httptools protocol with the limits that it lacks.

httptools (llhttp, in C) rather than h11: it parses strictly as well, and takes a fraction of the CPU that h11 does, which
counts at a thousand requests a second on two cores. What h11 would have bounded is bounded here: the size of the headers
and the time they may take; `listening` bounds the connections. Trailers are refused: they would join headers that have been
read already; so are hosts and transfer codings that others could read in another way. A malformed request gets OpenAI's error
body as any other error does.
"""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from appliance.gateway.asgi import Headers
from appliance.gateway.errors import BadRequest, error_body
from appliance.gateway.exchange import ABORT, CERTIFICATE, WRITER
from appliance.gateway.framing import has_body, verify_framing, verify_target
from appliance.gateway.listening import Place
from appliance.gateway.settings import GatewaySettings

_LINGER_S = 0.5
_MAX_LINGERS = 10
"""An answer need not wait for its request's body, as a refusal does not. The rest is read and forgotten, until no more comes for so
long, or so often: a connection that is closed while bytes are on their way is reset, and the client may never see the answer."""

_HEADER_BYTES = len(b": \r\n")


class _CycleWriter:
    """Writes one response that is streamed: as `RequestResponseCycle.send` does, which looks at each header by itself and is a
    coroutine. In HTTP/1.0, which knows no chunks (RFC 9112 section 6.1), the end of the connection is the response's.
    """

    def __init__(self, cycle: RequestResponseCycle, connection: "GatewayProtocol") -> None:
        self._cycle = cycle
        self._connection = connection

    @property
    def is_ready(self) -> bool:
        """See `exchange.StreamWriter`."""
        cycle = self._cycle
        return (
            cycle.response_started
            and not cycle.response_complete
            and not cycle.disconnected
            and not cycle.flow.write_paused
        )

    @property
    def has_whole_body(self) -> bool:
        """See `exchange.StreamWriter`."""
        return not self._cycle.more_body

    def take_whole_body(self) -> bytes | None:
        """See `exchange.StreamWriter`: what `RequestResponseCycle.receive` gives, which is a coroutine and waits for an event."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.flow.resume_reading()
        return body

    @property
    def is_behind(self) -> bool:
        """See `exchange.StreamWriter`."""
        return self._cycle.flow.write_paused

    def begin(self, status: int, headers: Headers, chunk: bytes) -> None:
        """See `exchange.StreamWriter`. Raises: ValueError if a header would be more than one line."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        assert not cycle.response_started
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        cycle.chunked_encoding = cycle.scope["http_version"] != "1.0"
        headers = [*cycle.default_headers, *headers]
        if not cycle.chunked_encoding:
            cycle.keep_alive = False
        if (b"connection", b"close") in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers = [*headers, (b"connection", b"close")]
        lines = b"\r\n".join(map(b": ".join, headers))
        if lines.count(b"\n") != len(headers) - 1 or lines.count(b"\r") != len(headers) - 1:
            raise ValueError("a header's value holds a line break")
        framing = b"\r\ntransfer-encoding: chunked" if cycle.chunked_encoding else b""
        cycle.transport.write(STATUS_LINE[status] + lines + framing + b"\r\n\r\n" + self._shown(chunk))

    def _shown(self, chunk: bytes) -> bytes:
        """A part as it goes over the wire: a chunk (RFC 9112 section 7.1), and none of no bytes, which would end the response."""
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk and self._cycle.chunked_encoding else chunk

    def write(self, chunk: bytes) -> None:
        """See `exchange.StreamWriter`."""
        if chunk:
            self._cycle.transport.write(self._shown(chunk))

    async def catch_up(self) -> None:
        """See `exchange.StreamWriter`."""
        await self._cycle.flow.drain()

    def finish(self, chunk: bytes) -> None:
        """See `exchange.StreamWriter`."""
        cycle = self._cycle
        cycle.transport.write(self._shown(chunk) + (b"0\r\n\r\n" if cycle.chunked_encoding else b""))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def watch(self, on_leave: Callable[[], None]) -> None:
        """See `exchange.StreamWriter`."""
        if self._connection.is_lost:
            on_leave()
        else:
            self._connection.watchers.add(on_leave)

    def unwatch(self, on_leave: Callable[[], None]) -> None:
        """See `exchange.StreamWriter`."""
        self._connection.watchers.discard(on_leave)


class _Ending:
    """A connection's transport as responses see it: when it is closed after one of them is the connection's business."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class GatewayProtocol(HttpToolsProtocol):
    """One client connection."""

    settings = GatewaySettings()
    """Replaced in the subclass that `bound_protocol` makes."""

    def __init__(self, *arguments: Any, place: Place, **options: Any) -> None:
        """`place` is given back when the connection is lost; the rest is uvicorn's."""
        super().__init__(*arguments, **options)
        self._place = place
        self.is_lost = False
        self.watchers: set[Callable[[], None]] = set()
        """Of the requests under way: told when the connection is lost."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate: bytes | None = None if tls is None else tls.getpeercert(binary_form=True)
        self._num_framing_bytes = 0
        self._in_headers = True
        self._ended_message = False
        """The data being parsed held the end of a request."""
        self._refusal = ""
        """Why what is being parsed is refused, where we know better than the parser."""
        self._header_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._ending = _Ending(transport, self._end)
        self._num_lingers = 0
        self._num_forgotten_bytes = 0
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, give back the place, tell the requests under way."""
        self._stop_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._place.give_back()
        super().connection_lost(exc)
        self._ending.close = self.transport.close  # It and we would name each other, and wait for the collector.
        self.is_lost = True
        watchers, self.watchers = self.watchers, set()
        for on_leave in watchers:
            on_leave()

    def data_received(self, data: bytes) -> None:
        """Count what is not body, then parse."""
        self._num_framing_bytes += len(data)
        self._ended_message = False
        super().data_received(data)
        if self._in_headers and not self._ended_message:
            self._wait_for_headers()  # Most requests come in one piece, and need no timer.
        # Data may hold headers and body together: parsing starts the count anew at each end of headers and piece of body, so
        # that only headers, or what a chunk's size may be followed by, without end is over the limit. Headers with an end are
        # measured there.
        if self._num_framing_bytes > self.settings.max_header_bytes and not self.transport.is_closing():
            self.send_400_response(self._too_large())

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers = True
        self._num_framing_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, as `HttpToolsProtocol` takes it. One after the headers' end is a trailer. Raising refuses the request."""
        if not self._in_headers:
            self._refusal = "trailers are not taken"
            raise ValueError(self._refusal)
        # Blanks behind a value are no part of it (RFC 9112 section 5.1); llhttp leaves them there.
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """All headers of a request are here. Raising refuses it."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise ValueError("this version of HTTP is not spoken here")
        # They may have come in one read, of which nothing was counted before they were parsed.
        headers = self.headers
        num_bytes = len(self.url) + _HEADER_BYTES * len(headers) + sum(map(len, chain.from_iterable(headers)))
        if num_bytes > self.settings.max_header_bytes:
            self._refusal = self._too_large()
            raise ValueError(self._refusal)
        verify_framing(version, headers)
        verify_target(self.url, headers)
        if self.parser.should_upgrade() and has_body(headers):
            self._refusal = "a request with a body cannot ask for an upgrade"  # The parser would pass over the body.
            raise ValueError(self._refusal)
        self._in_headers = False
        self._num_framing_bytes = 0
        self._stop_timer()
        scope = cast("dict[str, Any]", self.scope)
        scope[ABORT] = self.transport.abort
        if self._certificate is not None:
            scope[CERTIFICATE] = self._certificate
        super().on_headers_complete()
        # Made in the line before; its task has not run yet.
        self.cycle.transport = cast(asyncio.Transport, self._ending)
        scope[WRITER] = _CycleWriter(self.cycle, self)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, which the application bounds; or, if that has answered, of what nobody reads."""
        self._num_framing_bytes = 0
        super().on_body(body)
        if self._linger_timer is not None:
            self._num_forgotten_bytes += len(body)
            if self._num_forgotten_bytes > self.settings.max_body_bytes:
                self.transport.close()

    def on_message_complete(self) -> None:
        """The request is here; the next begins with headers again."""
        super().on_message_complete()
        self._in_headers = self._ended_message = True
        self._num_framing_bytes = 0
        if self._linger_timer is not None:
            self.transport.close()

    def on_response_complete(self) -> None:
        """The answer is out. What its request's body lacks would otherwise be read for ever, at whatever pace its sender likes."""
        if self.cycle.response_complete and self.cycle.more_body:
            self._linger()
        super().on_response_complete()

    def _end(self) -> None:
        """Close; after the rest of the body, where the newest request's answer is written and did not wait for it."""
        if self.cycle.response_complete and self.cycle.more_body:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Close when the body has come, or does not come."""
        if self._linger_timer is None:
            self._linger_timer = self.loop.call_later(_LINGER_S, self._linger_on, 0)

    def _linger_on(self, num_bytes_before: int) -> None:
        self._num_lingers += 1
        if self._num_forgotten_bytes == num_bytes_before or self._num_lingers == _MAX_LINGERS:
            self.transport.close()
        else:
            self._linger_timer = self.loop.call_later(_LINGER_S, self._linger_on, self._num_forgotten_bytes)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or too much of it, and close. Answers come in the order of their requests (RFC 9112 section
        9.3.2): where another one is due or under way, the refusal would be taken for it, and closing must do.
        """
        self._stop_timer()
        if not self._may_answer():
            self.transport.close()
            return
        body = msgspec.json.encode(error_body(BadRequest("invalid_http", self._refusal or msg)))
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"cache-control: no-store\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether what is sent next is taken for the answer to what is being parsed."""
        newest = cast("RequestResponseCycle | None", self.cycle)
        if newest is None:
            return True
        if newest.more_body:  # Then it is what is being parsed.
            return not newest.response_started and not self.pipeline
        return bool(newest.response_complete)

    def _too_large(self) -> str:
        return f"The request's headers are larger than {self.settings.max_header_bytes} bytes."

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing here upgrades: the request is answered as the plain one that it also is, then the connection ends."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _wait_for_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.settings.header_timeout_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_for_headers()  # The connection is in use anyway, and an answer is not cut for what comes behind its request.
        elif not self.transport.is_closing():
            self.transport.abort()


_READ_BYTES = 64 << 10
_incoming = memoryview(bytearray(_READ_BYTES))
"""What is read from any connection, until it is parsed in the same call. A read into bytes of their own would map and unmap 256 KiB
each time (`processes.memory` says why such blocks are mapped)."""


class BufferedConnection(asyncio.BufferedProtocol):
    """Lets the loop read into our buffer; all else is the connection's."""

    __slots__ = ("_connection",)

    def __init__(self, connection: asyncio.Protocol) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`, as for the next four."""
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client is behind."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._connection.resume_writing()

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        return self._connection.eof_received()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return _incoming

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""
        self._connection.data_received(bytes(_incoming[:nbytes]))


def bound_protocol(settings: GatewaySettings) -> type[asyncio.Protocol]:
    """The protocol class under these settings: uvicorn makes the instances itself."""
    attributes: dict[str, Any] = {"settings": settings, "__doc__": GatewayProtocol.__doc__}
    return type("BoundGatewayProtocol", (GatewayProtocol,), attributes)
