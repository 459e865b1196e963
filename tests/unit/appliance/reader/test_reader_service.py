"""The reader's rules: whose records, and no answer that is not recorded."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from appliance.authority.journal import JournalUnavailable
from appliance.messages.reading import (
    CheckpointNote,
    FetchCheckpoint,
    FetchTile,
    ReadBy,
    ReadRecord,
    ReadRefused,
    RecordsFound,
    SearchRecords,
    TailRecords,
    TilePart,
)
from appliance.reader.archive import Archive
from appliance.reader.service import ReaderService
from audit.entry import Json, parse_canonical
from audit.permissions import verify_permitted
from tests.support.audit_logs import Log

OVERSEER = ReadBy("auditor-1", "ada", "default", "jti", "10.0.0.9", 4000)
OF_T1 = ReadBy("auditor-2", "bob", "t1", "jti", "10.0.0.9", 4000)


class Here(Executor):
    """Runs at once, in this thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class House:
    """A reader over a log, with a journal that remembers."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.archive = Archive(log.home / "log", log.writer.key, log.home / "reader" / "index.sqlite")
        self.archive.follow()
        self.events: list[Json] = []
        self.is_away = False
        self.now_s = 0.0
        self.cosigned = b""
        self.service = ReaderService(
            self.archive,
            Here(),
            self,
            overseeing_tenant="default",
            cosigned=lambda: self.cosigned,
            clock=lambda: self.now_s,
        )

    async def record(self, event: bytes) -> int:
        if self.is_away:
            raise JournalUnavailable("the auditor is away")
        parsed = parse_canonical(event)
        verify_permitted("reader", "event", parsed)
        self.events.append(parsed)
        return len(self.events)

    async def search(self, by: ReadBy, **terms: str) -> RecordsFound | ReadRefused:
        answer = await self.service.answer(SearchRecords(1, by, terms, None, None, None, 1_000))
        assert isinstance(answer, RecordsFound | ReadRefused)
        return answer

    @property
    def read(self) -> list[str]:
        return [event["unmapped"]["casemate"]["what"] for event in self.events]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    log = Log(tmp_path)
    log.grow(300)
    house = House(log)
    yield house
    house.archive.close()
    log.writer.close()


def tenants(house: House, answer: object) -> set[str]:
    assert isinstance(answer, RecordsFound)
    return {house.log.events[one.index]["metadata"].get("tenant_uid", "") for one in answer.records}


async def test_every_search_is_an_event_before_its_answer(house: House) -> None:
    """Who, from where, and for what."""
    await house.search(OVERSEER, actor="eve", kind="process_started")
    (event,) = house.events
    assert (event["actor"]["user"]["uid"], event["actor"]["app_uid"], event["src_endpoint"]["ip"]) == ("ada", "auditor-1", "10.0.0.9")  # fmt: skip  # noqa: E501
    asked = {"actor": "eve", "kind": "process_started", "limit": 1_000}
    assert event["unmapped"]["casemate"] == {"asked": asked, "kind": "log_searched", "what": "search"}


async def test_nothing_is_read_that_cannot_be_recorded(house: House) -> None:
    """No log, no reading, of any kind."""
    house.is_away = True
    for message in (
        SearchRecords(1, OVERSEER, {}, None, None, None, 10),
        ReadRecord(2, OVERSEER, 0),
        TailRecords(3, OVERSEER, None, 10),
        FetchTile(4, OVERSEER, "tile/0/000", 0),
        FetchCheckpoint(5, OVERSEER, False),
    ):
        answer = await house.service.answer(message)
        assert isinstance(answer, ReadRefused)
        assert (answer.correlation, answer.code) == (message.correlation, "unrecorded")


async def test_auditors_of_the_overseeing_tenant_see_everything(house: House) -> None:
    """Records of all tenants and the appliance's own."""
    assert tenants(house, await house.search(OVERSEER)) == {"", "t0", "t1", "t2"}


async def test_auditors_of_another_tenant_see_its_records_only(house: House) -> None:
    """By search, by tail, by index; what is another's is told in the same words as what is not there."""
    assert tenants(house, await house.search(OF_T1)) == {"t1"}
    assert tenants(house, await house.service.answer(TailRecords(1, OF_T1, None, 50))) == {"t1"}
    assert tenants(house, await house.service.answer(TailRecords(1, OF_T1, 0, 50))) == {"t1"}
    refused = await house.search(OF_T1, tenant="t2")
    assert isinstance(refused, ReadRefused)
    assert refused.code == "not_allowed"
    others = next(n for n, event in enumerate(house.log.events) if event["metadata"].get("tenant_uid") == "t2")
    own = next(n for n, event in enumerate(house.log.events) if event["metadata"].get("tenant_uid") == "t1")
    hidden = await house.service.answer(ReadRecord(1, OF_T1, others))
    missing = await house.service.answer(ReadRecord(1, OF_T1, 10_000))
    assert isinstance(hidden, ReadRefused)
    assert isinstance(missing, ReadRefused)
    assert hidden.code == missing.code == "not_found"
    assert hidden.message.replace(str(others), "N") == missing.message.replace("10000", "N")
    assert tenants(house, await house.service.answer(ReadRecord(1, OF_T1, own))) == {"t1"}


@pytest.mark.parametrize("message", [FetchTile(1, OF_T1, "tile/entries/000", 0), FetchCheckpoint(1, OF_T1, False)])
async def test_tiles_are_for_overseers(house: House, message: Any) -> None:
    """They hold everybody's records."""
    answer = await house.service.answer(message)
    assert isinstance(answer, ReadRefused)
    assert answer.code == "not_allowed"
    assert house.events == []


async def test_what_goes_on_by_itself_is_recorded_once_an_hour(house: House) -> None:
    """Else a tail would feed on its own records, and a monitor fill the disk."""
    for _ in range(5):
        await house.service.answer(TailRecords(1, OVERSEER, 0, 1))
        await house.service.answer(FetchTile(1, OVERSEER, "tile/0/000", 0))
    assert house.read == ["tail", "tiles"]
    await house.service.answer(TailRecords(1, OF_T1, 0, 1))
    assert house.read == ["tail", "tiles", "tail"]
    house.now_s = 3_601.0
    await house.service.answer(FetchTile(1, OVERSEER, "tile/0/000", 0))
    assert house.read == ["tail", "tiles", "tail", "tiles"]


async def test_tiles_and_checkpoints_come_as_they_are(house: House) -> None:
    """Bytes of the folder; of the cosigned one what the auditor has told."""
    folder = house.log.home / "log"
    tile = await house.service.answer(FetchTile(1, OVERSEER, "tile/0/000", 0))
    assert isinstance(tile, TilePart)
    assert tile.data == (folder / "tile/0/000").read_bytes()
    note = await house.service.answer(FetchCheckpoint(1, OVERSEER, False))
    assert isinstance(note, CheckpointNote)
    assert note.note == (folder / "checkpoint").read_bytes()
    assert isinstance(await house.service.answer(FetchCheckpoint(1, OVERSEER, True)), ReadRefused)
    house.cosigned = b"a note"
    assert await house.service.answer(FetchCheckpoint(1, OVERSEER, True)) == CheckpointNote(1, b"a note")


@pytest.mark.parametrize("terms", [{"time": "1"}, {"idx": "1 OR 1=1"}])
async def test_only_named_terms_are_searched(house: House, terms: dict[str, str]) -> None:
    """What is not a term is refused by name, and recorded nowhere."""
    answer = await house.search(OVERSEER, **terms)
    assert isinstance(answer, ReadRefused)
    assert answer.code == "invalid"
    assert house.events == []


async def test_a_damaged_log_is_a_refusal_and_the_reader_goes_on(house: House) -> None:
    """The next question about another place is answered."""
    bundle = house.log.home / "log" / "tile" / "entries" / "000"
    bundle.write_bytes(b"")
    answer = await house.service.answer(ReadRecord(1, OVERSEER, 3))
    assert isinstance(answer, ReadRefused)
    assert answer.code == "unreadable"
    assert isinstance(await house.service.answer(ReadRecord(1, OVERSEER, 299)), RecordsFound)
