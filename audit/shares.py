"""What dies with its day: second shares of sealed bodies and roots of keyed hashes, each a file with its escrow.

    shares/2026-11-25/KEY_ID.json   tenant, share B, the escrow of share A; or the root of the keyed hashes and its escrow

A key's file is durable before its share is used, so that what was sealed can be opened. Destroying overwrites the file before it
is removed; on media that do not write in place old blocks may survive until they are erased, SECURITY.md says so.

What always holds: nothing leaves here by itself. That a record is durable before a share is given is the caller's, who MUST.
"""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from audit.errors import EntryNotFound, KeyUnusable
from audit.sealing import MAX_ESCROW_BYTES, KeyContext, new_share
from audit.storage import Disk

SHARES = "shares"
"""Beside the log's folder."""
MAX_FILE_BYTES = MAX_ESCROW_BYTES * 2

IsHeld = Callable[[str | None, str], bool]
"""Whether a hold covers a tenant's day; None: whose it was is not known any more."""


class StoredKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds. Its `repr` does not show the share."""

    tenant: str
    day: str
    key_id: str
    share: bytes
    escrow: bytes

    def __repr__(self) -> str:
        return f"StoredKey({self.day}, {self.key_id}, <hidden>)"


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What was destroyed of one day."""

    day: str
    key_ids: tuple[str, ...]


class ShareStore:
    """One folder of them, for one process."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()

    def keep(self, context: KeyContext, escrow: bytes, secret: bytes | None = None) -> bytes:
        """Make a second share, durably, or keep a secret that is given. Gives it.

        Raises: KeyUnusable for a day or id that is none, or is there already; NotDurable, StorageFailed.
        """
        path = self._path(context.day, context.key_id)
        if len(escrow) > MAX_ESCROW_BYTES or path.exists():
            raise KeyUnusable(f"body key {context.key_id}: exists already, or its escrow is too long")
        stored = StoredKey(context.tenant, context.day, context.key_id, secret or new_share(), escrow)
        for folder in (self._folder, path.parent):
            self._disk.make_folder(folder)
        temporary = path.with_suffix(".tmp")
        self._disk.make_private(temporary)
        self._disk.write_file(path, msgspec.json.encode(stored), temporary)
        self._disk.sync_folders([path.parent])
        return stored.share

    def load(self, day: str, key_id: str) -> StoredKey:
        """A key's second share and escrow.

        Raises: EntryNotFound when it was destroyed, or never was; KeyUnusable when its file is damaged.
        """
        path = self._path(day, key_id)
        try:
            data = path.read_bytes()[: MAX_FILE_BYTES + 1]
        except FileNotFoundError:
            raise EntryNotFound(f"the key of {day} was destroyed, or never kept") from None
        try:
            return msgspec.json.decode(data, type=StoredKey)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise KeyUnusable(f"{path}: is damaged") from error

    def find_due(self, before: str, is_held: IsHeld) -> list[Destroyed]:
        """What may be destroyed: keys of days before `before` that nothing holds."""
        found: list[Destroyed] = []
        for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if _is_day(folder.name) and folder.name < before:
                due = tuple(
                    key_id for key_id in self._key_ids(folder) if not self._is_held(folder.name, key_id, is_held)
                )
                if due:
                    found.append(Destroyed(folder.name, due))
        return found

    def find_held(self, is_held: IsHeld) -> list[Path]:
        """Files of keys under a hold: the only ones that may be backed up."""
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [
            folder / f"{key_id}.json"
            for folder in folders
            if _is_day(folder.name)
            for key_id in self._key_ids(folder)
            if self._is_held(folder.name, key_id, is_held)
        ]

    def destroy(self, destroyed: Destroyed) -> None:
        """Overwrite and remove these. What is gone already is passed over.

        Raises: StorageFailed.
        """
        folder = self._folder / destroyed.day
        if not folder.is_dir():
            return
        for key_id in destroyed.key_ids:
            path = self._path(destroyed.day, key_id)
            if not path.exists():
                continue
            self._overwrite(path)
        for leftover in folder.glob(
            "*.tmp"
        ):  # Of a crash: nothing was sealed with it, and nobody shall have to know that.
            self._overwrite(leftover)
        self._disk.sync_folders([folder])
        if not any(folder.iterdir()):
            folder.rmdir()

    def _overwrite(self, path: Path) -> None:
        fd = self._disk.open_at(path, 0)
        try:
            self._disk.write(fd, os.urandom(os.fstat(fd).st_size), path)
            self._disk.sync(fd, path)
        finally:
            os.close(fd)
        self._disk.remove(path)

    def _key_ids(self, folder: Path) -> list[str]:
        return sorted(path.stem for path in folder.glob("*.json"))

    def _is_held(self, day: str, key_id: str, is_held: IsHeld) -> bool:
        try:
            return is_held(self.load(day, key_id).tenant, day)
        except KeyUnusable:
            return is_held(None, day)  # It opens nothing as it is; whoever holds the day may know how to mend it.

    def _path(self, day: str, key_id: str) -> Path:
        if not _is_day(day) or len(key_id) != 32 or not all(digit in "0123456789abcdef" for digit in key_id):
            raise KeyUnusable("body key: expected a day, and an id of 32 hexadecimal digits")
        return self._folder / day / f"{key_id}.json"


def has_shares(folder: Path) -> bool:
    """Whether any are kept below the log's parent folder."""
    return any((folder / SHARES).glob("*/*.json"))


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
