"""The log through the gateway: an auditor's routes and a monitor's, over a reader that says what it is told to say."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.messages.reading import FetchTile, SearchRecords
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.waiting import until
from tests.support.wire import Response, exchange

RECORD = b'{"metadata":{"sequence":7},"text":"\xc3\xa4 \\u0001"}'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder) as running:
        running.reader.records = {7: RECORD}
        running.reader.tiles = {"tile/0/x001/067": bytes(range(256)) * 32, "tile/entries/000.p/3": b"entries"}
        yield running


async def get(gateway: Gateway, path: str) -> Response:
    return await exchange(gateway.port, "GET", path, headers=(f"Authorization: Bearer {TOKEN}",))


async def post(gateway: Gateway, path: str, body: object) -> Response:
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    return await exchange(gateway.port, "POST", path, headers=headers, body=json.dumps(body).encode())


async def test_a_record_comes_as_its_very_bytes(gateway: Gateway) -> None:
    """So that it can be hashed; in a list too."""
    assert (await get(gateway, "/audit/record/7")).body == RECORD
    answer = await post(gateway, "/audit/search", {"actor": "ada", "limit": 5})
    assert b'"record":' + RECORD in answer.body
    assert json.loads(answer.body)["records"][0]["index"] == 7


async def test_the_reader_is_told_who_reads_and_what(gateway: Gateway) -> None:
    """As the token says it, never as the request does."""
    await post(gateway, "/audit/search", {"actor": "ada", "kind": "log_exported", "before": 9, "limit": 5})
    asked = gateway.reader.asked[-1]
    assert isinstance(asked, SearchRecords)
    assert (asked.by.client_id, asked.by.tenant, asked.by.address) == ("client-1", "acme", "127.0.0.1")
    assert (asked.terms, asked.before, asked.limit) == ({"actor": "ada", "kind": "log_exported"}, 9, 5)


async def test_tiles_have_the_types_and_lives_of_their_specification(gateway: Gateway) -> None:
    """C2SP tlog-tiles: octets that never change; a checkpoint in text that does. Nothing for shared caches."""
    for path, data in gateway.reader.tiles.items():
        tile = await get(gateway, f"/audit/log/{path}")
        assert (tile.status, tile.body) == (200, data)
        assert tile.headers["content-type"] == "application/octet-stream"
        assert tile.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert tile.headers["x-content-type-options"] == "nosniff"
    for path, text in (("checkpoint", b"checkpoint\n"), ("cosigned", b"cosigned\n")):
        note = await get(gateway, f"/audit/log/{path}")
        assert (note.status, note.body) == (200, text)
        assert note.headers["content-type"] == "text/plain; charset=utf-8"
        assert note.headers["cache-control"] == "private, no-cache"


async def test_a_large_tile_is_put_together_from_its_parts(gateway: Gateway) -> None:
    """One bundle may be larger than a message between processes."""
    gateway.reader.part_bytes = 1_000
    try:
        gateway.reader.asked.clear()
        tile = await get(gateway, "/audit/log/tile/0/x001/067")
    finally:
        gateway.reader.part_bytes = 1 << 20
    assert tile.body == gateway.reader.tiles["tile/0/x001/067"]
    assert [asked.offset for asked in gateway.reader.asked if isinstance(asked, FetchTile)] == list(
        range(0, 8192, 1000)
    )


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (("not_found", "no"), 404, "record_not_found"),
        (("not_allowed", "no"), 403, "not_allowed"),
        (("invalid", "no"), 400, "invalid_parameter"),
        (("unrecorded", "no"), 503, "reader_unavailable"),
        (("unreadable", "no"), 503, "reader_unavailable"),
    ],
)
async def test_refusals_have_their_status(gateway: Gateway, refusal: tuple[str, str], status: int, code: str) -> None:
    """Each is told apart."""
    gateway.reader.refusal = refusal
    try:
        answers = [
            await post(gateway, "/audit/search", {}),
            await post(gateway, "/audit/tail", {}),
            await get(gateway, "/audit/record/7"),
            await get(gateway, "/audit/log/tile/0/000"),
            await get(gateway, "/audit/log/checkpoint"),
        ]
    finally:
        gateway.reader.refusal = None
    for answer in answers:
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", ["-1", "x", "1e3", "9" * 16, "٣"])
async def test_what_is_no_index_is_no_record(gateway: Gateway, path: str) -> None:
    """Also where another writing of digits says one."""
    answer = await get(gateway, "/audit/record/" + "".join(f"%{byte:02x}" for byte in path.encode()))
    assert answer.status == 404


async def test_without_the_reader_nobody_reads_and_all_else_is_served(folder: Path) -> None:
    """503 for its routes, health and answers as ever; a new link is used at once."""
    async with running_gateway(folder) as gateway:
        assert gateway.reader.link is not None
        gateway.reader.link.close()
        await until(lambda: gateway.worker.desk.reader.status is None)
        away = await post(gateway, "/audit/search", {})
        assert (away.status, json.loads(away.body)["error"]["code"]) == (503, "reader_unavailable")
        assert (await get(gateway, "/health")).status == 200
        assert (await post(gateway, "/v1/completions", {"model": gateway.model.name, "prompt": "a"})).status == 200
        gateway.connect_reader()
        await until(lambda: gateway.worker.desk.reader.status is not None)
        assert (await post(gateway, "/audit/search", {})).status == 200
