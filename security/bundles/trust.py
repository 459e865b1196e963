"""The roots that a host believes: the vendor's for software, the customer's own for models and people.

    vendor/root.json, customer/root.json     as they came, checked against a digest that came another way
    vendor/metadata, customer/metadata       what the TUF client remembers: it must never go back
    roles.dsse                               the role file in force, signed under the customer's root
    roles.version                            the highest version that was ever in force
    last-time                                the latest time at which something was accepted

The two roots are apart: who signs software cannot approve a model, and who approves a model cannot change software. A root is a
TUF root; its root keys, and their threshold, are also the anchor of role files. What reads roots is imported when one is read: tuf
and what it draws in are a tenth of a second of each process that asks whether its model is a promoted one.
"""

import datetime
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from security.errors import MalformedDocument, TrustUnusable
from security.keys import write_replacing
from security.stewards.role_file import Anchor, RoleFile, parse_time, verify_role_file
from security.stewards.statements import format_time

Owner = Literal["vendor", "customer"]
ROOT, METADATA, ROLES, ROLES_VERSION = "root.json", "metadata", "roles.dsse", "roles.version"
LAST_TIME = "last-time"
MAX_ROOT_BYTES = 512_000
_MODE = 0o644
"""Nothing here is secret: whoever installs as root and whoever serves as another user both read it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class HostTrust:
    """The folder of what this host believes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def metadata_of(self, owner: Owner) -> Path:
        """Where the TUF client keeps what it has verified."""
        return self.path / owner / METADATA

    def pin_root(self, owner: Owner, data: bytes, sha256: str) -> None:
        """Believe a root from now on. A host that believes one already does not take another.

        Args:
            sha256: its digest in hexadecimal, from somewhere else than the root itself.
        Raises: TrustUnusable, KeyUnusable.
        """
        expected = sha256.lower().removeprefix("sha256:")
        if not _DIGEST.fullmatch(expected):
            raise TrustUnusable(f"{owner} root: {sha256[:80]!r} is not a SHA-256 digest in hexadecimal")
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise TrustUnusable(f"{owner} root: SHA-256 is {found}, expected {expected}: do not use this medium")
        from security.bundles.root_document import parse_root

        parse_root(data, owner)
        target = self.path / owner / ROOT
        if target.exists() and target.read_bytes() != data:
            raise TrustUnusable(f"{target}: this host believes another {owner} root already")
        _make_folder(self.metadata_of(owner))
        write_replacing(target, data, mode=_MODE)

    def pinned_root(self, owner: Owner) -> bytes:
        """The root as it was first believed. Raises: TrustUnusable if there is none."""
        return _read(self.path / owner / ROOT, f"{owner} root; `casemate init` takes one")

    def anchor(self) -> Anchor:
        """Who may sign role files: the newest customer root that was verified. Raises: TrustUnusable."""
        from security.bundles.root_document import anchor_of, parse_root

        newest = self.metadata_of("customer") / ROOT
        data = _read(newest, "customer root") if newest.exists() else self.pinned_root("customer")
        return anchor_of(parse_root(data, "customer"))

    def install_roles(
        self, data: bytes, *, at: datetime.datetime, announce: Callable[[RoleFile], None] = lambda _roles: None
    ) -> RoleFile:
        """Put a role file into force, if it is not older than the last one.

        Args:
            announce: told of it before it is in force; what it raises leaves the last one in force.
        Raises: TrustUnusable, KeyUnusable.
        """
        roles = verify_role_file(data, self.anchor(), at=at, least_version=self._least_version())
        announce(roles)
        # The version first: after a power cut between the two the old file is refused, and the new one must be given again.
        write_replacing(self.path / ROLES_VERSION, str(roles.version).encode(), mode=_MODE)
        write_replacing(self.path / ROLES, data, mode=_MODE)
        self.share()
        return roles

    @property
    def roles_sha256(self) -> str:
        """Of the role file that is in its place, in hexadecimal; empty where there is none."""
        path = self.path / ROLES
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

    def load_roles(self, *, at: datetime.datetime) -> RoleFile:
        """The role file in force, verified anew. Raises: TrustUnusable."""
        data = _read(self.path / ROLES, "role file; `casemate trust install-roles` takes one")
        return verify_role_file(data, self.anchor(), at=at, least_version=self._least_version())

    def clock_floor(self) -> datetime.datetime | None:
        """The latest time at which this host accepted something. Raises: TrustUnusable."""
        path = self.path / LAST_TIME
        if not path.exists():
            return None
        try:
            return parse_time(_read(path, "time").decode("ascii", "replace"), str(path))
        except MalformedDocument as error:
            raise TrustUnusable(str(error)) from None

    def note_time(self, now: datetime.datetime) -> None:
        """Remember that something was accepted now; the floor never goes down. Raises: TrustUnusable, KeyUnusable."""
        floor = self.clock_floor()
        if floor is None or now > floor:
            write_replacing(self.path / LAST_TIME, format_time(now).encode(), mode=_MODE)
            self.share()

    def share(self) -> None:
        """Give what was written here to whom the folder belongs, and let everybody read it.

        Root installs and somebody else serves, and the TUF client writes for its own user alone. Links are not followed, and a
        file with a second name is left alone: root must give away nothing else.

        Raises: TrustUnusable.
        """
        owner = self.path.stat()
        try:
            for _, folders, files, descriptor in os.fwalk(self.path, follow_symlinks=False):
                for name in (*folders, *files):
                    _share(name, descriptor, owner)
        except OSError as error:
            raise TrustUnusable(f"{self.path}: cannot be shared: {error.strerror}") from None

    def _least_version(self) -> int:
        path = self.path / ROLES_VERSION
        if not path.exists():
            return 1
        text = _read(path, "role file's version").decode("ascii", "replace")
        if not re.fullmatch(r"[0-9]{1,10}", text):
            raise TrustUnusable(f"{path}: expected a number")
        return int(text)


def _share(name: str, folder: int, owner: os.stat_result) -> None:
    """Open to read for everybody, to write for nobody but its owner."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode) and os.geteuid() == 0:  # The link itself.
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | (0o055 if stat.S_ISDIR(found.st_mode) else 0o044))
    finally:
        os.close(descriptor)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise TrustUnusable(f"folder {path} cannot be made: {error.strerror}") from None


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROOT_BYTES + 1)
    except FileNotFoundError:
        raise TrustUnusable(f"{path}: there is no {what}") from None
    except OSError as error:
        raise TrustUnusable(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_ROOT_BYTES:
        raise TrustUnusable(f"{path}: larger than {MAX_ROOT_BYTES} bytes")
    return data
