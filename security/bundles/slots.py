"""A host's two slots: one runs, the other takes the next release or keeps the last one.

slots/a/, slots/b/     a release each, exactly the files of its manifest
slots/a.json, b.json   what lies in the slot: version, digest, files; written last, so a slot without it is empty
current                link to the slot that runs
incoming/              a copy in progress; kept when it fails, so that the next try goes on
transition.json        a switch in progress (see `switching`)
backups/               state as it was before an upgrade
"""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from security.bundles.medium import sync_folder
from security.bundles.release import Version, format_version, parse_version
from security.errors import BundleRejected, MalformedDocument
from security.json_object import parse_json_object
from security.keys import make_private_directory, write_replacing

SlotName = Literal["a", "b"]
SLOTS: tuple[SlotName, SlotName] = ("a", "b")
CURRENT, INCOMING, TRANSITION, BACKUPS = "current", "incoming", "transition.json", "backups"
_MAX_RECORD_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SlotContent:
    """What a slot holds."""

    slot: SlotName
    version: Version
    digest: str
    files: Mapping[str, str]
    """SHA-256, hexadecimal, by path."""

    @property
    def name(self) -> str:
        """The version as people write it."""
        return format_version(self.version)


class Host:
    """The folder of an installed host. One process at a time: callers hold `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the folders. Raises: KeyUnusable."""
        for folder in (
            self.path,
            self.path / "slots",
        ):  # Read by whoever serves, who may be another user than who installs.
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        make_private_directory(self.path / BACKUPS)

    def folder_of(self, slot: SlotName) -> Path:
        """Where a slot's files lie."""
        return self.path / "slots" / slot

    def content_of(self, slot: SlotName) -> SlotContent | None:
        """What a slot holds; None if it is empty. Raises: BundleRejected for a record that is no record."""
        path = self.path / "slots" / f"{slot}.json"
        try:
            with path.open("rb") as file:
                document = parse_json_object(file.read(_MAX_RECORD_BYTES))
            version, digest, files = document["version"], document["digest"], document["files"]
            return SlotContent(slot, parse_version(version), str(digest), dict(files))
        except FileNotFoundError:
            return None
        except (MalformedDocument, KeyError, TypeError, ValueError):
            raise BundleRejected(f"{path}: not the record of a slot") from None

    def current(self) -> SlotContent | None:
        """What runs; None on a new host. Raises: BundleRejected for a link to no slot."""
        slot = self.current_slot()
        if slot is None:
            return None
        content = self.content_of(slot)
        if content is None:
            raise BundleRejected(f"{self.path / CURRENT}: leads to slot {slot}, which is empty")
        return content

    def current_slot(self) -> SlotName | None:
        """Which slot the link names."""
        try:
            name = os.readlink(self.path / CURRENT)
        except FileNotFoundError:
            return None
        for slot in SLOTS:
            if name == f"slots/{slot}":
                return slot
        raise BundleRejected(f"{self.path / CURRENT}: leads to {name[:80]!r}, which is no slot")

    def other_slot(self) -> SlotName:
        """The slot that does not run."""
        return "b" if self.current_slot() == "a" else "a"

    def fill(self, slot: SlotName, incoming: Path, record: SlotContent) -> None:
        """Put a finished, durable copy into a slot that does not run.

        (1) the slot's record goes, so that it counts as empty; (2) its old files go; (3) the copy takes the place; (4) the record.
        A power cut between any two leaves the running slot alone and this one empty or whole.
        """
        assert slot != self.current_slot()
        slots = self.path / "slots"
        (slots / f"{slot}.json").unlink(missing_ok=True)  # (1)
        sync_folder(slots)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder_of(slot))  # (2)
        os.rename(incoming, self.folder_of(slot))  # (3)
        sync_folder(slots)
        document = {"version": record.name, "digest": record.digest, "files": dict(record.files)}
        write_replacing(slots / f"{slot}.json", json.dumps(document, sort_keys=True).encode(), mode=0o644)  # (4)

    def switch_to(self, slot: SlotName | None) -> None:
        """Let a slot be the one that runs, at once for whoever looks; none, as on a new host, for None."""
        if slot is None:
            (self.path / CURRENT).unlink(missing_ok=True)
            sync_folder(self.path)
            return
        temporary = self.path / f".{CURRENT}.{os.urandom(4).hex()}"
        os.symlink(f"slots/{slot}", temporary)
        os.replace(temporary, self.path / CURRENT)
        sync_folder(self.path)
