"""The reader's rules: who may read what, that it is recorded, and the answers.

| who | sees |
|---|---|
| auditors of `audit.overseeing_tenant` | every record, and the tiles |
| auditors of any other tenant | the records of that tenant |

That somebody is an auditor at all is what the scope `audit.log` says, which only that role is granted; the gateway checks it.
A search and a record shown is an event each time; what goes on by itself (a tail that is followed, a monitor) is one a client
and hour. The event is durable before anything is answered: no log, no reading.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

import structlog

from appliance.authority.journal import JournalUnavailable
from appliance.errors import LinkClosed
from appliance.messages.reading import (
    MAX_ANSWER_BYTES,
    MAX_PART_BYTES,
    CheckpointNote,
    FetchCheckpoint,
    FetchTile,
    FoundRecord,
    GatewayToReader,
    ReadBy,
    ReaderStatus,
    ReaderToGateway,
    ReadRecord,
    ReadRefused,
    RecordsFound,
    SearchRecords,
    TailRecords,
    TilePart,
)
from appliance.reader.archive import Archive, Page
from audit.changes import reading_event
from audit.entry import encode_event, parse_canonical
from audit.errors import AuditFault, AuditRejected, EntryNotFound, LogCorrupted, MalformedTile
from audit.index import TERMS, Query

STATUS_INTERVAL_S = 1.0
FOLLOW_INTERVAL_S = 0.5
RETRY_INTERVAL_S = 5.0
ONGOING_S = 3600.0

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class Refused(Exception):
    """The reading is not answered."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class GatewayLink(Protocol):
    """What is needed of `appliance.ipc.link.Link`."""

    def send(self, message: Any) -> None:
        """Raises: LinkClosed."""

    async def receive(self) -> Any:
        """Raises: LinkClosed."""


class Records(Protocol):
    """What is needed of a `Journal`."""

    async def record(self, event: bytes) -> int:
        """Raises: JournalUnavailable."""


class ReaderService:
    """Answers gateways.

    Args:
        executor: of one thread: the archive's.
        overseeing_tenant: whose auditors see everything.
        cosigned: the last checkpoint that witnesses have cosigned; empty where there is none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        archive: Archive,
        executor: Executor,
        journal: Records,
        *,
        overseeing_tenant: str,
        cosigned: Callable[[], bytes],
        clock: Callable[[], float],
    ) -> None:
        self._archive = archive
        self._executor = executor
        self._journal = journal
        self._overseeing_tenant = overseeing_tenant
        self._cosigned = cosigned
        self._clock = clock
        self._links: list[GatewayLink] = []
        self._ongoing: dict[tuple[str, str, str], float] = {}
        self._status = ReaderStatus(0, 0, "the log was not read yet")

    async def run(self, link: GatewayLink) -> None:
        """Serve one gateway, one question at a time, until its link ends. Raises: LinkClosed."""
        self._links.append(link)
        try:
            link.send(self._status)
            while True:
                message = await link.receive()
                link.send(await self.answer(message))
        finally:
            self._links.remove(link)

    async def answer(self, message: GatewayToReader) -> ReaderToGateway:
        """Answer one question; whatever is wrong is a refusal."""
        try:
            return await self._answer(message)
        except Refused as refused:
            return ReadRefused(message.correlation, refused.code, str(refused))
        except (EntryNotFound, MalformedTile) as fault:
            return ReadRefused(message.correlation, "not_found", str(fault))
        except JournalUnavailable as fault:
            return ReadRefused(message.correlation, "unrecorded", f"the reading cannot be recorded: {fault}")
        except AuditFault as fault:
            log.error("log_unreadable", reason=str(fault))
            return ReadRefused(message.correlation, "unreadable", "the log or its index cannot be read now")

    async def follow(self) -> None:
        """Keep the index up to date, and tell the gateways how far it is; to be cancelled."""
        while True:
            interval_s = FOLLOW_INTERVAL_S
            try:
                size = await self._call(self._archive.follow)
                indexed = await self._call(lambda: self._archive.indexed)
                self._status = ReaderStatus(indexed, size, "")
                interval_s = FOLLOW_INTERVAL_S if indexed == size else 0.0
            except EntryNotFound:
                self._status = ReaderStatus(0, 0, "the log has no checkpoint yet")
            except (AuditRejected, AuditFault) as fault:
                log.error("index_behind", reason=str(fault))
                self._status = ReaderStatus(self._status.indexed, self._status.log_size, str(fault)[:512])
                interval_s = RETRY_INTERVAL_S
            await asyncio.sleep(interval_s)

    async def report(self) -> None:
        """Tell every gateway how it stands; to be cancelled."""
        while True:
            for link in list(self._links):
                try:
                    link.send(self._status)
                except LinkClosed:
                    continue
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def _answer(self, message: GatewayToReader) -> ReaderToGateway:
        match message:
            case SearchRecords():
                return await self._search(message)
            case ReadRecord():
                return await self._show(message)
            case TailRecords():
                return await self._tail(message)
            case FetchTile():
                return await self._fetch_tile(message)
            case FetchCheckpoint():
                return await self._fetch_checkpoint(message)

    async def _search(self, message: SearchRecords) -> RecordsFound:
        terms = {name: text for name, text in message.terms.items() if text}
        if unknown := sorted(set(terms) - set(TERMS)):
            raise Refused(
                "invalid", f"records are not searched by {unknown[0]!r}; there are {', '.join(sorted(TERMS))}"
            )
        if tenant := self._tenant_of(message.by):
            if terms.get("tenant", tenant) != tenant:
                raise Refused("not_allowed", f"auditors of the tenant {tenant} see its records only")
            terms["tenant"] = tenant
        bounds = {"before": message.before, "since_ms": message.since_ms, "until_ms": message.until_ms}
        asked = terms | {name: value for name, value in bounds.items() if value is not None}
        await self._record(message.by, "search", asked | {"limit": message.limit})
        query = Query(**terms, since_ms=message.since_ms, until_ms=message.until_ms)
        limit, before = message.limit, message.before
        page = await self._call(
            lambda: self._archive.search(query, limit=limit, before=before, max_bytes=MAX_ANSWER_BYTES)
        )
        return self._found(message.correlation, page)

    async def _show(self, message: ReadRecord) -> RecordsFound:
        # The same words for a record that is not there and one of another tenant: which it is is not told.
        missing = EntryNotFound(f"no record {message.index} that may be shown")
        try:
            record = await self._call(lambda: self._archive.record(message.index))
        except EntryNotFound:
            raise missing from None
        if (tenant := self._tenant_of(message.by)) and _tenant_in(record) != tenant:
            raise missing
        await self._record(message.by, "record", {"index": message.index})
        return self._found(message.correlation, Page([(message.index, record)], None))

    async def _tail(self, message: TailRecords) -> RecordsFound:
        await self._record_ongoing(message.by, "tail")
        tenant, start, count = self._tenant_of(message.by), message.start, message.count
        page = await self._call(
            lambda: self._archive.tail(tenant, start, count=count, max_bytes=MAX_ANSWER_BYTES),
        )
        return self._found(message.correlation, page)

    async def _fetch_tile(self, message: FetchTile) -> TilePart:
        self._verify_oversees(message.by)
        await self._record_ongoing(message.by, "tiles")
        path, offset = message.path, message.offset
        data, size_bytes = await self._call(lambda: self._archive.read_part(path, offset, MAX_PART_BYTES))
        return TilePart(message.correlation, data, size_bytes)

    async def _fetch_checkpoint(self, message: FetchCheckpoint) -> CheckpointNote:
        self._verify_oversees(message.by)
        await self._record_ongoing(message.by, "tiles")
        note = self._cosigned() if message.cosigned else await self._call(self._archive.checkpoint_note)
        if not note:
            raise EntryNotFound("no witness has cosigned yet")
        return CheckpointNote(message.correlation, note)

    def _tenant_of(self, by: ReadBy) -> str:
        """The tenant whose records alone this auditor may see; empty for all."""
        return "" if by.tenant == self._overseeing_tenant else by.tenant

    def _verify_oversees(self, by: ReadBy) -> None:
        if self._tenant_of(by):
            raise Refused("not_allowed", "tiles hold the records of all tenants")

    async def _record(self, by: ReadBy, what: str, facts: Mapping[str, str | int]) -> None:
        event = reading_event(by.auditor, log_name=self._archive.origin, what=what, facts=facts)
        await self._journal.record(encode_event(event))

    async def _record_ongoing(self, by: ReadBy, what: str) -> None:
        key, now_s = (by.client_id, by.subject, what), self._clock()
        if self._ongoing.get(key, now_s) > now_s:
            return
        await self._record(by, what, {"for_s": round(ONGOING_S)})
        self._ongoing = {one: end_s for one, end_s in self._ongoing.items() if end_s > now_s}
        self._ongoing[key] = now_s + ONGOING_S

    def _found(self, correlation: int, page: Page) -> RecordsFound:
        records = [FoundRecord(index, record) for index, record in page.records]
        return RecordsFound(correlation, records, page.next, self._status.indexed, self._status.log_size)

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _tenant_in(record: bytes) -> str:
    """Whose a record is; empty for the appliance's own."""
    try:
        tenant = parse_canonical(record).get("metadata", {}).get("tenant_uid", "")
    except AuditRejected as error:
        raise LogCorrupted(f"a record is not in canonical form: {error}") from error
    return tenant if isinstance(tenant, str) else ""
