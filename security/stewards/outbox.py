"""What happened to models and software while commands ran, waiting for the log.

A command may run while the appliance is down, and never holds a connection to the auditor. So it writes what it does as one
small file, before it says that it is done, and where it can before that takes effect; the supervisor appends each to the log and
removes it when the record is durable.

    NANOSECONDS-RANDOM.json     a notice
    last                        the number of the last notice that was left
    carried                     up to which number all are in the log
    lock                        held while a notice is left

Notices are numbered, so that one that was taken away before it was carried leaves a gap. Whoever can write here can take the newest
away and set `last` back; numbers are in the records as well, where a later notice then repeats one or leaves one out.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from security.acting import acting_as_owner
from security.errors import KeyUnusable, MalformedDocument
from security.json_object import parse_json_object
from security.keys import make_private_directory, write_exclusive, write_replacing

_MAX_NOTICE_BYTES = 64 << 10
_MAX_NUMBER_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened."""

    kind: str
    """A kind of event in the log."""
    name: str
    digest: str
    actor: str
    """Who did it: the person whose key signed, else `os:NAME`, the system's user."""
    at_ms: int
    facts: Mapping[str, str | int]
    number: int = 0
    """From 1 on; 0 of an earlier release, which numbered none."""


class Outbox:
    """A folder of notices."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def last(self) -> int:
        """The number of the last notice that was left. Notices up to it are there, unless they were carried or taken away."""
        return self._read_number("last")

    @property
    def carried(self) -> int:
        """Up to which number all notices are in the log, or were told as missing there."""
        return self._read_number("carried")

    def note_carried(self, number: int) -> None:
        """They are, durably. Raises: KeyUnusable."""
        write_replacing(self.path / "carried", f"{number}\n".encode())

    def put(self, kind: str, *, name: str, digest: str, actor: str, facts: Mapping[str, str | int]) -> None:
        """Leave a notice, durably; root leaves it as whoever owns the state. Raises: KeyUnusable."""
        # The appliance may run as somebody else, who must be able to take the notice away, and must not lead root elsewhere.
        with acting_as_owner(self.path.parent):
            make_private_directory(self.path)
            with self._locked():
                numbers = (notice.number for _, notice in self.waiting())
                number = 1 + max(self.last, self.carried, *numbers)
                at_ns = time.time_ns()
                notice = Notice(kind, name, digest, actor, at_ns // 1_000_000, dict(facts), number)
                write_exclusive(self.path / f"{at_ns:020d}-{os.urandom(4).hex()}.json", _encode(notice))
                write_replacing(self.path / "last", f"{number}\n".encode())  # Behind it: up to here nothing is missing.

    def waiting(self) -> Iterator[tuple[Path, Notice]]:
        """All notices, oldest first; what is no notice is passed over."""
        names = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                with contextlib.suppress(MalformedDocument, OSError):
                    yield self.path / name, _parse(self.path / name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise KeyUnusable(f"{self.path / 'lock'} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read_number(self, name: str) -> int:
        try:
            text = (self.path / name).read_text("ascii", "replace")[: _MAX_NUMBER_DIGITS + 1].strip()
        except OSError:
            return 0
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS else 0


def _encode(notice: Notice) -> bytes:
    members = {name: getattr(notice, name) for name in Notice.__slots__}
    data = json.dumps(members, sort_keys=True).encode()
    if len(data) > _MAX_NOTICE_BYTES:
        raise KeyUnusable(f"a notice of {len(data)} bytes is more than the log takes ({_MAX_NOTICE_BYTES})")
    return data


def _parse(path: Path) -> Notice:
    with path.open("rb") as file:
        document: dict[str, Any] = parse_json_object(file.read(_MAX_NOTICE_BYTES + 1))
    try:
        notice = Notice(**document)
    except TypeError:
        raise MalformedDocument(f"{path.name}: not a notice") from None
    texts = (notice.kind, notice.name, notice.digest, notice.actor)
    numbers = (notice.at_ms, notice.number)
    if (
        not all(type(text) is str for text in texts)
        or not all(type(number) is int and 0 <= number < 10**_MAX_NUMBER_DIGITS for number in numbers)
        or type(notice.facts) is not dict
    ):
        raise MalformedDocument(f"{path.name}: not a notice")
    return notice
