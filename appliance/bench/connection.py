"""One keep-alive connection to a server, driven by whoever owns the selector, and the streamed answer on it.

Plain non-blocking sockets instead of asyncio's streams: a load generator that costs half of what it measures measures itself.
"""

import os
import select
import selectors
import socket
import ssl
import time
from dataclasses import dataclass, field

import httptools
import msgspec

READ_BYTES = 1 << 18


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None

    @property
    def said(self) -> str | None:
        """Text of a completion, which may be empty; of a chat, only where there is some: its first event has a role only."""
        if self.delta is None:
            return self.text
        return self.delta.content or self.delta.reasoning_content or None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class Answer:
    """What one request got. Times are of `time.perf_counter`, seconds."""

    started_at: float
    arrivals: list[float] = field(default_factory=list)
    """When each event with text came."""
    texts: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    status: int = 0
    body: bytes = b""
    """Of an answer that is no stream: an error."""
    error: str = ""
    retry_after_s: float = 0.0


class Connection:
    """At most one request at a time. Attributes: `answer`, the one under way; None between two."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, *, keeps_text: bool) -> None:
        """Begin to connect. Raises: OSError."""
        raw = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            raw.connect(address)
        except BlockingIOError:
            pass
        self._tls = tls
        self._is_secured = tls is None
        self.sock: socket.socket = raw
        self._host = address[0]
        self._keeps_text = keeps_text
        self._outgoing = b""
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._now = 0.0
        self._is_complete = False
        self._is_stream = False
        self.answer: Answer | None = None

    def open(self, timeout_s: float) -> None:
        """Connect and shake hands now, so that a later request need not. Raises: OSError."""
        deadline = time.monotonic() + timeout_s
        while not self._is_secured:
            wanted = self.advance()
            writing = [self.sock] if wanted & selectors.EVENT_WRITE else []
            if not self._is_secured and not any(select.select([self.sock], writing, [], deadline - time.monotonic())):
                raise TimeoutError(f"no connection after {timeout_s:g} s")

    def send(self, request: bytes, started_at: float) -> None:
        """Start a request; `advance` sends it."""
        assert self.answer is None
        self.answer = Answer(started_at)
        self._outgoing = request
        self._is_complete = self._is_stream = False

    def advance(self) -> int:
        """Do what can be done without waiting; gives the selector events that are waited for.

        Raises: OSError, or HttpParserError of httptools, when the connection or the answer on it is broken.
        """
        try:
            if not self._is_secured and not self._secure():
                return selectors.EVENT_WRITE
            while self._outgoing:
                sent = self.sock.send(self._outgoing)
                self._outgoing = self._outgoing[sent:]
            self._read()
        except (ssl.SSLWantWriteError, BlockingIOError, BrokenPipeError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            return selectors.EVENT_WRITE | selectors.EVENT_READ
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        return selectors.EVENT_READ

    def _secure(self) -> bool:
        """Shake hands, once there is a connection; False before."""
        assert self._tls is not None
        if not isinstance(self.sock, ssl.SSLSocket):
            # A socket that still connects must not be wrapped: the ssl module takes what it finds for an attack.
            failure = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise OSError(failure, os.strerror(failure))
            try:
                self.sock.getpeername()
            except OSError:
                return False
            self.sock = self._tls.wrap_socket(self.sock, do_handshake_on_connect=False, server_hostname=self._host)
        self.sock.do_handshake()
        self._is_secured = True
        return True

    def take_answer(self) -> Answer | None:
        """The answer, once it is complete; then the connection is free again."""
        if not self._is_complete:
            return None
        answer, self.answer = self.answer, None
        self._is_complete = False
        return answer

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._now = time.perf_counter()
        self._parser.feed_data(data)
        while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            self._parser.feed_data(self.sock.recv(READ_BYTES))

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        if name.lower() == b"retry-after" and self.answer is not None and value.isdigit():
            self.answer.retry_after_s = float(value)
        elif name.lower() == b"content-type":
            self._is_stream = value.startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        """httptools: the status is known."""
        assert self.answer is not None
        self.answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """httptools: some of the body, often exactly one event."""
        answer = self.answer
        assert answer is not None
        if not self._is_stream:
            answer.body += data
            return
        if self._rest:
            data = self._rest + data
        events = data.split(b"\n\n")
        self._rest = events.pop()
        for event in events:
            if event.startswith(b"data:") and event != b"data: [DONE]":
                self._take(answer, event[5:])

    def on_message_complete(self) -> None:
        """httptools: the answer ends."""
        answer = self.answer
        if answer is not None and not answer.error:
            if answer.status != 200:
                answer.error = f"{answer.status} {answer.body[:300].decode(errors='replace')}"
            elif not answer.arrivals:
                answer.error = "no token"
        self._rest = b""
        self._is_complete = True

    def _take(self, answer: Answer, data: bytes) -> None:
        try:
            event = _decoder.decode(data)
        except msgspec.DecodeError:
            answer.error = f"an event that is not understood: {data[:200]!r}"
            return
        said = [choice.said for choice in event.choices]
        if any(text is not None for text in said):
            answer.arrivals.append(self._now)
            answer.output_tokens = max(answer.output_tokens, len(answer.arrivals))
            if self._keeps_text:
                answer.texts += [text or "" for text in said]
        elif event.usage is None and not event.choices:
            answer.error = f"the stream was ended: {data[:200].decode(errors='replace')}"
        usage = event.usage
        if usage is not None:
            answer.prompt_tokens, answer.output_tokens = usage.prompt_tokens, usage.completion_tokens
            details = usage.prompt_tokens_details
            answer.cached_tokens = (details.cached_tokens or 0) if details is not None else 0
