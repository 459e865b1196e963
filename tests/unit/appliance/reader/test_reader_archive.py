"""What the reader reads: pages of records, tiles of every width, and an index that may be lost at any time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.reader.archive import Archive
from audit.entry import encode_canonical, parse_canonical
from audit.errors import EntryNotFound, IndexUnusable, LogCorrupted, MalformedTile, ProofRejected, SignatureRejected
from audit.index import Query
from audit.merkle import leaf_hash, root_of
from tests.support.audit_logs import Log
from tests.support.controls import control

SIZE = 600
LARGE = 1 << 20


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    log.grow(SIZE)
    yield log
    log.writer.close()


@pytest.fixture
def archive(log: Log) -> Iterator[Archive]:
    archive = Archive(log.home / "log", log.writer.key, log.home / "reader" / "index.sqlite")
    archive.follow()
    yield archive
    archive.close()


def test_searches_page_through_all_that_matches(log: Log, archive: Archive) -> None:
    """`next` of one answer is `before` of the next; each record once, the bytes those of the log."""
    expected = [n for n, event in enumerate(log.events) if event.get("ai_model", {}).get("name") == "large"][::-1]
    found: list[int] = []
    before = None
    while True:
        page = archive.search(Query(model="large"), limit=7, before=before, max_bytes=LARGE)
        found += [index for index, _ in page.records]
        assert all(parse_canonical(record) == log.events[index] for index, record in page.records)
        if page.next is None:
            break
        before = page.next
    assert found == expected


def test_an_answer_is_bounded_by_bytes_and_goes_on_behind_them(archive: Archive) -> None:
    """One record at least, however large."""
    page = archive.search(Query(), limit=100, before=None, max_bytes=1)
    assert [index for index, _ in page.records] == [SIZE - 1]
    assert page.next == SIZE - 1
    page = archive.tail("", 5, count=100, max_bytes=1)
    assert ([index for index, _ in page.records], page.next) == ([5], 6)


@pytest.mark.parametrize("tenant", ["", "t1"])
def test_a_tail_goes_on_where_it_stopped(log: Log, archive: Archive, tenant: str) -> None:
    """The last ones, then whatever comes, in order, without a gap; of one tenant only its own."""

    def belongs(index: int) -> bool:
        return not tenant or log.events[index]["metadata"].get("tenant_uid") == tenant

    page = archive.tail(tenant, None, count=5, max_bytes=LARGE)
    assert [index for index, _ in page.records] == [n for n in range(SIZE) if belongs(n)][-5:]
    assert page.next is not None
    assert archive.tail(tenant, page.next, count=5, max_bytes=LARGE).records == []
    with pytest.raises(EntryNotFound, match="another has begun"):
        archive.tail(tenant, page.next + 1, count=5, max_bytes=LARGE)
    log.grow(20)
    archive.follow()
    found: list[int] = []
    position = page.next
    for _ in range(30):
        page = archive.tail(tenant, position, count=3, max_bytes=LARGE)
        found += [index for index, _ in page.records]
        assert page.next is not None
        position = page.next
    assert found == [n for n in range(SIZE, SIZE + 20) if belongs(n)]


def test_only_what_a_signed_checkpoint_covers_is_shown(log: Log, archive: Archive) -> None:
    """A record behind it, or under another's signature, is none."""
    with pytest.raises(EntryNotFound):
        archive.record(SIZE)
    checkpoint = log.home / "log" / "checkpoint"
    other = Log(log.home / "other", seed=2)
    other.grow(700)
    other.writer.close()
    checkpoint.write_bytes((other.home / "log" / "checkpoint").read_bytes())
    for read in (lambda: archive.record(0), archive.checkpoint_note, lambda: archive.read_tile("tile/0/000")):
        with pytest.raises(SignatureRejected):
            read()


def test_tiles_of_every_earlier_width_are_served(log: Log, archive: Archive) -> None:
    """A monitor that saw a smaller checkpoint asks for its partial tiles: their files may be gone, their bytes are not."""
    leaves = [leaf_hash(record) for record in archive_leaves(archive)]
    for width in (1, 17, 255):
        assert archive.read_tile(f"tile/0/000.p/{width}") == b"".join(leaves[:width])
        assert len(archive.read_tile(f"tile/entries/000.p/{width}")) < len(archive.read_tile("tile/entries/000"))
    assert archive.read_tile("tile/0/000") == b"".join(leaves[:256])
    assert archive.read_tile("tile/0/002.p/88") == b"".join(leaves[512:600])
    assert archive.read_tile("tile/1/000.p/2") == root_of(leaves[:256]) + root_of(leaves[256:512])


def test_tiles_that_the_tree_has_not_are_none(archive: Archive) -> None:
    """Never an empty tile, none beyond the checkpoint, no other spelling, nothing else of the folder."""
    for path in ("tile/0/003", "tile/0/002", "tile/0/002.p/89", "tile/1/000", "tile/1/000.p/3", "tile/2/000.p/1"):
        with pytest.raises(EntryNotFound):
            archive.read_tile(path)
    for path in ("tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/x/000", "checkpoint", ".state/signed", "tile/0/../checkpoint"):  # fmt: skip  # noqa: E501
        with pytest.raises(MalformedTile):
            archive.read_tile(path)


def test_large_bundles_come_in_parts(archive: Archive) -> None:
    """Put together they are the file's bytes."""
    whole = archive.read_tile("tile/entries/001")
    parts, offset = [], 0
    while offset < len(whole):
        part, size_bytes = archive.read_part("tile/entries/001", offset, 10_000)
        assert size_bytes == len(whole)
        parts.append(part)
        offset += len(part)
    assert b"".join(parts) == whole
    assert len(parts) > 3


def test_an_index_that_is_no_database_is_dropped_and_built_again(log: Log) -> None:
    """It holds nothing that the log has not."""
    path = log.home / "reader" / "index.sqlite"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no database at all" * 1000)
    archive = Archive(log.home / "log", log.writer.key, path)
    archive.follow()
    assert archive.indexed == SIZE
    archive.close()


def test_an_index_that_breaks_while_in_use_is_dropped_and_built_again(log: Log) -> None:
    """One failed step, then it is whole."""
    path = log.home / "reader" / "index.sqlite"
    archive = Archive(log.home / "log", log.writer.key, path)
    archive.follow()
    archive._index._database.execute("DROP TABLE records")
    log.grow(10)
    with pytest.raises(IndexUnusable):
        archive.follow()
    archive.follow()
    assert archive.indexed == SIZE + 10
    assert archive.search(Query(), limit=1, before=None, max_bytes=LARGE).records[0][0] == SIZE + 9
    archive.close()


def test_a_damaged_bundle_is_said_and_not_shown(log: Log, archive: Archive) -> None:
    """A truncated file is no record."""
    bundle = log.home / "log" / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes()[:-5])
    with pytest.raises(LogCorrupted):
        archive.record(3)


@control("AU-9", "AU-10", "3.3.8")
def test_a_changed_record_is_said_and_not_shown(log: Log, archive: Archive) -> None:
    """One that is well formed, under a good checkpoint: by search, by its index, and in a tail."""
    bundle = log.home / "log" / "tile" / "entries" / "000"
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"uid":"eve"', b'"uid":"ada"', 1))
    assert bundle.read_bytes() != data
    (changed,) = [
        number
        for number in range(256)
        if archive._reader.read_entry(number, SIZE) != encode_canonical(log.events[number])
    ]
    with pytest.raises(ProofRejected):
        archive.record(changed)
    with pytest.raises(ProofRejected):
        archive.tail("", changed - 1, count=3, max_bytes=1 << 20)
    with pytest.raises(ProofRejected):
        archive.search(Query(actor="eve"), limit=10_000, before=300, max_bytes=1 << 24)
    assert archive.record(changed + 1)


def archive_leaves(archive: Archive) -> list[bytes]:
    """All records."""
    return [record for _, record in archive.tail("", 0, count=1_000, max_bytes=1 << 30).records]
