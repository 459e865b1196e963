"""What workers tell one another about responses made in the background, through the file in which responses are kept.

The worker that makes one writes its events in batches as they come, and its end; all others read. Whoever cancels one says so in
its row, which its maker sees at its next batch. A row goes from `running` to `over`, by its maker alone; by way of `cancelling`
if that was asked, after which it cannot complete any more. Where the maker died, whoever notices ends it in its stead.
"""

import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from appliance.gateway.api.response_store import ResponseStore, State

_ENDING_S = 120
"""More than it takes to record and write the end of what has ended, from which on it is kept as all responses are."""
_READ_BATCHES = 32
"""Read at a time: what a worker holds for one client that is behind."""

Verdict = Literal["written", "cancelled", "gone"]
"""Of a page: it is on the disk; or it is not, because somebody cancelled the response, or it is not its writer's (any more)."""


class Key(msgspec.Struct, frozen=True):
    """Which response."""

    tenant: str
    response_id: str


class Page(msgspec.Struct, frozen=True):
    """What is new of a response. Without events and an end it only asks."""

    key: Key
    first: int
    """Sequence number of the first event."""
    events: Sequence[bytes] = ()
    ending: bytes | None = None
    """The whole record, when it is over."""
    is_cancelled: bool = False
    """Its maker knows that it was."""


class EventsRead(msgspec.Struct, frozen=True):
    """Events from a number on, as many as there are or as were read at once."""

    events: list[bytes]
    next_number: int
    """The number that the next one to come has, if these are all."""
    state: State
    is_lost: bool


class BackgroundStore:
    """One worker's view."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._file = store.file

    async def begin(self, key: Key, body: bytes, *, is_streamed: bool, lasts_s: float) -> None:
        """Keep a response of which more will come, for so long at most. Raises: PeerUnavailable."""

        def work(database: sqlite3.Connection) -> None:
            worker = self._store.lives.claim()
            expires_at = int(time.time() + lasts_s) + _ENDING_S + self._store.retention_s
            self._store.insert(database, key.tenant, key.response_id, body, expires_at)
            row = (key.tenant, key.response_id, worker, is_streamed)
            database.execute("INSERT INTO background VALUES (?, ?, ?, 'running', ?)", row)

        await self._file.write(work)

    async def write(self, pages: Sequence[Page]) -> list[Verdict]:
        """Bring pages of this worker's to the disk, in one transaction. Raises: PeerUnavailable."""

        def work(database: sqlite3.Connection) -> list[Verdict]:
            if any(page.events or page.ending is not None for page in pages):
                database.execute("BEGIN IMMEDIATE")
            return [self._write(database, page) for page in pages]

        return await self._file.write(work)

    async def cancel(self, key: Key) -> None:
        """Ask that it be cancelled; nothing happens to what is over. Raises: PeerUnavailable."""
        query = "UPDATE background SET state = 'cancelling' WHERE tenant = ? AND id = ? AND state = 'running'"
        await self._file.write(lambda database: database.execute(query, (key.tenant, key.response_id)))

    async def read_events(self, key: Key, start: int) -> EventsRead | None:
        """The events from a sequence number on; None if there is no such response. Raises: PeerUnavailable."""
        return await self._file.read(lambda database: self._read(database, key, start), None)

    async def look(self, wanted: Sequence[tuple[Key, int]]) -> list[EventsRead | None]:
        """The same of several, in one transaction. Raises: PeerUnavailable."""
        absent: list[EventsRead | None] = [None] * len(wanted)
        return await self._file.read(lambda database: [self._read(database, *each) for each in wanted], absent)

    async def end_lost(self, key: Key, worker: str, body: bytes, terminal: Callable[[int], bytes]) -> None:
        """End what a dead worker left, unless somebody did. `terminal` gives the last event, by its number.

        Raises: PeerUnavailable.
        """

        def work(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            query = "SELECT state, worker, is_streamed FROM background WHERE tenant = ? AND id = ?"
            row = database.execute(query, (key.tenant, key.response_id)).fetchone()
            if row is not None and row[0] != "over" and row[1] == worker:
                first = self._next_number(database, key)
                self._end(database, Page(key, first, [terminal(first)] if row[2] else [], body))

        await self._file.write(work)

    def _write(self, database: sqlite3.Connection, page: Page) -> Verdict:
        query = "SELECT state FROM background WHERE tenant = ? AND id = ?"
        row = database.execute(query, (page.key.tenant, page.key.response_id)).fetchone()
        if row is None or row[0] == "over":
            return "gone"
        if row[0] == "cancelling" and not page.is_cancelled:
            return "cancelled"
        if page.ending is not None:
            self._end(database, page)
        else:
            self._add_events(database, page)
        return "written"

    def _end(self, database: sqlite3.Connection, page: Page) -> None:
        assert page.ending is not None
        self._add_events(database, page)
        self._store.insert(
            database,
            page.key.tenant,
            page.key.response_id,
            page.ending,
            int(time.time()) + self._store.retention_s,
        )
        query = "UPDATE background SET state = 'over' WHERE tenant = ? AND id = ?"
        database.execute(query, (page.key.tenant, page.key.response_id))

    def _add_events(self, database: sqlite3.Connection, page: Page) -> None:
        if page.events:
            body = zlib.compress(msgspec.msgpack.encode(page.events), 1)
            sealed = self._file.seal(_context(page.key, page.first), body)
            row = (page.key.tenant, page.key.response_id, page.first, len(page.events), sealed)
            database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)

    def _read(self, database: sqlite3.Connection, key: Key, start: int) -> EventsRead | None:
        # The state first: of what was over by then all events are there.
        query = """SELECT state, worker FROM background JOIN responses USING (tenant, id)
            WHERE tenant = ? AND id = ? AND expires_at > ?"""
        found = database.execute(query, (key.tenant, key.response_id, int(time.time()))).fetchone()
        if found is None:
            return None
        state, worker = found
        query = (
            "SELECT first, body FROM events WHERE tenant = ? AND id = ? AND first + number > ? ORDER BY first LIMIT ?"
        )
        events: list[bytes] = []
        next_number = self._next_number(database, key)
        for first, sealed in database.execute(query, (key.tenant, key.response_id, start, _READ_BATCHES)):
            body = self._file.unseal(_context(key, first), sealed)
            if body is None:
                return None  # Not ours.
            events += msgspec.msgpack.decode(zlib.decompress(body), type=list[bytes])[max(0, start - first) :]
        return EventsRead(events, next_number, state, state != "over" and not self._store.lives.is_alive(worker))

    def _next_number(self, database: sqlite3.Connection, key: Key) -> int:
        query = "SELECT max(first + number) FROM events WHERE tenant = ? AND id = ?"
        return database.execute(query, (key.tenant, key.response_id)).fetchone()[0] or 0


def _context(key: Key, first: int) -> str:
    return f"casemate response events {first} {len(key.tenant)} {key.tenant} {key.response_id}"
