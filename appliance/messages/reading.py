"""Gateway ↔ reader: searches, records and tiles, for whoever the gateway has found to be an auditor.

The reader decides what of the log that person's tenant may see, and has the reading recorded before it answers.
"""

from typing import Annotated

import msgspec

from audit.changes import Auditor

MAX_RECORDS = 1_000
MAX_PART_BYTES = 1 << 20
MAX_TILE_BYTES = 1 << 25
"""More than an entry bundle can be: 256 entries of 65,535 bytes."""
"""A tile or bundle larger than this comes in parts: one bundle can have 16 MiB."""
MAX_ANSWER_BYTES = 8 << 20
"""Records of one answer; what does not fit is left for the next."""

Correlation = Annotated[int, msgspec.Meta(ge=0)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_RECORDS)]


class ReadBy(msgspec.Struct, frozen=True, array_like=True):
    """Who reads, as the access token says it."""

    client_id: Text
    subject: Text
    tenant: Text
    token_id: Text
    address: Annotated[str, msgspec.Meta(max_length=64)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]

    @property
    def auditor(self) -> Auditor:
        """For a record."""
        return Auditor(**msgspec.structs.asdict(self))


class SearchRecords(msgspec.Struct, frozen=True, array_like=True, tag="search"):
    """The newest records that match. Answered by `RecordsFound`."""

    correlation: Correlation
    by: ReadBy
    terms: Annotated[dict[Text, Text], msgspec.Meta(max_length=16)]
    """By the names of `audit.index.Query`."""
    since_ms: int | None
    until_ms: int | None
    before: Index | None
    limit: Count


class ReadRecord(msgspec.Struct, frozen=True, array_like=True, tag="record"):
    """One record. Answered by `RecordsFound` with one."""

    correlation: Correlation
    by: ReadBy
    index: Index


class TailRecords(msgspec.Struct, frozen=True, array_like=True, tag="tail"):
    """Records in their order: from one on, or the last ones. Answered by `RecordsFound`."""

    correlation: Correlation
    by: ReadBy
    start: Index | None
    """None: so that `count` remain to the end."""
    count: Count


class FetchTile(msgspec.Struct, frozen=True, array_like=True, tag="tile"):
    """A tile or bundle by its C2SP path, from a byte on. Answered by `TilePart`."""

    correlation: Correlation
    by: ReadBy
    path: Annotated[str, msgspec.Meta(max_length=128)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MAX_TILE_BYTES)]


class FetchCheckpoint(msgspec.Struct, frozen=True, array_like=True, tag="checkpoint"):
    """The last signed checkpoint, or the last that witnesses have cosigned. Answered by `CheckpointNote`."""

    correlation: Correlation
    by: ReadBy
    cosigned: bool


class FoundRecord(msgspec.Struct, frozen=True, array_like=True):
    """A leaf's very bytes."""

    index: int
    record: bytes


class RecordsFound(msgspec.Struct, frozen=True, array_like=True, tag="records"):
    """Answer to `SearchRecords`, `ReadRecord` and `TailRecords`, in the order of each."""

    correlation: int
    records: list[FoundRecord]
    next: int | None
    """Where to go on: `before` of the next search, `start` of the next tail; None behind the last match."""
    indexed: int
    """How many records the search index covers."""
    log_size: int


class TilePart(msgspec.Struct, frozen=True, array_like=True, tag="tile_part"):
    """Answer to `FetchTile`: at most MAX_PART_BYTES."""

    correlation: int
    data: bytes
    size_bytes: int
    """Of the whole."""


class CheckpointNote(msgspec.Struct, frozen=True, array_like=True, tag="checkpoint_note"):
    """Answer to `FetchCheckpoint`: a signed note, as it is stored."""

    correlation: int
    note: bytes


class ReadRefused(msgspec.Struct, frozen=True, array_like=True, tag="read_refused"):
    """`code`: not_found, not_allowed (another tenant's), invalid, unrecorded (the reading could not be recorded), unreadable
    (the log's files or the index cannot be read now)."""

    correlation: int
    code: str
    message: str


class ReaderStatus(msgspec.Struct, frozen=True, array_like=True, tag="reader_status", gc=False):
    """Sent to every gateway once a second."""

    indexed: int
    log_size: int
    detail: str
    """Why the index does not follow the log; empty while it does."""


GatewayToReader = SearchRecords | ReadRecord | TailRecords | FetchTile | FetchCheckpoint
ReaderToGateway = RecordsFound | TilePart | CheckpointNote | ReadRefused | ReaderStatus
