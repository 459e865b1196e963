"""An index of a log for searching: a SQLite file that holds no record, can be dropped at any time, and is built again from the log.

Each record is a row of numbers: its time, and for each searchable text the number of that text in a table of terms. So ten
million records take about a gigabyte, and a search by any term is one walk through a B-tree, newest first.

What always holds: the index is of a prefix of the log that the folder holds, or it is built anew: it remembers root and size of
what it covers. What a search finds is read from the log itself; the index is never the evidence.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import msgspec

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import IndexUnusable
from audit.note import VerifierKey
from audit.range_proof import verify_records
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH

SCHEMA_VERSION = 2
_BUNDLES_A_TRANSACTION = 64
_CACHED_TERMS = 100_000
_TABLES = frozenset(("covered", "records", "terms"))
_MAX_INTEGER = 2**63 - 1
"""SQLite's; no index and no time is larger."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What records must match: all that is given. Texts match whole."""

    actor: str = ""
    """Who asked or acted: the id of an account (with or without `user:` before it), the subject of a token, the system's user."""
    client: str = ""
    model: str = ""
    kind: str = ""
    outcome: str = ""
    """A status code such as `stop` or `invalid_client`, or `success` or `failure`."""
    tenant: str = ""
    trace: str = ""
    request: str = ""
    reporter: str = ""
    since_ms: int | None = None
    """Milliseconds since 1970, included."""
    until_ms: int | None = None
    """Not included."""


TERMS = tuple(field.name for field in fields(Query) if field.type is str)
"""What can be searched for, in the order of the index's columns."""


class _Named(msgspec.Struct, gc=False):
    name: str = ""
    uid: str = ""


class _Actor(msgspec.Struct, gc=False):
    app_uid: str = ""
    user: _Named = msgspec.field(default_factory=_Named)


class _Own(msgspec.Struct, gc=False):
    kind: str = ""
    request_uid: str = ""


class _Unmapped(msgspec.Struct, gc=False):
    casemate: _Own = msgspec.field(default_factory=_Own)


class _Metadata(msgspec.Struct, gc=False):
    reporter: _Named = msgspec.field(default_factory=_Named)
    tenant_uid: str = ""


class _Record(msgspec.Struct, gc=False):
    time: int = 0
    status_id: int = 0
    status_code: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)
    actor: _Actor = msgspec.field(default_factory=_Actor)
    user: _Named = msgspec.field(default_factory=_Named)
    ai_model: _Named = msgspec.field(default_factory=_Named)
    app: _Named = msgspec.field(default_factory=_Named)
    trace: _Named = msgspec.field(default_factory=_Named)


_decoder = msgspec.json.Decoder(_Record)
_ACCOUNT_KINDS = ("user:", "client:")
"""What stands before the id of who acted by the admin API or changed their own password; elsewhere it is the id alone."""
_STATUS = {1: "success", 2: "failure"}


def _without_kind(name: str) -> str:
    return next((name.removeprefix(kind) for kind in _ACCOUNT_KINDS if name.startswith(kind)), name)


def _texts_of(record: _Record) -> tuple[str, ...]:
    """The searchable texts, in the order of TERMS."""
    own, actor, user = record.unmapped.casemate, record.actor, record.user
    return (
        actor.user.uid or _without_kind(actor.user.name) or user.uid or user.name,
        actor.app_uid or (user.uid if own.kind.startswith(("token_", "client_")) else ""),
        record.ai_model.name or (record.app.name if own.kind.startswith("model_") else ""),
        own.kind,
        record.status_code or _STATUS.get(record.status_id, ""),
        record.metadata.tenant_uid,
        record.trace.uid,
        own.request_uid,
        record.metadata.reporter.name,
    )


class LogIndex:
    """One index file over one log's folder. Not for several threads.

    Args:
        path: the file; made where there is none.
        key: the log's key: only what a checkpoint signed by it covers is indexed.
    Raises: IndexUnusable when the file cannot be used and cannot be made anew either.
    """

    def __init__(self, path: Path, folder: Path, key: VerifierKey) -> None:
        self._path = path
        self._key = key
        self.reader = LogReader(folder)
        self._numbers: dict[str, int] = {}
        self._data_version = 0
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            raise IndexUnusable(f"{path}: {error}; remove it, and it is built again") from error

    @property
    def size(self) -> int:
        """How many records are indexed: the first so many."""
        (size,) = self._database.execute("SELECT size FROM covered").fetchone()
        return int(size)

    def update(self, progress: Progress = lambda _done, _all: None, max_records: int | None = None) -> Checkpoint:
        """Index what the last checkpoint covers and is not yet; where the log is another, everything.

        Others may update the same file at the same time: whoever comes second finds the work done.

        Args:
            max_records: how many at most, in whole bundles; the rest at the next call. None for all.
        Returns: the checkpoint, whose signature was checked; `size` says what of it is indexed.
        Raises: SignatureRejected, LogCorrupted, EntryNotFound when there is no checkpoint, IndexUnusable.
        """
        try:
            checkpoint = self._begin_update()
            first = self.size
            last = checkpoint.size if max_records is None else min(checkpoint.size, first + max_records)
            for start in range(first, last, TILE_WIDTH * _BUNDLES_A_TRANSACTION):
                end = min(start + TILE_WIDTH * _BUNDLES_A_TRANSACTION, last)
                self._add(start, end, checkpoint.size)
                progress(end, checkpoint.size)
        except sqlite3.Error as error:
            raise IndexUnusable(f"{self._path}: {error}; remove it, and it is built again") from error
        return checkpoint

    def find(self, query: Query, *, limit: int = 100, before: int | None = None, start: int | None = None) -> list[int]:
        """Indices of the records that match, newest first; with `start` oldest first.

        Args:
            before: only records with smaller indices: the last of an earlier answer, to go on behind it.
            start: only records from this index on.
        Raises: IndexUnusable.
        """
        conditions, values = ["1"], []
        for name in TERMS:
            if text := getattr(query, name):
                condition, found = self._match(name, text)
                conditions.append(condition)
                values += found
        bounds = (
            ("time >= ?", query.since_ms),
            ("time < ?", query.until_ms),
            ("idx < ?", before),
            ("idx >= ?", start),
        )
        for condition, value in bounds:
            if value is not None:
                conditions.append(condition)
                values.append(value)
        values = [max(-_MAX_INTEGER, min(value, _MAX_INTEGER)) for value in (*values, limit)]
        order = "DESC" if start is None else "ASC"
        statement = f"SELECT idx FROM records WHERE {' AND '.join(conditions)} ORDER BY idx {order} LIMIT ?"  # noqa: S608
        try:
            return [int(index) for (index,) in self._database.execute(statement, values)]
        except sqlite3.Error as error:
            raise IndexUnusable(f"{self._path}: {error}; remove it, and it is built again") from error

    def read(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The records themselves, from the log, each led to the signed tree.

        Raises: EntryNotFound, LogCorrupted, ProofRejected, SignatureRejected.
        """
        checkpoint = verify_checkpoint(self.reader.checkpoint_note(), [self._key], self._key.name)
        size = checkpoint.size
        for index in indices:
            entry = self.reader.read_entry(index, size)
            verify_records([entry], index, size, checkpoint.root, partial(self._range_hash, size))
            yield entry

    def _range_hash(self, size: int, start: int, end: int) -> bytes:
        return self.reader.range_hash(start, end, size)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _match(self, name: str, text: str) -> tuple[str, list[int]]:
        if name == "outcome" and text in _STATUS.values():
            return "status = ?", [1 if text == "success" else 2]
        if name == "actor" and (alone := _without_kind(text)) != text:
            return "actor IN (?, ?)", [self._find_number(text), self._find_number(alone)]
        return f"{name} = ?", [self._find_number(text)]

    def _find_number(self, text: str) -> int:
        """Of a text that stands in a record, else -1; so of what is no Unicode text, as an argument of a shell may be."""
        if text.encode("utf-8", "replace").decode() != text:
            return -1
        row = self._database.execute("SELECT id FROM terms WHERE text = ?", (text,)).fetchone()
        return int(row[0]) if row else -1

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            # Somebody removed the index while another process has it open, which goes on with what it has; here its write-ahead log
            # and its shared memory would be those of a file that is none any more, and SQLite would call that an I/O error.
            for ending in ("-wal", "-shm"):
                self._path.with_name(f"{self._path.name}{ending}").unlink(missing_ok=True)
        database = sqlite3.connect(self._path, isolation_level=None)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if (
            not tables <= _TABLES
        ):  # Somebody named another database: nothing may be put into it, and it must not be dropped.
            database.close()
            raise IndexUnusable(
                f"{self._path}: is another database, with the table {min(tables - _TABLES)}; name another file"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # What a crash loses is built again.
        columns = ", ".join(f"{name} INTEGER" for name in TERMS)
        if version not in (0, SCHEMA_VERSION):
            database.executescript("BEGIN IMMEDIATE;" + "".join(f"DROP TABLE {name};" for name in tables) + "COMMIT;")
        database.executescript(f"""
            CREATE TABLE IF NOT EXISTS terms (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
            CREATE TABLE IF NOT EXISTS records
                (idx INTEGER PRIMARY KEY, time INTEGER NOT NULL, status INTEGER NOT NULL, {columns});
            CREATE TABLE IF NOT EXISTS covered (size INTEGER NOT NULL, root BLOB NOT NULL);
            INSERT INTO covered SELECT 0, x'' WHERE NOT EXISTS (SELECT 1 FROM covered);
            PRAGMA user_version = {SCHEMA_VERSION};
        """)  # noqa: S608 - our own column names
        for name in TERMS:  # Partial: most records have no trace, many no model.
            database.execute(f"CREATE INDEX IF NOT EXISTS by_{name} ON records ({name}, idx) WHERE {name} IS NOT NULL")
        database.execute("CREATE INDEX IF NOT EXISTS by_time ON records (time)")
        return database

    def _begin_update(self) -> Checkpoint:
        """The checkpoint to index under; what is indexed of another log is dropped.

        All of it while no other process can write: else a checkpoint read before another process indexed behind it would look as
        if the log had gone back, and an index half cleared when the process ends would say that it covers what it has lost.
        """
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            checkpoint = verify_checkpoint(self.reader.checkpoint_note(), [self._key], self._key.name)
            if not self._is_prefix(checkpoint):
                database.execute("UPDATE covered SET size = 0, root = x''")
                database.execute("DELETE FROM records")
                database.execute("DELETE FROM terms")
                self._numbers.clear()
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        return checkpoint

    def _is_prefix(self, checkpoint: Checkpoint) -> bool:
        size, root = self._database.execute("SELECT size, root FROM covered").fetchone()
        return bool(size <= checkpoint.size and (size == 0 or self.reader.root(size, checkpoint.size) == root))

    def _add(self, start: int, end: int, size: int) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            self._forget_numbers_of_others()
            if self.size != start:  # Another process was here first.
                database.execute("ROLLBACK")
                return
            rows = list(self._rows(start, end, size))
            marks = ", ".join("?" * (3 + len(TERMS)))
            database.executemany(f"INSERT INTO records VALUES ({marks})", rows)  # noqa: S608
            database.execute("UPDATE covered SET size = ?, root = ?", (end, self.reader.root(end, size)))
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._numbers.clear()
            raise

    def _forget_numbers_of_others(self) -> None:
        """What another process has written since may have given our texts other numbers."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._numbers.clear()

    def _rows(self, start: int, end: int, size: int) -> Iterator[tuple[int | None, ...]]:
        for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            for index, entry in enumerate(self.reader.read_bundle(number, size), number * TILE_WIDTH):
                if start <= index < end:
                    record = _summarize(entry)
                    yield (index, record.time, record.status_id, *map(self._number_of, _texts_of(record)))

    def _number_of(self, text: str) -> int | None:
        if not text:
            return None
        if (number := self._numbers.get(text)) is not None:
            return number
        row = self._database.execute("SELECT id FROM terms WHERE text = ?", (text,)).fetchone()
        if row is None:
            number = int(self._database.execute("INSERT INTO terms (text) VALUES (?)", (text,)).lastrowid or 0)
        else:
            number = int(row[0])
        if len(self._numbers) >= _CACHED_TERMS:
            self._numbers.clear()
        self._numbers[text] = number
        return number


def _summarize(entry: bytes) -> _Record:
    """What can be searched for; a record whose members have other types than theirs is found by its index only."""
    try:
        return _decoder.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Record()
