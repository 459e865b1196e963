"""A file that was renamed into place has its name on the disk only when its folder was synced: no promise rests on one before.

A loss of power on ext4 rarely shows it, as a later sync takes earlier names along; other file systems do not.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.append import LogWriter
from audit.cosignature import Cosigner
from audit.courier import merge_cosigned
from audit.governance import Rules, save_rules
from audit.publish import TEMPORARY
from audit.reader import CHECKPOINT, SIGNED, LogReader
from audit.rotation import finish_key, rotate_log, stage_key
from audit.sealing import KeyContext, new_key_id
from audit.shares import ShareStore
from audit.storage import Disk
from audit.witness import Witness, encode_request
from tests.unit.audit.conftest import ORIGIN, make_record


class NamingDisk(Disk):
    """Knows which names would be gone after a loss of power, and which were so when each promise was made."""

    def __init__(self) -> None:
        self.loose: set[Path] = set()
        """Names that their folder does not have durably."""
        self.promised: dict[str, set[Path]] = {}
        """By the name of a file that promises something: the others that were loose when it was put in place."""

    def rename(self, path: Path, new_path: Path) -> None:
        if new_path.name in (Path(CHECKPOINT).name, Path(SIGNED).name):
            self.promised.setdefault(new_path.name, set()).update(self.loose)
        super().rename(path, new_path)
        self.loose.discard(path)
        if TEMPORARY not in str(new_path):
            self.loose.add(new_path)

    def sync_folders(self, paths: Iterable[Path]) -> None:
        folders = list(paths)
        super().sync_folders(folders)
        self.loose = {name for name in self.loose if name.parent not in folders}

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.loose.discard(path)


@pytest.fixture
def disk() -> NamingDisk:
    return NamingDisk()


@pytest.fixture
def writer(tmp_path: Path, disk: NamingDisk) -> LogWriter:
    """A log whose segments hold a few dozen records."""
    return LogWriter(
        tmp_path / "log", tmp_path / "log.key", origin=ORIGIN, segment_bytes=1 << 16, testing_only_disk=disk
    )


def grow(writer: LogWriter, disk: NamingDisk, num_commits: int) -> None:
    """Each commit acknowledges ten records."""
    for _ in range(num_commits):
        writer.append([make_record(writer.next_index + number) for number in range(10)])
        writer.commit()
        assert disk.loose == set()


def test_what_is_acknowledged_or_signed_has_its_names(writer: LogWriter, disk: NamingDisk) -> None:
    """Segments when their records are acknowledged, tiles when their tree is, the checkpoint when `publish` ends."""
    for num_commits in (1, 60, 1):
        grow(writer, disk, num_commits)
        writer.publish()
        assert disk.loose == set()
    assert disk.promised == {"checkpoint": set(), "signed": set()}
    writer.close()


def test_a_witness_has_the_name_of_what_it_cosigned(tmp_path: Path, writer: LogWriter, disk: NamingDisk) -> None:
    """Else it could cosign another history after a loss of power; and so has the log its witnesses' word."""
    cosigner = Cosigner("witness.example/w", Ed25519PrivateKey.generate())
    witness = Witness(tmp_path / "witness", [cosigner], [writer.key], lambda: 5.0, disk)
    grow(writer, disk, 1)
    note = LogReader(tmp_path / "log").checkpoint_note() if writer.publish() else b""
    answer = witness.add_checkpoint(encode_request(0, [], note))
    assert (answer.status, disk.loose) == (200, set())
    merge_cosigned(tmp_path, note + answer.body, disk)
    assert disk.loose == set()
    witness.close()
    writer.close()


def test_keys_logs_rules_and_shares_have_their_names(tmp_path: Path, writer: LogWriter, disk: NamingDisk) -> None:
    """When the step ends that made them; before it destroys what they replace."""
    key_path = tmp_path / "log.key"
    stage_key(key_path, ORIGIN, disk)
    assert disk.loose == set()
    writer.close()
    writer = LogWriter(tmp_path / "log", key_path, origin=ORIGIN, testing_only_disk=disk)
    grow(writer, disk, 1)
    writer.publish()
    writer.close()
    finish_key(tmp_path / "log", key_path, ORIGIN, disk)
    assert disk.loose == set()
    rotate_log(tmp_path / "log", key_path, disk)
    assert disk.loose == set()
    save_rules(tmp_path / "rules.json", Rules(retention_days=3), disk)
    assert disk.loose == set()
    ShareStore(tmp_path / "shares", disk).keep(KeyContext("t", "2026-11-27", new_key_id()), b"[]")
    assert disk.loose == set()
