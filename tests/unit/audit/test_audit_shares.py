"""Second shares: durable before they are used, readable by nobody else, overwritten before they are gone."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from audit.errors import EntryNotFound, KeyUnusable, NotDurable, StorageFailed
from audit.governance import Hold, Rules
from audit.sealing import MAX_ESCROW_BYTES, KeyContext, new_key_id
from audit.shares import Destroyed, ShareStore
from audit.storage import Disk
from tests.support.controls import control

DAYS = ("2026-11-19", "2026-11-20", "2026-11-23")


class Watched(Disk):
    """Remembers what was done in which order, and fails where it is told to."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, bytes]] = []
        self.fails = ""

    def write(self, fd: int, data: bytes, path: Path) -> None:
        self._note("write", path, data)
        super().write(fd, data, path)

    def sync(self, fd: int, path: Path) -> None:
        if self.fails == "sync":
            raise StorageFailed(f"{path}: cannot be synced: {os.strerror(errno.EIO)}")
        self._note("sync", path)
        super().sync(fd, path)

    def remove(self, path: Path) -> None:
        self._note("remove", path)
        super().remove(path)

    def _note(self, what: str, path: Path, data: bytes = b"") -> None:
        if self.fails == what:
            raise NotDurable(f"{path}: {os.strerror(errno.ENOSPC)}")
        self.done.append((what, path.name, data))


@pytest.fixture
def disk() -> Watched:
    return Watched()


@pytest.fixture
def store(tmp_path: Path, disk: Watched) -> ShareStore:
    return ShareStore(tmp_path / "shares", disk)


def keep(store: ShareStore, day: str = DAYS[2], tenant: str = "acme") -> tuple[KeyContext, bytes]:
    context = KeyContext(tenant, day, new_key_id())
    return context, store.keep(context, b"escrow")


def test_what_is_kept_is_there_after_a_restart_and_its_owners_alone(tmp_path: Path, store: ShareStore) -> None:
    """With its escrow; two shares are never equal; `repr` shows neither."""
    context, share = keep(store)
    stored = ShareStore(tmp_path / "shares").load(context.day, context.key_id)
    assert (stored.tenant, stored.share, stored.escrow) == ("acme", share, b"escrow")
    assert share.hex() not in repr(stored)
    (path,) = (tmp_path / "shares").glob("*/*.json")
    assert path.stat().st_mode & 0o077 == 0
    assert keep(store)[1] != share


def test_a_key_is_kept_once(store: ShareStore) -> None:
    """A second share under its name would make what the first sealed unreadable."""
    context, _ = keep(store)
    with pytest.raises(KeyUnusable):
        store.keep(context, b"another escrow")
    with pytest.raises(KeyUnusable):
        store.keep(KeyContext("acme", DAYS[0], new_key_id()), b"x" * (MAX_ESCROW_BYTES + 1))


def test_a_share_that_is_not_durable_is_given_to_nobody(tmp_path: Path, store: ShareStore, disk: Watched) -> None:
    """With the disk full, or failing, nothing is sealed that cannot be opened."""
    for failure, error in (("write", NotDurable), ("sync", StorageFailed)):
        disk.fails = failure
        with pytest.raises(error):
            keep(store)
        assert list((tmp_path / "shares").glob("*/*.json")) == []
    context = KeyContext("acme", DAYS[0], new_key_id())
    for disk.fails in ("write", ""):
        with pytest.raises(NotDurable) if disk.fails else contextlib.nullcontext():
            share = store.keep(
                context, b"escrow"
            )  # The same key again: what the first try left does not stand in the way.
    assert store.load(context.day, context.key_id).share == share


def test_a_disk_without_files_is_a_full_one(store: ShareStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that cannot even be begun is told as one that cannot be written: the process goes on."""
    opened = os.open

    def without_files(path: Path, flags: int, *mode: int, **options: int | None) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", without_files)
    with pytest.raises(NotDurable, match="make: No space left"):
        keep(store)


@control("AU-11", "3.8.3", "SI-12")
def test_destroying_overwrites_and_syncs_before_it_removes(store: ShareStore, disk: Watched) -> None:
    """The file's whole length, once; afterwards nobody finds it."""
    context, share = keep(store, DAYS[0])
    length = len(disk.done[0][2])
    disk.done.clear()
    (due,) = store.find_due(DAYS[1], lambda _tenant, _day: False)
    store.destroy(due)
    name = f"{context.key_id}.json"
    assert [(what, file) for what, file, _ in disk.done] == [("write", name), ("sync", name), ("remove", name)]
    assert len(disk.done[0][2]) == length
    assert share not in disk.done[0][2]
    with pytest.raises(EntryNotFound):
        store.load(context.day, context.key_id)
    store.destroy(due)  # Again, as after a crash between record and deed.


def test_a_crash_among_several_keys_of_a_day_keeps_none_from_being_destroyed(store: ShareStore) -> None:
    """What is gone already is passed over; the rest goes, and the day's folder with the last one."""
    first, second, other = (keep(store, DAYS[0])[0].key_id for _ in range(3))
    store.destroy(Destroyed(DAYS[0], (first,)))
    store.destroy(Destroyed(DAYS[0], (first, second)))
    assert store.load(DAYS[0], other).key_id == other
    store.destroy(Destroyed(DAYS[0], (first, second, other)))
    assert not (store._folder / DAYS[0]).exists()


@pytest.mark.parametrize("day", ["..", ".", "", "2026-11-20/../../x", "20261120", "2026-W47-5", "2026-13-01"])
def test_no_day_leads_out_of_the_folder(store: ShareStore, day: str) -> None:
    """The gateway names both, and may be captured."""
    refuse_key(store, day, new_key_id())


@pytest.mark.parametrize(
    "key_id", ["", "../" * 10 + "ab", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 30 + "/b", "a" * 31 + "\0"]
)
def test_no_key_leads_out_of_its_day(store: ShareStore, key_id: str) -> None:
    """An id is 32 hexadecimal digits, and nothing else is a file's name."""
    refuse_key(store, DAYS[0], key_id)


def refuse_key(store: ShareStore, day: str, key_id: str) -> None:
    with pytest.raises(KeyUnusable, match="expected a day"):
        store.keep(KeyContext("acme", day, key_id), b"escrow")
    with pytest.raises(KeyUnusable, match="expected a day"):
        store.load(day, key_id)
    assert not store._folder.exists()


def test_what_a_crash_left_dies_with_its_day(tmp_path: Path, store: ShareStore, disk: Watched) -> None:
    """A share that was written and never got its name is overwritten too, and the day's folder goes."""
    context, _ = keep(store)
    leftover = tmp_path / "shares" / context.day / f"{new_key_id()}.tmp"
    leftover.write_bytes(b"a share")
    disk.done.clear()
    store.destroy(Destroyed(context.day, (context.key_id,)))
    assert [what for what, name, _ in disk.done if name == leftover.name] == ["write", "sync", "remove"]
    assert not (tmp_path / "shares" / context.day).exists()


def test_only_days_that_are_over_and_not_held_are_due(store: ShareStore) -> None:
    """By tenant and day; what lies there and is none of ours is left alone."""
    keys = {(day, tenant): keep(store, day, tenant)[0].key_id for day in DAYS for tenant in ("acme", "umbrella")}
    (store._folder / "0-notes").mkdir()
    (store._folder / "0-notes" / f"{new_key_id()}.json").write_bytes(b"{}")
    due = store.find_due(DAYS[2], lambda tenant, day: (tenant, day) == ("acme", DAYS[0]))
    assert due == [
        Destroyed(DAYS[0], (keys[DAYS[0], "umbrella"],)),
        Destroyed(DAYS[1], tuple(sorted(keys[DAYS[1], tenant] for tenant in ("acme", "umbrella")))),
    ]
    held = store.find_held(lambda tenant, day: (tenant, day) == ("acme", DAYS[0]))
    assert [path.stem for path in held] == [keys[DAYS[0], "acme"]]


@pytest.mark.parametrize("holder", ["acme", "umbrella", ""])
def test_a_damaged_file_opens_nothing_and_stays_while_its_day_is_held_for_anybody(
    tmp_path: Path, store: ShareStore, holder: str
) -> None:
    """Whose it was is not known any more; with no hold on its day it goes as all others do."""
    context, _ = keep(store, DAYS[0])
    (path,) = (tmp_path / "shares").glob("*/*.json")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(KeyUnusable):
        store.load(context.day, context.key_id)
    held = Rules(30, (Hold("hold-1", holder, DAYS[0], DAYS[0], "because"),))
    other_day = Rules(30, (Hold("hold-1", holder, DAYS[1], DAYS[1], "because"),))
    assert store.find_due(DAYS[2], held.is_held) == []
    assert store.find_held(held.is_held) == [path]
    assert store.find_due(DAYS[2], other_day.is_held) == [Destroyed(DAYS[0], (context.key_id,))]
    assert store.find_held(other_day.is_held) == []
