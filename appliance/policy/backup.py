"""Backups: the definitions, and the keys without which they and the tokens are worth nothing, in one file.

A tar archive of `manifest.json` (what is in it, with SHA-256 digests), `definitions.json` and the key files below `files/`.
The log is not in it: it is append-only, and copied as it is. The file holds every signing key: whoever reads it can make
tokens.
"""

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.errors import CommandFailed
from audit.errors import StateMismatch
from audit.governance import RULES, Rules, load_rules
from audit.shares import SHARES, ShareStore
from security.keys import make_private_directory, write_exclusive, write_replacing

HELD_SHARES = "audit/shares/*/*.json"
"""Second shares of sealed bodies and roots of keyed hashes: in a backup only those under a legal hold; the others must
die with their period."""
HOLDS = f"audit/{RULES}"
"""The retention and the holds in force: without them a restored host would destroy what is held. They are put back where there
are none; what was decided on a host stands there."""
FILES = ("policy/credentials.key", "authority/signing/*.pem", "tls/*.pem", "tls/*.key")
"""What is backed up beside the definitions, below the state directory."""
RETIRED = ("gateway/keyed-hash.key",)
"""What backups of earlier releases hold besides. It is not put back: every day's keyed hashes followed from that key."""
MAX_BACKUP_BYTES = 1 << 30
_MANIFEST, _DEFINITIONS, _PREFIX = "manifest.json", "definitions.json", "files/"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself."""

    format: int
    made_at: int
    digests: dict[str, str]
    """SHA-256 of every other member, in hexadecimal."""


def write_backup(path: Path, state: Path, definitions: bytes, announce: Callable[[str, int], None]) -> list[str]:
    """Write a backup that only its owner can read. Returns: the names in it.

    Args:
        announce: told the file's SHA-256 in hexadecimal, and how many members it has, before it is written; what it raises keeps it
            from being.
    Raises: CommandFailed if the file exists or something cannot be read.
    """
    if path.exists():
        raise CommandFailed(f"{path} exists already")
    members = {_DEFINITIONS: definitions}
    rules = _load_rules(state)
    held = ShareStore(state / "audit" / SHARES).find_held(rules.is_held)
    for file in (*(file for pattern in FILES for file in sorted(state.glob(pattern))), *held):
        name = file.relative_to(state).as_posix()
        _verify_no_strangers_link(state, name)
        members[_PREFIX + name] = file.read_bytes()
    if (state / HOLDS).exists():
        members[_PREFIX + HOLDS] = msgspec.json.encode(Rules(rules.retention_days, rules.holds))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    manifest = msgspec.json.encode(Manifest(format=1, made_at=int(time.time()), digests=digests))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in {_MANIFEST: manifest, **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    announce(hashlib.sha256(buffer.getvalue()).hexdigest(), len(members))
    try:
        write_exclusive(path, buffer.getvalue())
    except FileExistsError:
        raise CommandFailed(f"{path} exists already") from None
    return sorted(members)


def read_backup(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The definitions and the files of a backup that may be put back, every digest checked.

    Raises: CommandFailed.
    """
    try:
        members = _read_members(path)
        manifest = msgspec.json.decode(members.pop(_MANIFEST), type=Manifest)
    except (OSError, tarfile.TarError, KeyError, msgspec.MsgspecError) as error:
        raise CommandFailed(f"{path} is not a backup of casemate: {error}") from error
    if manifest.format != 1 or manifest.digests.keys() != members.keys() or _DEFINITIONS not in members:
        raise CommandFailed(f"{path}: the manifest does not list exactly what is in the file")
    for name, digest in manifest.digests.items():
        if hashlib.sha256(members[name]).hexdigest() != digest:
            raise CommandFailed(f"{path}: {name} is not what it was")
    definitions = members.pop(_DEFINITIONS)
    files = {name.removeprefix(_PREFIX): data for name, data in members.items()}
    files = {name: data for name, data in files.items() if name not in RETIRED}
    for name in files:
        if (
            not any(Path(name).match(pattern) for pattern in (*FILES, HELD_SHARES, HOLDS))
            or ".." in Path(name).parts
            or name.startswith("/")
        ):
            raise CommandFailed(f"{path}: {name} is no file that a backup may hold")
    return definitions, files


def restore_files(state: Path, files: dict[str, bytes], *, replace: bool) -> None:
    """Put the files below the state directory, readable by their owner alone.

    Raises: CommandFailed if another one is there and shall not be replaced; nothing was written then. KeyUnusable.
    """
    files = {name: data for name, data in files.items() if name != HOLDS or not (state / HOLDS).exists()}
    for name, data in files.items():
        _verify_no_strangers_link(state, name)
        target = state / name
        if target.exists() and target.read_bytes() != data and not replace:
            raise CommandFailed(f"{target} exists and differs; say --replace to lose it")
    for name, data in files.items():
        make_private_directory((state / name).parent)
        write_replacing(state / name, data)


def _verify_no_strangers_link(state: Path, name: str) -> None:
    """Check the way from the state directory to a file: no link of a role's user, who would have us read or write elsewhere.

    Raises: CommandFailed.
    """
    for path in (state / name, *((state / above) for above in Path(name).parents)):
        if path.is_symlink() and (owner := path.lstat().st_uid) not in (0, os.geteuid()):
            raise CommandFailed(
                f"{path}: a link that uid {owner} made, who has no business to lead this command elsewhere"
            )


def _load_rules(state: Path) -> Rules:
    try:
        return load_rules(state / HOLDS, 1)
    except StateMismatch as error:
        raise CommandFailed(f"what is under a legal hold is not known: {error}") from error


def _read_members(path: Path) -> dict[str, bytes]:
    if path.stat().st_size > MAX_BACKUP_BYTES:
        raise tarfile.TarError("too large")
    members: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isreg() else None
            if file is None or entry.name in members:
                raise tarfile.TarError(f"{entry.name} is no plain file, or occurs twice")
            members[entry.name] = file.read()
    return members
