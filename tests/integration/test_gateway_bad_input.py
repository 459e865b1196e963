"""What should not be sent: each gets one clear error that names the thing, and nothing else is disturbed."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from appliance.gateway.api import validation
from appliance.gateway.errors import BadRequest
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import CONTEXT_LENGTH
from tests.support.model_folders import MODEL
from tests.support.waiting import GIVE_UP_S
from tests.support.wire import Response, close, exchange, parse, send_raw

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "hi"}
NATIVE: dict[str, Any] = {"text": "hi"}
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions", "native": "/generate"}


def tool(parameters: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, max_body_bytes=100_000) as running:
        yield running
        # Nothing that was refused was ever recorded, reserved without being settled, or submitted.
        assert not running.engine.submits
        assert not running.auditor.of_kind("inference_intent")
        assert len(running.policy.reserves) == len(running.policy.settles)


async def post(gateway: Gateway, path: str, body: Any, *headers: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await exchange(gateway.port, "POST", path, headers=(BEARER, *(headers or (JSON,))), body=data)


def error_of(response: Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@control("SI-10", "SI-11")
@pytest.mark.parametrize(
    ("api", "change", "param", "words"),
    [
        ("chat", {"temprature": 1}, "temprature", "did you mean temperature?"),
        ("chat", {"temperature": "hot"}, "temperature", "expected"),
        ("chat", {"temperature": 2.1}, "temperature", "2"),
        ("chat", {"repetition_penalty": 1e-300}, "repetition_penalty", "0.01"),
        ("chat", {"n": 0}, "n", "1"),
        ("chat", {"n": 65}, "n", "64"),
        ("chat", {"max_tokens": 0}, "max_tokens", "1"),
        ("chat", {"max_tokens": 10_000}, "max_tokens", str(CONTEXT_LENGTH)),
        ("chat", {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "max_completion_tokens"),
        ("chat", {"stop": ["x"] * 1000}, "stop", "1000 stop strings"),
        ("chat", {"stop": ["ok", ""]}, "stop[1]", "1 to 1024"),
        ("chat", {"stop": [3]}, "stop[0]", "text"),
        ("chat", {"top_logprobs": 3}, "top_logprobs", "logprobs"),
        ("chat", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ("chat", {"logit_bias": {"x": 1}}, "logit_bias", "'x'"),
        ("chat", {"logit_bias": {"99999": 1}}, "logit_bias", "279"),
        ("chat", {"stop_token_ids": [99999]}, "stop_token_ids", "279"),
        ("chat", {"min_tokens": 10, "max_tokens": 5}, "min_tokens", "10"),
        ("chat", {"priority": 1}, "priority", "0"),
        ("chat", {"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ("chat", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "x"),
        (
            "chat",
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "True",
        ),
        ("chat", {"response_format": {"type": "xml"}}, "response_format.type", "xml"),
        ("chat", {"tool_choice": "required"}, "tool_choice", "no tools"),
        ("chat", {"reasoning_effort": "low"}, "reasoning_effort", "does not look it up"),
        ("chat", {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x", "does not look it up"),
        ("chat", {"chat_template_kwargs": {"messages": 1}}, "chat_template_kwargs.messages", "the gateway sets it"),
        ("chat", {"chat_template_kwargs": {"x": [1]}}, "chat_template_kwargs[...]", "array"),
        ("chat", {"continue_final_message": True}, "continue_final_message", "assistant"),
        ("chat", {"functions": []}, "functions", "tools"),
        ("chat", {"skip_special_tokens": False}, "skip_special_tokens", "only true"),
        ("chat", {"no_stop_trim": True}, "no_stop_trim", "only false"),
        ("chat", {"structured_outputs": {"choice": ["a"]}}, "structured_outputs", "response_format"),
        ("chat", {"store": True}, "store", "not stored"),
        ("chat", {"messages": []}, "messages", "1"),
        ("chat", {"messages": "hi"}, "messages", "expected"),
        ("chat", {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "king"),
        ("chat", {"messages": [{"role": "user"}]}, "messages[0].content", "content"),
        ("chat", {"messages": [{"role": "user", "content": "x", "colour": "red"}]}, "messages[0].colour", "colour"),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            "image_url",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x " * 900}]},
            "messages",
            f"maximum context length is {CONTEXT_LENGTH} tokens",
        ),
        ("chat", {"messages": [{"role": "user", "content": "x" * 90_000}]}, "messages", "cannot fit"),
        ("chat", tool({"type": "string"}), "tools[0].function.parameters", "object"),
        ("chat", tool([1, 2]), "tools[0].function.parameters", "object"),
        ("chat", tool({"properties": {"a": 3}}), "tools[0].function.parameters.properties.a", "got 3"),
        (
            "chat",
            tool({"properties": {"a": {"type": "text"}}}),
            "tools[0].function.parameters.properties.a.type",
            "text",
        ),
        ("chat", tool({"properties": {}, "required": "a"}), "tools[0].function.parameters.required", "list"),
        ("chat", {"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
        ("chat", {"tools": [tool({})["tools"][0]] * 2}, "tools[1].function.name", "twice"),
        ("chat", {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(200)]}, "tools", "128"),
        ("text", {"prompt": None}, "prompt", "missing"),
        ("text", {"prompt": []}, "prompt", "empty"),
        ("text", {"prompt": ""}, "prompt", "no tokens"),
        ("text", {"prompt": [97, 100_000]}, "prompt", "100000"),
        ("text", {"prompt": [97, -1]}, "prompt", "-1"),
        ("text", {"prompt": [97, True]}, "prompt", "True"),
        ("text", {"prompt": ["a", 3]}, "prompt[1]", "expected"),
        ("text", {"prompt": [["x"]]}, "prompt[0]", "'x'"),
        ("text", {"prompt": ["a"] * 300}, "prompt", "256"),
        ("text", {"prompt": [97] * CONTEXT_LENGTH}, "prompt", str(CONTEXT_LENGTH)),
        ("text", {"suffix": "x"}, "suffix", "not supported"),
        ("text", {"best_of": 3}, "best_of", "n"),
        ("text", {"logprobs": True}, "logprobs", "int"),
        ("native", {"input_ids": [1]}, "text", "either"),
        ("native", {"sampling_params": {"max_new_tokens": -1}}, "sampling_params.max_new_tokens", "0"),
        ("text", {"n": 2, "best_of": 1}, "best_of", "n"),
        ("chat", {"max_tokens": 512}, "max_tokens", f"maximum context length is {CONTEXT_LENGTH} tokens"),
        ("chat", {"response_format": {"type": "text", "json_schema": {}}}, "response_format.json_schema", "only with"),
        ("chat", {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "json_schema"),
        (
            "native",
            {"sampling_params": {"max_new_token": 1}},
            "sampling_params.max_new_token",
            "did you mean max_new_tokens?",
        ),
        ("native", {"sampling_params": {"json_schema": "{"}}, "sampling_params.json_schema", "JSON Schema"),
        ("native", {"sampling_params": {"stop": ["x"] * 1000}}, "sampling_params.stop", "1000"),
        (
            "native",
            {"sampling_params": {"repetition_penalty": 1e-300}},
            "sampling_params.repetition_penalty",
            "0.01",
        ),
        ("native", {"return_hidden_states": True}, "return_hidden_states", "only false"),
        ("native", {"no_logs": 0}, "no_logs", "only false"),
        ("native", {"sampling_params": {"stop_regex": "a+"}}, "sampling_params.stop_regex", "only []"),
        ("native", {"return_logprob": True, "logprob_start_len": 99}, "logprob_start_len", "behind the end"),
        ("native", {"rid": "mine"}, "rid", "meta_info.id"),
        ("native", {"text": ["a", "b"], "return_logprob": [True]}, "return_logprob", "each of 2"),
        ("native", {"text": ["a", "b"], "logprob_start_len": [0, 1]}, "logprob_start_len", "ask apart"),
        ("native", {"sampling_params": [{"n": 1}]}, "sampling_params", "expected object"),
    ],
)
async def test_wrong_parameters_are_refused_by_name(
    gateway: Gateway, api: str, change: dict[str, Any], param: str, words: str
) -> None:
    """Status 400, the parameter's own name, and words that say what was expected or what came."""
    body = {"chat": CHAT, "text": TEXT, "native": NATIVE}[api] | change
    response = await post(gateway, PATHS[api], body)
    error = error_of(response)
    assert response.status == 400, error
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert words in error["message"], error


@pytest.mark.parametrize(
    ("api", "change", "param"),
    [
        ("text", {"echo": True, "logprobs": 4}, "logprobs"),
        ("native", {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 4}, "top_logprobs_num"),
    ],
)
async def test_more_prompt_logprobs_than_one_message_holds_are_refused_by_name(
    gateway: Gateway, api: str, change: dict[str, Any], param: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would cut this worker off the engine, and every other request with it."""
    monkeypatch.setattr(validation, "MAX_PROMPT_LOGPROBS", 9)
    response = await post(gateway, PATHS[api], {"text": TEXT, "native": NATIVE}[api] | change)
    error = error_of(response)
    assert (response.status, error["code"], error["param"]) == (400, "invalid_parameter", param)
    assert "4 for each of 2 prompt tokens" in error["message"]


async def test_prompt_logprobs_are_counted_per_token_with_its_own() -> None:
    """The bound itself is allowed, and a prompt without logprobs may have any length."""
    validation.verify_prompt_logprobs(validation.MAX_PROMPT_LOGPROBS // 5, 4, "logprobs")
    validation.verify_prompt_logprobs(1 << 20, -1, "logprobs")
    with pytest.raises(BadRequest):
        validation.verify_prompt_logprobs(validation.MAX_PROMPT_LOGPROBS // 5 + 1, 4, "logprobs")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "an array"),
        (b'"x"', "a string"),
        (b"null", "null"),
        (b"3", "a number"),
        (b'{"model": "\xff"}', "UTF-8"),
        (b'{"model": "\\ud800"}', "surrogate"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "Infinity"),
        (b'{"n": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"model": "a", "model": "b"}', "'model' twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' twice"),
        (b'{"a": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", "nested deeper"),
        (b'{"a": ' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}", "nested deeper"),
        (b"{'model': 1}", "line 1, column 2"),
    ],
)
async def test_bodies_that_are_not_one_sound_object_are_refused(gateway: Gateway, body: bytes, words: str) -> None:
    """Strictly JSON, strictly UTF-8, and not a bomb."""
    response = await post(gateway, PATHS["chat"], body)
    assert response.status == 400
    assert words in error_of(response)["message"]


async def test_body_over_the_limit_is_refused_before_it_is_read(gateway: Gateway) -> None:
    """By its announced length at once, and by its real one while it is read."""
    announced = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 100001\r\n\r\n"
    response = await send_raw(gateway.port, announced.encode())
    assert (response.status, error_of(response)["code"]) == (413, "body_too_large")
    head = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    response = await send_raw(gateway.port, head.encode() + chunk * 12)
    assert (response.status, error_of(response)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Content-Type: text/plain",),
        ("Content-Type: application/x-www-form-urlencoded",),
        ("Content-Type: application/json; charset=latin-1",),
        (JSON, "Content-Encoding: gzip"),
        (JSON, "Content-Encoding: identity, gzip"),
    ],
)
async def test_other_media_are_refused(gateway: Gateway, headers: tuple[str, ...]) -> None:
    """JSON in UTF-8, uncompressed: a compressed body could be a bomb."""
    body = gzip.compress(json.dumps(CHAT).encode())
    response = await exchange(gateway.port, "POST", PATHS["chat"], headers=(BEARER, *headers), body=body)
    assert response.status == 415
    assert error_of(response)["code"].startswith("unsupported_")


async def test_repeated_content_headers_are_refused(gateway: Gateway) -> None:
    """Two answers to what the body is."""
    response = await post(gateway, PATHS["chat"], CHAT, JSON, "Content-Type: text/plain")
    assert (response.status, error_of(response)["code"]) == (400, "repeated_header")


async def drip(port: int, head: bytes) -> bytes:
    """Send a head and then spaces, one at a time, until there is an answer; gives all of it.

    By a bare socket: a stream forgets what it has received when one of its writes comes after the server's end.
    """
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, head)
        receiving = asyncio.create_task(loop.sock_recv(sock, 1 << 16))
        while not receiving.done():
            await loop.sock_sendall(sock, b" ")
            await asyncio.wait([receiving], timeout=0.05)
        received = await receiving
        with contextlib.suppress(ConnectionResetError):
            while more := await loop.sock_recv(sock, 1 << 16):
                received += more
        return received


@control("3.13.9", "SC-5", "SC-10")
async def test_slow_body_is_given_up(folder: Path) -> None:
    """A body that comes at one byte a moment, for as long as it likes, ends with 408 after the configured time."""
    head = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n"
    async with running_gateway(folder, body_timeout_s=0.3) as gateway, asyncio.timeout(GIVE_UP_S):
        response = parse(await drip(gateway.port, head.encode()))
    assert (response.status, error_of(response)["code"]) == (408, "body_timeout")


async def test_a_refused_body_is_not_waited_for(gateway: Gateway) -> None:
    """Somebody without a token cannot keep a connection by sending a body slowly: it ends with the refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n".encode())
    async with asyncio.timeout(30):
        response = parse(await reader.read(-1))
    await close(writer)
    assert (response.status, response.headers["connection"]) == (401, "close")


@control("SC-5")
async def test_bodies_of_all_requests_together_are_bounded(folder: Path) -> None:
    """Many large bodies at once: the worker refuses some rather than hold them all, and recovers."""
    async with running_gateway(folder, max_pending_body_bytes=65_536) as gateway:
        head = (
            f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: 50000\r\n\r\n".encode()
        )
        _, first = await asyncio.open_connection("127.0.0.1", gateway.port)
        first.write(head + b" " * 40_000)
        await asyncio.sleep(0.1)
        response = await send_raw(gateway.port, head + b" " * 40_000)
        assert (response.status, error_of(response)["code"]) == (503, "overloaded")
        await close(first)
        await asyncio.sleep(0.1)
        assert (await post(gateway, PATHS["chat"], b" " * 40_000)).status == 400


async def test_slow_headers_are_given_up(folder: Path) -> None:
    """A connection that never finishes its headers is closed."""
    async with running_gateway(folder, header_timeout_s=0.3) as gateway, asyncio.timeout(GIVE_UP_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert await reader.read(-1) == b""
        await close(writer)


@pytest.mark.parametrize("begun", [b"GET /health HTTP/1.1\r\nX-Slow: ", b"\r\n"])
async def test_slow_headers_of_a_later_request_are_given_up(folder: Path, begun: bytes) -> None:
    """The same on a connection that was good for a request; one that is idle before its next is kept."""
    async with running_gateway(folder, header_timeout_s=0.3) as gateway, asyncio.timeout(GIVE_UP_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.4)
        writer.write(begun)
        assert await reader.read(-1) == b""
        await close(writer)


async def test_headers_without_end_are_refused(folder: Path) -> None:
    """Headers are bounded in size, in one line or in many, long before their time is over."""
    async with running_gateway(folder, header_timeout_s=60.0) as gateway:
        for junk in (b"X-A: " + b"a" * 200_000, b"X-A: b\r\n" * 30_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n" + junk)
            async with asyncio.timeout(30):
                try:
                    received = await reader.read(-1)
                except ConnectionResetError:
                    received = b""  # The refusal may be lost: we were still sending.
            await close(writer)
            assert received == b"" or parse(received).status == 400


@pytest.mark.parametrize("junk", [b"X-A: %b\r\n" % (b"a" * 4_000), b"X-A: b\r\n" * 500])
async def test_headers_that_come_whole_are_as_bounded(folder: Path, junk: bytes) -> None:
    """In the same read as their end, or as the request before them, whose answer nothing is taken for."""
    before, begun = (
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
    )
    async with running_gateway(folder, max_header_bytes=4096) as gateway, asyncio.timeout(GIVE_UP_S):

        async def answers(data: bytes) -> list[bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(data)
            received = await reader.read(-1)
            await close(writer)
            return received.split(b"HTTP/1.1 ")[1:]

        assert [answer[:3] for answer in await answers(before + begun + junk[:2000] + b"\r\n\r\n")] == [b"200", b"200"]
        refused = begun + junk + b"X-B: " + b"b" * 90 + b"\r\n\r\n"
        (refusal,) = await answers(refused)
        assert refusal.startswith(b"400")
        assert b"headers are larger than 4096 bytes" in refusal
        assert await answers(before + refused) == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        b"POST /health HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a@b\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_one_error_and_a_closed_connection(gateway: Gateway, data: bytes) -> None:
    """Smuggling and noise: refused, never guessed at."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    async with asyncio.timeout(30):
        response = parse(await reader.read(-1))
    await close(writer)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert set(json.loads(response.body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("host", ["localhost", "10.0.0.5:8443", "[::1]:8443", "gpu_1.example"])
async def test_hosts_are_named_in_any_form_that_there_is(gateway: Gateway, host: str) -> None:
    """A client without a Host header is served if it speaks HTTP/1.0, as plain health checks do."""
    head = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert (await send_raw(gateway.port, head.encode())).status == 200
    assert (await send_raw(gateway.port, b"GET /health HTTP/1.0\r\n\r\n")).status == 200


async def test_blanks_around_a_value_are_no_part_of_it(gateway: Gateway) -> None:
    """Behind it as before it, in those that frame a request and those that say who asks."""
    body = json.dumps(CHAT | {"temprature": 1}).encode()
    for framing, data in (
        (f"Content-Length: {len(body)}", body),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
    ):
        lines = [f"POST {PATHS['chat']} HTTP/1.1", "Host: x \t", f"{BEARER} ", f"{JSON}\t", f"{framing}  "]
        head = "\r\n".join([*lines, "Connection: close ", "Content-Encoding: identity ", "", ""])
        response = await send_raw(gateway.port, head.encode() + data)
        assert (response.status, error_of(response)["param"]) == (400, "temprature")


async def test_an_upgrade_with_a_body_is_refused_as_such(gateway: Gateway) -> None:
    """The parser takes the body for the other protocol's; the client would hear that it had sent nothing."""
    lines = (BEARER, JSON, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    response = await exchange(gateway.port, "POST", PATHS["chat"], headers=lines, body=json.dumps(CHAT).encode())
    assert (response.status, error_of(response)["code"]) == (400, "invalid_http")
    assert "upgrade" in error_of(response)["message"]


CHUNKED_HEAD = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n"


async def test_a_token_in_a_trailer_is_refused(gateway: Gateway) -> None:
    """Trailers come after the headers were judged, so they are no headers."""
    body = json.dumps(CHAT).encode()
    data = CHUNKED_HEAD.encode() + b"\r\n%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, BEARER.encode())
    response = await send_raw(gateway.port, data)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert error_of(response)["message"] == "trailers are not taken"


@pytest.mark.parametrize("junk", [b"X-A: " + b"a" * 400_000, b"X-A: b\r\n" * 50_000], ids=["one", "many"])
async def test_trailers_without_end_are_refused(folder: Path, junk: bytes) -> None:
    """One trailer that never ends is as little kept as many."""
    async with running_gateway(folder, body_timeout_s=60.0) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"{CHUNKED_HEAD}{BEARER}\r\n\r\n1\r\n \r\n0\r\n".encode() + junk)
        async with asyncio.timeout(30):
            try:
                received = await reader.read(-1)
            except ConnectionResetError:
                received = b""  # The refusal may be lost: we were still sending.
        await close(writer)
        assert received == b"" or parse(received).status == 400


async def test_a_long_body_in_small_chunks_is_no_framing_without_end(gateway: Gateway) -> None:
    """What is counted against the bound on headers begins anew with every piece of body."""
    body = json.dumps(CHAT | {"temprature": 1}).encode() + b" " * 30_000
    chunks = b"".join(b"1\r\n%b\r\n" % body[place : place + 1] for place in range(len(body)))
    response = await send_raw(
        gateway.port, f"{CHUNKED_HEAD}Connection: close\r\n{BEARER}\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    )
    assert (response.status, error_of(response)["param"]) == (400, "temprature")


async def test_one_connections_error_disturbs_no_other(gateway: Gateway) -> None:
    """After all of it the gateway still answers."""
    for body in (b"\xff", b"[" * 50_000, b"{}"):
        await post(gateway, PATHS["chat"], body)
    assert (await exchange(gateway.port, "GET", "/health")).status == 200
