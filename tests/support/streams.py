"""A streamed chat request to a gateway under test, read event by event or not at all."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from tests.support.gateway import TOKEN, Gateway
from tests.support.model_folders import MODEL
from tests.support.waiting import GIVE_UP_S, until
from tests.support.wire import Response, exchange

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"


def body_of(**changes: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **changes}).encode()


async def post(gateway: Gateway, **changes: Any) -> Response:
    path = "/v1/chat/completions"
    return await exchange(gateway.port, "POST", path, headers=(BEARER, JSON), body=body_of(**changes))


class Stream:
    """A streamed request that is read event by event."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, gateway: Gateway, *, headers: str = "", **changes: Any) -> "Stream":
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 20)
        body = body_of(stream=True, **changes)
        first = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{headers}"
        head = f"{first}{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        gateway.clients.append(writer)
        return cls(reader, writer)

    async def first(self) -> bytes:
        return await self.reader.readuntil(b"data: ")

    async def rest(self, timeout_s: float = GIVE_UP_S) -> bytes:
        async with asyncio.timeout(timeout_s):
            try:
                return await self.reader.readuntil(b"\r\n0\r\n\r\n")
            except asyncio.IncompleteReadError as ended:
                return ended.partial


def last_error(received: bytes) -> dict[str, Any]:
    events = [line for line in received.split(b"\n") if b'data: {"error"' in line]
    assert b"[DONE]" not in received
    error: dict[str, Any] = json.loads(events[-1].partition(b"data: ")[2])["error"]
    return error


def outcome(gateway: Gateway) -> dict[str, Any]:
    (event,) = gateway.auditor.of_kind("inference_outcome")
    return event


async def settled(gateway: Gateway) -> None:
    await until(lambda: bool(gateway.policy.settles) and not gateway.worker.desk.num_open)


@contextlib.asynccontextmanager
async def unread_stream(gateway: Gateway) -> AsyncIterator[None]:
    """A client with the smallest buffers, who asks for much and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
        # Logprobs make each token hundreds of bytes, more than kernels take for somebody who does not read.
        body = body_of(stream=True, logprobs=True, top_logprobs=20, n=16)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(sock, head.encode() + body)
        yield
    finally:
        sock.close()
