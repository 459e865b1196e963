"""Which workers live is what the kernel says of their locks, and of nothing else."""

import os
from pathlib import Path

from appliance.gateway.api.worker_lives import WorkerLives


def files_of(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_life_is_seen_until_it_ends(tmp_path: Path) -> None:
    """By its own and by others, as often as it is asked; however it ends, it does not come back, and leaves no file."""
    ours, theirs = WorkerLives(tmp_path / "f"), WorkerLives(tmp_path / "f")
    life = ours.claim()
    assert ours.claim() == life
    assert all(lives.is_alive(life) for lives in (ours, theirs, ours, theirs))
    assert files_of(tmp_path) == [f"f.{life}.worker"]
    ours.close()
    ours.close()
    assert not ours.is_alive(life)
    assert not theirs.is_alive(life)
    assert files_of(tmp_path) == []


def test_whoever_asks_first_removes_what_a_killed_worker_left(tmp_path: Path) -> None:
    """A file without a lock is a dead one's; so are those that nobody asks for, at the next claim."""
    (tmp_path / "f.aaaa.worker").touch()
    (tmp_path / "f.bbbb.worker").touch()
    (tmp_path / "other.cccc.worker").touch()
    lives = WorkerLives(tmp_path / "f")
    assert not lives.is_alive("aaaa")
    assert files_of(tmp_path) == ["f.bbbb.worker", "other.cccc.worker"]
    life = lives.claim()
    assert files_of(tmp_path) == [f"f.{life}.worker", "other.cccc.worker"]


def test_a_life_that_was_never_claimed_is_none(tmp_path: Path) -> None:
    """And asking makes no file."""
    lives = WorkerLives(tmp_path / "f")
    assert not lives.is_alive("dddd")
    assert files_of(tmp_path) == []
