"""What workers tell one another about a response: its states go one way, and whoever comes late changes nothing."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from appliance.gateway.api.background_store import BackgroundStore, Key, Page
from appliance.gateway.api.response_store import ResponseStore

KEY = Key("acme", "resp_1")


@pytest.fixture
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[ResponseStore]:
    """Two workers'."""
    path = tmp_path_factory.mktemp("kept") / "responses.sqlite"
    return [ResponseStore(path, bytes(32), 60) for _ in range(2)]


async def test_a_record_is_its_tenants_and_no_other_responses(tmp_path: Path) -> None:
    """Whoever can write to the file, but has not its key, gives nobody the words of another tenant or response."""
    path = tmp_path / "responses.sqlite"
    store = ResponseStore(path, bytes(32), 60)
    await store.put("acme", "resp_1", b"words")
    for tenant, response_id in (("evil", "resp_1"), ("acme", "resp_2"), ("acme resp", "_1"), ("acme", "resp_1")):
        with sqlite3.connect(path) as database:
            database.execute("UPDATE responses SET tenant = ?, id = ?", (tenant, response_id))
        kept = await store.get(tenant, response_id)
        assert (kept is not None) is ((tenant, response_id) == ("acme", "resp_1"))


async def test_an_end_that_comes_after_a_cancellation_is_not_taken(stores: list[ResponseStore]) -> None:
    """What was said to be cancelled does not complete; its maker hears it, and ends it as cancelled."""
    maker, other = map(BackgroundStore, stores)
    await maker.begin(KEY, b"begun", is_streamed=True, lasts_s=10)
    assert await maker.write([Page(KEY, 0, [b"a", b"b"])]) == ["written"]
    await other.cancel(KEY)
    assert await maker.write([Page(KEY, 2)]) == ["cancelled"]
    assert await maker.write([Page(KEY, 2, [b"c"], b"completed")]) == ["cancelled"]
    kept = await stores[1].get(KEY.tenant, KEY.response_id)
    assert kept is not None
    assert (kept.body, kept.state, kept.is_running) == (b"begun", "cancelling", True)
    assert await maker.write([Page(KEY, 2, [b"x"], b"cancelled", is_cancelled=True)]) == ["written"]
    await other.cancel(KEY)
    kept = await stores[1].get(KEY.tenant, KEY.response_id)
    assert kept is not None
    assert (kept.body, kept.state, kept.is_running) == (b"cancelled", "over", False)
    read = await other.read_events(KEY, 1)
    assert read is not None
    assert (read.events, read.state) == ([b"b", b"x"], "over")


async def test_what_is_over_or_gone_takes_no_more(stores: list[ResponseStore]) -> None:
    """A maker that was taken for dead, or whose response was deleted, is told so, and leaves nothing behind."""
    maker, other = map(BackgroundStore, stores)
    await maker.begin(KEY, b"begun", is_streamed=True, lasts_s=10)
    await maker.write([Page(KEY, 0, [b"a"])])
    kept = await stores[1].get(KEY.tenant, KEY.response_id)
    assert kept is not None
    for body in (b"lost", b"lost again"):
        await other.end_lost(KEY, kept.worker, body, lambda number: str(number).encode())
    assert await maker.write([Page(KEY, 1, [b"b"], b"completed")]) == ["gone"]
    read = await maker.read_events(KEY, 0)
    assert read is not None
    assert (read.events, read.state) == ([b"a", b"1"], "over")
    assert (await stores[0].get(KEY.tenant, KEY.response_id)) == msgspec.structs.replace(
        kept, body=b"lost", state="over"
    )
    assert await stores[1].delete(KEY.tenant, KEY.response_id)
    assert await maker.write([Page(KEY, 1, [b"b"], b"completed")]) == ["gone"]
    assert await maker.read_events(KEY, 0) is None


async def test_events_are_bound_to_their_response(stores: list[ResponseStore]) -> None:
    """Another tenant has none; and a batch that is moved to another response in the file is not given."""
    maker, other = map(BackgroundStore, stores)
    theirs = Key("globex", "resp_2")
    for key in (KEY, theirs):
        await maker.begin(key, b"begun", is_streamed=True, lasts_s=10)
    await maker.write([Page(KEY, 0, [b"secret"])])
    assert await other.read_events(Key("globex", KEY.response_id), 0) is None
    change = "UPDATE events SET tenant = 'globex', id = 'resp_2'"
    await stores[0].file.write(lambda database: database.execute(change))
    assert await other.read_events(theirs, 0) is None
