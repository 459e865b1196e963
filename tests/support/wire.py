"""HTTP/1.1 by hand, for what no client library would send."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.waiting import GIVE_UP_S


@dataclass
class Response:
    """One answer. Header names are lower case; of repeated ones the last stands."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes = field(repr=False, default=b"")


async def exchange(
    port: int, method: str, path: str, *, headers: Sequence[str] = (), body: bytes = b"", timeout_s: float = GIVE_UP_S
) -> Response:
    """One request on a connection of its own."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines = [
        line
        for line in lines
        if not (line.startswith("Connection") and any(h.startswith("Connection") for h in headers))
    ]
    lines += list(headers)
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return await send_raw(port, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body, timeout_s=timeout_s)


async def send_raw(port: int, data: bytes, *, timeout_s: float = GIVE_UP_S) -> Response:
    """Send bytes, read until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(data)
            received = await reader.read(-1)
    finally:
        await close(writer)
    return parse(received)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection whatever state it is in, and wait until its socket is."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def parse(received: bytes) -> Response:
    """The first answer in what came."""
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(status_line.split(" ")[1]) if status_line.startswith("HTTP/") else 0
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunk(body)
    return Response(status, headers, body, received)


def _dechunk(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
