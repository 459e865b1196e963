"""Ordinary tokens go to the client in the call that brings them; whatever is not so ordinary, in its order behind them."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest

from appliance.gateway.api.chat import _ChatWords
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.mailbox import Mailbox
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.streams import BEARER, JSON, Stream, body_of, last_error, post, settled
from tests.support.waiting import GIVE_UP_S, until
from tests.support.wire import close, exchange, parse

TEXT = "".join(chr(ord("a") + place % 26) for place in range(120))


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, send_buffer_bytes=8192) as running:
        yield running


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for everything that had to wait in a mailbox."""
    numbers: list[int] = []
    put = Mailbox.put

    def counted(self: Mailbox[object], item: object, num_tokens: int) -> None:
        numbers.append(num_tokens)
        put(self, item, num_tokens)

    monkeypatch.setattr(Mailbox, "put", counted)
    return numbers


def request_of(**changes: object) -> bytes:
    body = body_of(**changes)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def text_by_choice(events: bytes) -> list[str]:
    """What a client reads, by choice."""
    texts: dict[int, str] = {}
    for line in events.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", []):
                texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return [texts[index] for index in sorted(texts)]


def text_of(events: bytes) -> str:
    """What a client of one choice reads."""
    return text_by_choice(events)[0]


async def test_an_ordinary_token_waits_for_nobody(gateway: Gateway, puts: list[int]) -> None:
    """Of 120 tokens, one an engine step, only the first and the last few of the request pass through its mailbox."""
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(TEXT), delay_s=0.002)
    stream = await Stream.open(gateway)
    assert text_of(await stream.rest()) == TEXT
    assert len(puts) < 12


async def test_choices_of_one_answer_keep_their_order(gateway: Gateway) -> None:
    """Three choices grow beside each other, each in its own order."""
    texts = [TEXT, TEXT[::-1], TEXT[5:]]
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(texts[choice]), delay_s=0.001)
    stream = await Stream.open(gateway, n=3)
    assert text_by_choice(await stream.rest()) == texts


async def test_a_client_that_falls_behind_and_reads_on_misses_nothing(gateway: Gateway, puts: list[int]) -> None:
    """Once its connection is full, tokens wait in line; read at last, all are there, each choice's in its order."""
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids((TEXT * 4)[choice:170]), delay_s=0.001)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(request_of(stream=True, n=8))
        await until(lambda: len(puts) > 300)
        sock.setblocking(False)
        received = b""
        async with asyncio.timeout(GIVE_UP_S):
            while b"[DONE]" not in received:
                received += await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
    assert text_by_choice(received) == [(TEXT * 4)[choice:170] for choice in range(8)]


@pytest.mark.parametrize("stop", ["xyz", "z"])
async def test_a_stop_string_completed_by_an_ordinary_token_ends_the_answer(gateway: Gateway, stop: str) -> None:
    """The engine is told how many tokens count; what it sends meanwhile is not delivered."""
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(TEXT), delay_s=0.002)
    stream = await Stream.open(gateway, stop=[stop])
    events = await stream.rest()
    assert text_of(events) == TEXT[: TEXT.index(stop)]
    assert b'"finish_reason":"stop"' in events
    assert [cancel.keep_tokens for cancel in gateway.engine.cancels] == [26]


async def test_a_fault_in_wording_one_token_ends_one_request(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens on the engine's link, which must survive it."""
    piece_of = _ChatWords.piece

    def broken(self: _ChatWords, piece: Piece) -> Iterable[object]:
        if piece.text == "k":
            raise RuntimeError("a bug")
        return piece_of(self, piece)

    monkeypatch.setattr(_ChatWords, "piece", broken)
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(TEXT), delay_s=0.002)
    stream = await Stream.open(gateway)
    assert last_error(await stream.rest())["code"] == "internal_error"
    await settled(gateway)
    monkeypatch.undo()
    gateway.says("fine")
    assert (await post(gateway)).status == 200


async def test_quota_is_asked_for_ahead_and_never_overrun(gateway: Gateway) -> None:
    """Blocks of 8 tokens and a budget of 40: 40 tokens are delivered, and not one more."""
    gateway.policy.budget_tokens = 40
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(TEXT), delay_s=0.002)
    stream = await Stream.open(gateway, max_tokens=100)
    events = await stream.rest()
    assert text_of(events) == TEXT[:40]
    assert last_error(events)["code"] == "quota_exhausted"


async def test_a_token_without_text_does_not_end_the_stream(gateway: Gateway) -> None:
    """Where the first token is a part of a character there is nothing to send yet, and a chunk of no bytes would be the last."""
    text = "日本語"
    assert len(gateway.ids(text)) > len(text) + 1
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(text), delay_s=0.01)
    body = json.dumps({"model": MODEL, "prompt": "x", "max_tokens": 20, "stream": True}).encode()
    answer = await exchange(gateway.port, "POST", "/v1/completions", headers=[BEARER, JSON], body=body)
    pieces = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line.startswith(b"data: {")]
    assert "".join(choice["text"] for piece in pieces for choice in piece["choices"]) == text
    assert answer.raw.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert answer.raw.count(b"\r\n0\r\n\r\n") == 1


async def test_a_streamed_answer_leaves_its_connection_as_the_client_asked(gateway: Gateway) -> None:
    """Two answers on one connection, then one that closes it; each is whole and says how long its parts are."""
    gateway.says("hello")
    request = request_of(stream=True)
    last = request.replace(b"\r\nHost: x", b"\r\nHost: x\r\nConnection: close")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        for sent in (request, request):
            writer.write(sent)
            answer = parse(await reader.readuntil(b"\r\n0\r\n\r\n"))
            assert answer.status == 200
            assert answer.headers["transfer-encoding"] == "chunked"
            assert "connection" not in answer.headers
            assert text_of(answer.body) == "hello"
            assert answer.body.endswith(b"data: [DONE]\n\n")
        writer.write(last)
        answer = parse(await asyncio.wait_for(reader.read(-1), 10))
        assert answer.headers["connection"] == "close"
        assert text_of(answer.body) == "hello"
    finally:
        await close(writer)


@pytest.mark.parametrize("asked", [b"", b"\r\nConnection: keep-alive"])
async def test_a_client_of_http_1_0_gets_a_stream_without_chunks(gateway: Gateway, asked: bytes) -> None:
    """It would take their lengths for text; so the connection's end is the stream's. Every stream says its date."""
    gateway.says("hello")
    request = (
        request_of(stream=True)
        .replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n")
        .replace(b"\r\nHost: x", b"\r\nHost: x" + asked)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(request)
        answer = parse(await asyncio.wait_for(reader.read(-1), 10))
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert answer.headers["date"].endswith(" GMT")
        assert text_of(answer.body) == "hello"
        assert answer.body.endswith(b"data: [DONE]\n\n")
    finally:
        await close(writer)


async def test_a_header_of_two_lines_is_never_written(gateway: Gateway) -> None:
    """Whatever a value of ours may come to hold, it adds no header and ends no head: the connection is cut instead."""
    gateway.says("hello")
    known = gateway.tokens.good[TOKEN]
    gateway.tokens.good[TOKEN] = msgspec.structs.replace(known, dpop_nonce="a\r\nset-cookie: b")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(request_of(stream=True))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(-1), 10) == b""
    finally:
        await close(writer)
