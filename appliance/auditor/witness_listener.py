"""A witness's HTTP listener: two routes, bounded bodies, a thread for each connection.

| route | answer |
|---|---|
| POST /add-checkpoint | `audit.witness` decides |
| GET /HEX/checkpoint | the last cosigned checkpoint of the log whose origin has this SHA-256 |

There is no other authentication than the log's signature, as the protocol has it: what can be had here is public. So strangers
may connect as well: there are MAX_CONNECTIONS at once, and who comes when they are taken is turned away.
"""

import http.server
import os
import ssl
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from audit.errors import NotDurable, StateMismatch, StorageFailed
from audit.witness import MAX_REQUEST_BYTES, TEXT, Answer, Witness

TIMEOUT_S = 10.0
MAX_CONNECTIONS = 256
EXIT_STORAGE_FAILED = 74


def build_server(
    witness: Witness, host: str, port: int, tls: tuple[Path, Path] | None = None
) -> http.server.ThreadingHTTPServer:
    """The server, bound and not yet serving; port 0 takes a free one."""

    class Handler(_Handler):
        asked = witness

    server = _Server((host, port), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def serve_witness(
    witness: Witness, host: str, port: int, tls: tuple[Path, Path] | None, on_listening: Callable[[str], None]
) -> None:
    """Serve until interrupted."""
    server = build_server(witness, host, port, tls)
    address = server.server_address
    on_listening(f"{address[0]!s}:{address[1]}")
    try:
        server.serve_forever()
    finally:
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """Of the kernel's: with Python's five, logs that come at the same moment are refused."""

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # No thread, so nobody else gives the place back.
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever went away, or does not speak TLS; a fault of ours is a line of its own all the same."""
        fault = sys.exception()
        sys.stderr.write(f"{client_address[0]}: the connection ended: {type(fault).__name__}: {fault}\n")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version = "casemate-witness"
    sys_version = ""
    asked: Witness

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self.path != "/add-checkpoint":
            self._answer(Answer(404, b"there is no such route\n"), close=True)
        elif not (length.isascii() and length.isdigit()):
            self._answer(Answer(411, b"a body of a stated length is expected\n"), close=True)
        elif len(length) > 9 or int(length) > MAX_REQUEST_BYTES:
            self._answer(Answer(413, f"a body has at most {MAX_REQUEST_BYTES} bytes\n".encode()), close=True)
        else:
            self._answer(self._ask(self.rfile.read(int(length))))

    def do_GET(self) -> None:
        parts = self.path.split("/")
        note = self.asked.latest(parts[1]) if len(parts) == 3 and parts[2] == "checkpoint" else None
        self._answer(Answer(404, b"there is no such checkpoint\n") if note is None else Answer(200, note))

    def log_message(self, format: str, *args: Any) -> None:
        sys.stderr.write(f"{self.log_date_time_string()} {self.address_string()} {format % args}\n")

    def _ask(self, body: bytes) -> Answer:
        try:
            return self.asked.add_checkpoint(body)
        except (NotDurable, StateMismatch) as fault:
            sys.stderr.write(f"not cosigned: {fault}\n")
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the witness's state cannot be read or written\n")
        except StorageFailed as failure:  # What is on its disk is unknown: it must not answer anybody any more.
            sys.stderr.write(f"the witness ends: {failure}\n")
            sys.stderr.flush()
            os._exit(EXIT_STORAGE_FAILED)

    def _answer(self, answer: Answer, *, close: bool = False) -> None:
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type or TEXT)
        self.send_header("content-length", str(len(answer.body)))
        if close:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)
