"""The index: what is found is what a slow search over all records finds, and a log that is another is indexed anew."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.changes import definition_changed_event
from audit.entry import parse_canonical
from audit.errors import IndexUnusable, ProofRejected, SignatureRejected
from audit.events import configuration_event
from audit.index import LogIndex, Query
from audit.note import VerifierKey
from tests.support.audit_logs import ORIGIN, Log
from tests.support.controls import control


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    log.grow(700)
    yield log
    log.writer.close()


QUERIES: list[tuple[dict[str, Any], Any]] = [
    ({"actor": "eve"}, lambda e: e.get("actor", {}).get("user", {}).get("uid") == "eve"),
    ({"client": "client-ada"}, lambda e: e.get("actor", {}).get("app_uid") == "client-ada"),
    ({"model": "large"}, lambda e: e.get("ai_model", {}).get("name") == "large"),
    ({"kind": "process_started"}, lambda e: e["unmapped"]["casemate"]["kind"] == "process_started"),
    ({"outcome": "stop"}, lambda e: e.get("status_code") == "stop"),
    ({"outcome": "failure"}, lambda e: e["status_id"] == 2),
    ({"tenant": "t1"}, lambda e: e["metadata"].get("tenant_uid") == "t1"),
    ({"trace": f"{3:032x}"}, lambda e: e.get("trace", {}).get("uid") == f"{3:032x}"),
    ({"request": "req-8"}, lambda e: e["unmapped"]["casemate"].get("request_uid") == "req-8"),
    ({"reporter": "gateway/1"}, lambda e: e["metadata"]["reporter"]["name"] == "gateway/1"),
    ({"since_ms": 600_000}, lambda e: e["time"] >= 600_000),
    ({"until_ms": 5_000}, lambda e: e["time"] < 5_000),
    ({"actor": "nobody"}, lambda e: False),
    ({}, lambda e: True),
]  # fmt: skip


@control("3.3.6", "AU-7", "AU-7(1)")
@pytest.mark.parametrize(("given", "matches"), QUERIES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_search_finds_what_a_slow_one_finds(log: Log, given: dict[str, Any], matches: Any) -> None:
    """All of it, newest first."""
    index = log.index()
    index.update()
    expected = [number for number, event in enumerate(log.events) if matches(event)][::-1]
    found = index.find(Query(**given), limit=10_000)
    assert found == expected
    assert [parse_canonical(entry) for entry in index.read(found[:5])] == [
        log.events[number] for number in expected[:5]
    ]
    index.close()


@control("3.3.2", "3.3.6")
def test_all_that_somebody_did_is_found_by_one_id(log: Log) -> None:
    """What they asked by a token, and what they changed by the admin API, where the record says `user:` or `client:` before it."""
    first = len(log.events)
    log.add(
        definition_changed_event(
            "role_granted", target="user-zoe", actor=actor, before="{}", after="{}", changed_at_ms=1
        )
        for actor in ("user:eve", "client:eve", "eve", "os:eve")
    )
    index = log.index()
    index.update()
    users = [event.get("actor", {}).get("user", {}) for event in log.events]
    asked = [number for number, user in enumerate(users) if user.get("uid") == "eve"]
    found = index.find(Query(actor="eve"), limit=10_000)
    assert found == [first + 2, first + 1, first, *asked[::-1]]
    for text in ("user:eve", "client:eve"):
        assert index.find(Query(actor=text), limit=10_000) == found
    assert index.find(Query(actor="os:eve")) == [first + 3]
    index.close()


def test_what_happened_to_a_client_or_a_model_is_found_by_its_name(log: Log) -> None:
    """Though it did nothing itself: who changed a client, and when a model was loaded."""
    first = len(log.events)
    changed = {"actor": "os:root", "changed_at_ms": 1, "before": "{}", "after": "{}"}
    log.add(
        [
            definition_changed_event("client_disabled", target="client-new", **changed),  # type: ignore[arg-type]
            definition_changed_event("user_disabled", target="user-new", **changed),  # type: ignore[arg-type]
            configuration_event("model_loaded", name="new", digest="build"),
        ]
    )
    index = log.index()
    index.update()
    assert index.find(Query(client="client-new")) == [first]
    assert index.find(Query(client="user-new")) == []
    assert index.find(Query(model="new")) == [first + 2]
    index.close()


@control("AU-9", "AU-10", "3.3.8")
def test_a_record_that_was_changed_on_the_disk_is_not_shown(log: Log) -> None:
    """What is found is led to the signed tree before anybody sees it; the others are shown."""
    index = log.index()
    index.update()
    found = index.find(Query(client="client-ada"), limit=10_000)
    bundle = log.home / "log" / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"client-ada", b"client-eve", 1))
    changed = next(number for number in found[::-1] if number >= 256)
    with pytest.raises(ProofRejected):
        list(index.read([changed]))
    assert len(list(index.read([number for number in found if number != changed]))) == len(found) - 1
    index.close()


def test_conditions_are_joined_and_pages_follow_each_other(log: Log) -> None:
    """Each page begins behind the one before."""
    index = log.index()
    index.update()
    query = Query(actor="eve", model="small", since_ms=50_000)
    whole = index.find(query, limit=1_000)
    pages: list[int] = []
    while page := index.find(query, limit=7, before=pages[-1] if pages else None):
        pages += page
    assert pages == whole
    assert len(whole) > 10
    index.close()


@pytest.mark.parametrize(
    "name", ["actor", "client", "model", "kind", "outcome", "tenant", "trace", "request", "reporter"]
)
def test_every_search_by_a_text_uses_a_tree(log: Log, name: str) -> None:
    """It does not walk through all records, however many there are."""
    index = log.index()
    plan = index._database.execute(
        f"EXPLAIN QUERY PLAN SELECT idx FROM records WHERE {name} = ? ORDER BY idx DESC LIMIT 9", (1,)
    )
    assert any(f"by_{name}" in row[3] for row in plan.fetchall())
    index.close()


def test_an_index_follows_the_log(log: Log) -> None:
    """What comes is added, what was there is not read again; over restarts and within a bundle."""
    index = log.index()
    index.update()
    for _ in range(3):
        log.grow(111)
        index.close()
        index = log.index()
        before = index.size
        assert before < len(log.events)
        index.update()
        assert index.find(Query(), limit=10_000) == list(range(len(log.events)))[::-1]
    index.close()


def test_a_dropped_index_is_built_again(log: Log) -> None:
    """It holds nothing that the log has not."""
    index = log.index()
    index.update()
    found = index.find(Query(actor="eve"))
    index.close()
    shutil.rmtree(log.home / "reader")
    again = log.index()
    again.update()
    assert again.find(Query(actor="eve")) == found
    again.close()


def test_an_index_may_be_dropped_while_another_process_has_it(log: Log) -> None:
    """As the documents say: at any time. Whoever has it goes on, and for who comes next it is built again."""
    held = log.index()
    held.update()
    found = held.find(Query(actor="eve"))
    (log.home / "reader" / "index.sqlite").unlink()
    for _ in range(2):
        again = log.index()
        again.update()
        assert again.find(Query(actor="eve")) == found
        again.close()
    log.grow(300)
    held.update()
    assert held.size == 1000
    held.close()


def test_an_index_of_an_older_form_is_made_anew_under_who_has_it(log: Log) -> None:
    """A command of the next release, while the reader of this one runs."""
    held = log.index()
    held.update()
    held._database.execute("PRAGMA user_version = 99")
    again = log.index()
    assert again.size == 0
    again.update()
    assert again.size == held.size == 700
    held.update()
    again.close()
    held.close()


def test_an_index_of_another_log_is_built_anew(log: Log, tmp_path: Path) -> None:
    """Nothing of the other is found in it, though it was as long."""
    other = Log(tmp_path / "other", seed=2)
    other.grow(900)
    shutil.copytree(tmp_path / "other" / "log", tmp_path / "copy")
    index = LogIndex(log.home / "shared.sqlite", tmp_path / "copy", other.writer.key)
    index.update()
    index.close()
    index = LogIndex(log.home / "shared.sqlite", log.home / "log", log.writer.key)
    index.update()
    expected = [n for n, event in enumerate(log.events) if event.get("actor", {}).get("user", {}).get("uid") == "eve"][
        ::-1
    ]
    assert index.find(Query(actor="eve"), limit=1_000) == expected
    index.close()
    other.writer.close()


def test_only_what_the_logs_key_signed_is_indexed(log: Log) -> None:
    """A folder that somebody else filled is refused."""
    stranger = VerifierKey(ORIGIN, bytes(32))
    index = LogIndex(log.home / "x.sqlite", log.home / "log", stranger)
    with pytest.raises(SignatureRejected):
        index.update()
    assert index.size == 0
    index.close()


def test_an_index_that_cannot_be_cleared_stays_whole(log: Log, tmp_path: Path) -> None:
    """A process that ends while it drops another log's records leaves no index that says it covers what it has lost."""
    index = log.index()
    index.update()
    index.close()
    path = log.home / "reader" / "index.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TRIGGER kept BEFORE DELETE ON terms BEGIN SELECT RAISE(ABORT, 'stopped'); END")
    database.close()
    other = Log(tmp_path / "other", seed=2)
    other.grow(900)
    index = LogIndex(path, other.home / "log", other.writer.key)
    with pytest.raises(IndexUnusable, match="stopped"):
        index.update()
    assert index.size == len(index.find(Query(), limit=10_000)) == 700
    index.close()
    other.writer.close()


def test_nobody_indexes_between_a_checkpoint_and_what_it_is_compared_with(log: Log) -> None:
    """Else what another process indexed in between would look as if the log had gone back, and all would be indexed anew."""
    index = log.index()
    other = sqlite3.connect(log.home / "reader" / "index.sqlite", timeout=0)
    read = index.reader.checkpoint_note

    def read_alone() -> bytes:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return read()

    index.reader.checkpoint_note = read_alone  # type: ignore[method-assign]
    index.update()
    assert index.size == 700
    other.close()
    index.close()


@pytest.mark.parametrize(
    ("query", "limit", "expected"),
    [
        (Query(actor="\udcff\udcfe"), 5, []),
        (Query(client="' OR 1=1 --"), 5, []),
        (Query(model="%"), 5, []),
        (Query(kind="a\0b"), 5, []),
        (Query(since_ms=-(10**30), until_ms=10**30), 10**30, list(range(700))[::-1]),
    ],
    ids=str,
)
def test_what_is_searched_for_may_be_anything(log: Log, query: Query, limit: int, expected: list[int]) -> None:
    """As a shell hands it over: no text, too large a number."""
    index = log.index()
    index.update()
    assert index.find(query, limit=limit, before=10**30) == expected
    index.close()


def test_a_file_that_is_no_index_is_refused(log: Log) -> None:
    """And not overwritten: it may be anything."""
    (log.home / "notes").write_bytes(b"not a database" * 1000)
    with pytest.raises(IndexUnusable, match="remove it"):
        LogIndex(log.home / "notes", log.home / "log", log.writer.key)


@pytest.mark.parametrize("version", [0, 7])
def test_another_database_is_neither_dropped_nor_written(log: Log, version: int) -> None:
    """Whoever mistypes the index's name loses nothing."""
    path = log.home / "definitions.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE people (name TEXT)")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(IndexUnusable, match="people"):
        LogIndex(path, log.home / "log", log.writer.key)
    assert path.read_bytes() == before


def test_an_index_of_an_older_form_is_made_anew(log: Log) -> None:
    """There is nothing in it to be kept."""
    path = log.home / "old.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    index = LogIndex(path, log.home / "log", log.writer.key)
    index.update()
    assert index.size == len(log.events)
    index.close()


def test_records_of_other_types_are_found_by_index_only(tmp_path: Path) -> None:
    """What somebody could get accepted cannot keep the rest from being found."""
    log = Log(tmp_path)
    log.writer.append([b'{"actor":5,"metadata":{"sequence":0},"time":"x"}'])
    log.writer.commit()
    log.events.append({})
    log.grow(20)
    index = log.index()
    index.update()
    assert index.find(Query(), limit=100) == list(range(21))[::-1]
    index.close()
    log.writer.close()


def test_an_update_may_be_made_in_steps(log: Log) -> None:
    """So that a search need not wait for all of it; what is indexed is a prefix at every step."""
    index = log.index()
    sizes = []
    while index.size < 700:
        index.update(max_records=256)
        sizes.append(index.size)
        assert index.find(Query(), limit=1) == [index.size - 1]
    assert sizes == [256, 512, 700]
    index.close()


def test_what_another_process_indexed_meanwhile_is_not_indexed_again(log: Log) -> None:
    """It came first between the look at what is missing and the transaction that adds it."""
    first, second = log.index(), log.index()
    add = first._add

    def add_late(start: int, end: int, size: int) -> None:
        second.update()
        add(start, end, size)

    first._add = add_late  # type: ignore[method-assign]
    first.update()
    assert first.size == len(first.find(Query(), limit=10_000)) == 700
    first.close()
    second.close()


def test_two_processes_may_update_one_index(log: Log) -> None:
    """The reader and a command on the host: whoever comes second finds the work done, and numbers texts as the other did."""
    first, second = log.index(), log.index()
    first.update(max_records=256)
    second.update(max_records=256)
    first.update()
    log.grow(50)
    second.update()
    first.update()
    assert first.size == second.size == 750
    expected = [number for number, event in enumerate(log.events) if event.get("ai_model", {}).get("name") == "large"]
    assert sorted(first.find(Query(model="large"), limit=1_000)) == expected
    assert second.find(Query(model="large"), limit=1_000, start=0) == expected
    first.close()
    second.close()
