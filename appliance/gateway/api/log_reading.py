"""The log for auditors: `POST /audit/search`, `POST /audit/tail`, `GET /audit/record/{id}`, and for monitors its tiles.

The reader decides which records, and has the reading recorded first. A record comes as the leaf's very bytes, so that
whoever has it can hash it. The tiles are those of C2SP tlog-tiles below `/audit/log`: a monitor needs that prefix, a token
and the log's key.
"""

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct
from msgspec.structs import asdict

from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.asgi import Headers
from appliance.gateway.body import parse_object
from appliance.gateway.errors import NotFound
from appliance.gateway.exchange import Exchange
from appliance.gateway.peers.reader import ReaderPeer
from appliance.messages.reading import (
    MAX_RECORDS,
    FetchCheckpoint,
    FetchTile,
    ReadBy,
    ReadRecord,
    RecordsFound,
    SearchRecords,
    TailRecords,
)

MAX_INDEX_DIGITS = 15
TILES = "/audit/log/tile/{path}"
CHECKPOINT = "/audit/log/checkpoint"
COSIGNED = "/audit/log/cosigned"
_IMMUTABLE: Headers = [(b"cache-control", b"private, max-age=31536000, immutable")]
"""A tile of a width never changes. `private`: it is for whoever had the token, not for a shared cache."""
_MUTABLE: Headers = [(b"cache-control", b"private, no-cache")]
_TEXT = b"text/plain; charset=utf-8"

Text = Annotated[str, Meta(max_length=256)]
Moment = Annotated[int, Meta(ge=0, lt=1 << 53)]
Position = Annotated[int, Meta(ge=0, lt=1 << 53)]


class SearchFields(Struct, kw_only=True):
    """`/audit/search`: all that is given must match; texts match whole. They are the terms of `audit.index.Query`, by its names."""

    actor: Text = ""
    client: Text = ""
    model: Text = ""
    kind: Text = ""
    outcome: Text = ""
    tenant: Text = ""
    trace: Text = ""
    request: Text = ""
    reporter: Text = ""
    since_ms: Moment | None = None
    until_ms: Moment | None = None
    before: Position | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_RECORDS)] = 100


class TailFields(Struct, kw_only=True):
    """`/audit/tail`: records in their order, from `start` on, or the last `count`."""

    start: Position | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_RECORDS)] = 10


class LogReading:
    """The endpoints over the reader."""

    def __init__(self, reader: ReaderPeer) -> None:
        self._reader = reader

    async def search(self, exchange: Exchange) -> None:
        """The newest records that match."""
        fields = parse_parameters(parse_object(await exchange.read_body()), SearchFields)
        by = read_by(exchange)
        terms = {name: text for name, text in asdict(fields).items() if isinstance(text, str) and text}
        found = await self._reader.find(
            lambda number: SearchRecords(
                number, by, terms, fields.since_ms, fields.until_ms, fields.before, fields.limit
            )
        )
        await exchange.respond(200, _describe(found))

    async def tail(self, exchange: Exchange) -> None:
        """Records in their order."""
        fields = parse_parameters(parse_object(await exchange.read_body()), TailFields)
        by = read_by(exchange)
        found = await self._reader.find(lambda number: TailRecords(number, by, fields.start, fields.count))
        await exchange.respond(200, _describe(found))

    async def show(self, exchange: Exchange) -> None:
        """One record's very bytes."""
        index, by = parse_index(exchange.segment), read_by(exchange)
        found = await self._reader.find(lambda number: ReadRecord(number, by, index))
        await exchange.respond_bytes(200, found.records[0].record, b"application/json")

    async def tile(self, exchange: Exchange) -> None:
        """A hash tile or an entry bundle."""
        path, by = f"tile/{exchange.segment}", read_by(exchange)
        data = await self._reader.fetch_tile(lambda number, offset: FetchTile(number, by, path, offset))
        await exchange.respond_bytes(200, data, b"application/octet-stream", _IMMUTABLE)

    async def checkpoint(self, exchange: Exchange) -> None:
        """The last signed checkpoint."""
        await self._respond_checkpoint(exchange, cosigned=False)

    async def cosigned(self, exchange: Exchange) -> None:
        """The last checkpoint that witnesses have cosigned."""
        await self._respond_checkpoint(exchange, cosigned=True)

    async def _respond_checkpoint(self, exchange: Exchange, *, cosigned: bool) -> None:
        by = read_by(exchange)
        note = await self._reader.fetch_checkpoint(lambda number: FetchCheckpoint(number, by, cosigned))
        await exchange.respond_bytes(200, note, _TEXT, _MUTABLE)


def read_by(exchange: Exchange) -> ReadBy:
    """Who reads."""
    who = exchange.identified
    return ReadBy(who.client_id, who.subject, who.tenant, who.token_id, exchange.source_address, exchange.source_port)


def parse_index(segment: str) -> int:
    """The index of a record. Raises: NotFound."""
    if not (segment.isascii() and segment.isdigit() and len(segment) <= MAX_INDEX_DIGITS):
        raise NotFound("record_not_found", "expected the index of a record")
    return int(segment)


def _describe(found: RecordsFound) -> dict[str, Any]:
    records = [{"index": one.index, "record": Raw(one.record)} for one in found.records]
    return {"records": records, "next": found.next, "indexed": found.indexed, "log_size": found.log_size}
