"""Every route that reads a body is as strict as the next: what one refuses none takes, and none is slowed by it."""

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from appliance.gateway import protocol
from appliance.gateway.api.openapi import BODIES
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.model_folders import MODEL
from tests.support.waiting import GIVE_UP_S
from tests.support.wire import close, exchange, parse, send_raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = sorted(BODIES)
BEARER, JSON = f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"
CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder) as running:
        yield running


def bomb() -> bytes:
    """Fifty megabytes in fifty kilobytes."""
    return gzip.compress(b" " * (50 << 20))


HOSTILE: list[tuple[str, tuple[str, ...], bytes, int]] = [
    ("a compressed bomb", (JSON, "Content-Encoding: gzip"), bomb(), 415),
    ("a bomb by another name", (JSON, "Content-Encoding: br"), bomb(), 415),
    ("a form", ("Content-Type: application/x-www-form-urlencoded",), b"model=x", 415),
    ("no object", (JSON,), b"[1]", 400),
    ("half an object", (JSON,), b'{"model": "', 400),
    ("deep arrays", (JSON,), b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    ("deep objects", (JSON,), b'{"x":' * 50_000 + b"1" + b"}" * 50_000, 400),
    ("a repeated key", (JSON,), b'{"model": "a", "model": "b"}', 400),
    ("a key for a prototype", (JSON,), b'{"__proto__": {"admin": true}}', 400),
    ("a number without end", (JSON,), b'{"n": ' + b"9" * 100_000 + b"}", 400),
    ("half of a surrogate pair", (JSON,), b'{"model": "\\ud800"}', 400),
    ("no UTF-8", (JSON,), b'{"model": "\xc3\x28"}', 400),
    ("a million quotes", (JSON,), b'{"x": [' + b'"",' * 333_333 + b'""]}', 400),
]


@control("3.13.1", "3.14.6", "AC-4(4)", "SC-7", "SI-4", "SI-10")
@pytest.mark.parametrize("path", PATHS)
async def test_no_route_takes_a_hostile_body(gateway: Gateway, path: str) -> None:
    """Each is one error with words, at once, and no route asked engine, quota or log for it."""
    before = len(gateway.policy.reserves)
    for name, headers, body, status in HOSTILE:
        started = time.process_time()
        response = await exchange(gateway.port, "POST", path, headers=(BEARER, *headers), body=body)
        assert response.status == status, (name, response.body[:200])
        assert json.loads(response.body)["error"]["message"], name
        assert time.process_time() - started < 5, name
    assert len(gateway.policy.reserves) == before


@pytest.mark.parametrize("path", PATHS)
async def test_a_hundred_megabytes_are_refused_unread(gateway: Gateway, path: str) -> None:
    """By the announced length; sent without one they are cut off at the limit, and memory is not theirs."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\n"
    announced = await send_raw(gateway.port, f"{head}Content-Length: {100 << 20}\r\n\r\n".encode())
    assert announced.status == 413
    before = psutil.Process().memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    try:
        for _ in range(100):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # Cut off while we were sending, as it should be.
    received = b""
    try:
        async with asyncio.timeout(10):
            received = await reader.read(-1)
    except OSError:
        pass  # The answer may be lost with the connection.
    await close(writer)
    assert not received or parse(received).status == 413
    assert psutil.Process().memory_info().rss - before < 64 << 20


@control("SI-10")
@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 40"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
        ("Content-Length: +4",),
        ("Content-Length: 0x4",),
        ("Content-Length: 4 4",),
    ],
)
async def test_a_smuggled_request_is_never_answered(gateway: Gateway, lines: tuple[str, ...]) -> None:
    """Where two readers could see two ends of a body, the connection ends with the first answer."""
    inner = f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n\r\n"
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\n" + "".join(f"{line}\r\n" for line in lines)
    response = await send_raw(gateway.port, (head + "\r\n0\r\n\r\n" + inner).encode(), timeout_s=20)
    assert response.raw.count(b"HTTP/1.1 ") <= 1
    assert response.status in (0, 400, 408, 413)
    assert MODEL.encode() not in response.raw


def tool_of(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool of one parameter."""
    return {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"messages": [{"role": "user", "content": "x"}] * 5000}, "too_many_messages"),
        (
            {"tools": [{"type": "function", "function": {"name": f"f{number}"}} for number in range(5000)]},
            "too_many_tools",
        ),
        ({"messages": [{"role": "user", "content": "x" * 3_000_000}]}, "context_length_exceeded"),
        ({"tools": [tool_of({"enum": [f"value {number}" for number in range(3_000)]})]}, "context_length_exceeded"),
        ({"stop": ["x"] * 5000}, "too_many_stop_strings"),
        ({"logit_bias": dict.fromkeys(map(str, range(5000)), 1)}, "invalid_parameter"),
        ({"regex": "a" * 100_000}, "invalid_parameter"),
    ],
)
async def test_too_much_of_anything_is_refused_by_name(gateway: Gateway, change: dict[str, Any], code: str) -> None:
    """Before it is rendered, tokenized or compiled."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]} | change
    response = await exchange(gateway.port, "POST", CHAT, headers=(BEARER, JSON), body=json.dumps(body).encode())
    error = json.loads(response.body)["error"]
    assert (response.status, error["code"]) == (400, code)
    assert code != "context_length_exceeded" or "cannot fit" in error["message"]
    assert not gateway.compiler.asked


@control("SC-5", "SI-10")
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_an_early_refusal_reaches_a_client_that_is_still_sending(
    gateway: Gateway, connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the body is read and forgotten; then the connection ends, and is not reset."""
    monkeypatch.setattr(protocol, "_LINGER_S", GIVE_UP_S)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {1 << 20}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode())
    received = await reader.readuntil(b"\r\n\r\n")
    assert parse(received).status == 401
    for _ in range(16):
        writer.write(bytes(1 << 16))
        await writer.drain()
    async with asyncio.timeout(GIVE_UP_S):
        rest = await reader.read(-1)
    assert b"HTTP/1.1" not in rest
    assert json.loads(rest)["error"]["message"]
    await close(writer)


@control("SC-5")
async def test_a_refused_body_is_not_read_beyond_the_limit_nor_for_ever(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than any request may have ends it at once, and so does a client that goes on too long or not at all."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {100 << 20}\r\n\r\n".encode()

    async def end(piece: bytes, pause_s: float) -> int:
        """How many pieces the connection takes, at most."""
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head)
        await reader.readuntil(b"\r\n\r\n")
        ended = asyncio.create_task(reader.read(-1))
        num_pieces = 0
        with contextlib.suppress(OSError):
            while not ended.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
                num_pieces += 1
        with contextlib.suppress(OSError):
            await ended
        await close(writer)
        return num_pieces

    monkeypatch.setattr(protocol, "_LINGER_S", 60.0)
    async with asyncio.timeout(GIVE_UP_S):
        assert await end(bytes(1 << 20), 0.0) < 100
    monkeypatch.setattr(protocol, "_LINGER_S", 0.01)
    async with asyncio.timeout(GIVE_UP_S):
        await end(b"x", 0.001)
        await end(b"", 0.001)
