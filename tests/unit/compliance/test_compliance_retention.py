"""Whether records that must be kept are at hand, over rotations of the log."""

import shutil
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.entry import complete_entry
from audit.errors import LogCorrupted
from audit.events import log_event
from audit.reader import LogReader
from audit.rotation import load_predecessor, predecessor_event, rotate_log
from audit.signing_key import load_verifier_key
from compliance.activity import DAY_MS
from compliance.facts import Answer
from compliance.retention import answer_retention
from tests.support.evidence import FIRST_MS

SECOND_MS = FIRST_MS + 100 * DAY_MS
NOW_MS = FIRST_MS + 150 * DAY_MS


def begin(home: Path, origin: str, time_ms: int) -> None:
    """A log with one record: that it was started, or the log that it continues."""
    predecessor = load_predecessor(home / "log")
    event = (
        log_event("log_started", log_name=origin, facts={})
        if predecessor is None
        else predecessor_event(predecessor, origin)
    )
    writer = LogWriter(home / "log", home / "log.key", origin=origin)
    writer.append(
        [complete_entry(event, index=0, time_ms=time_ms, reporter="auditor", log_name=origin, random=bytes(16))]
    )
    writer.commit()
    writer.publish()
    writer.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log of fifty days that continues one that was begun a hundred days before."""
    begin(tmp_path, "log.example/one", FIRST_MS)
    rotate_log(tmp_path / "log", tmp_path / "log.key")
    begin(tmp_path, "log.example/two", SECOND_MS)
    return tmp_path


def answer(home: Path, days: int) -> Answer:
    """For so many days, by now."""
    assert load_verifier_key(str(home / "log.vkey")).name == "log.example/two"
    return answer_retention(LogReader(home / "log").folder, 1, days=days, now_ms=NOW_MS)


def test_a_log_that_is_old_enough_needs_no_other(home: Path) -> None:
    """Fifty days are in it, whatever lies beside it."""
    shutil.rmtree(next(home.glob("log-*")))
    assert answer(home, 50).holds is True
    assert "50 days and more" in answer(home, 50).words


def test_the_log_before_it_is_looked_for(home: Path) -> None:
    """By the root that the first record names; taken away, it is missing by name."""
    assert answer(home, 51).holds is True
    assert answer(home, 150).holds is True
    old = next(home.glob("log-*/"))
    old.rename(home / "elsewhere")
    found = answer(home, 51)
    assert found.holds is False
    assert old.name in found.words


def test_the_first_log_of_all_has_everything(home: Path) -> None:
    """An installation that is younger than the time to keep misses nothing."""
    assert answer(home, 1000).holds is True
    assert "when the first log began" in answer(home, 1000).words


@pytest.mark.parametrize("which", ["the log", "the one before"])
def test_records_that_were_taken_out_are_missed(home: Path, which: str) -> None:
    """The tree's hashes may all be there: it is the records that must be kept."""
    log = home / "log" if which == "the log" else next(home.glob("log-*/"))
    writer = LogWriter(home / "grown", home / "grown.key", origin="log.example/two")
    writer.append([b'{"time":%d}' % SECOND_MS] * 600)
    writer.commit()
    writer.publish()
    writer.close()
    reader = LogReader(home / "grown")
    assert reader.find_missing_bundle(600) is None
    (home / "grown" / "tile" / "entries" / "001").unlink()
    assert reader.find_missing_bundle(600) == "tile/entries/001"
    shutil.rmtree(log / "tile" / "entries")
    if which == "the log":
        with pytest.raises(LogCorrupted):
            answer(home, 51)
    else:
        assert answer(home, 51).holds is False


def test_a_first_record_that_claims_to_be_older_is_none_of_that_log(home: Path) -> None:
    """How far back a log goes is said by its first record, which is led to the root that was named."""
    bundle = next(next(home.glob("log-*/")).glob("tile/entries/000.p/1"))
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(str(FIRST_MS).encode(), str(FIRST_MS - 9).encode()))
    assert bundle.read_bytes() != data
    assert answer(home, 51).holds is False


def test_another_log_in_its_place_is_none(home: Path) -> None:
    """A folder of that name without the records, or with those of another."""
    old = next(home.glob("log-*/"))
    shutil.rmtree(old)
    old.mkdir()
    assert answer(home, 51).holds is False
    (home / "other").mkdir()
    begin(home / "other", "log.example/one", FIRST_MS + 1)
    old.rmdir()
    (home / "other" / "log").rename(old)
    assert answer(home, 51).holds is False
