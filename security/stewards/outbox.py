"""What happened to models and software while commands ran, waiting for the log.

A command may run while the appliance is down, and never holds a connection to the auditor. So it writes what it did as one
small file, before it says that it is done; the supervisor appends each to the log and removes it when the record is durable.
"""

import contextlib
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
from security.keys import make_private_directory, write_exclusive

_MAX_NOTICE_BYTES = 64 << 10


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


class Outbox:
    """A folder of notices."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, kind: str, *, name: str, digest: str, actor: str, facts: Mapping[str, str | int]) -> None:
        """Leave a notice, durably; root leaves it as whoever owns the state. Raises: KeyUnusable."""
        notice = {"kind": kind, "name": name, "digest": digest, "actor": actor, "facts": dict(facts)}
        at_ns = time.time_ns()
        data = json.dumps({**notice, "at_ms": at_ns // 1_000_000}, sort_keys=True).encode()
        if len(data) > _MAX_NOTICE_BYTES:
            raise KeyUnusable(f"a notice of {len(data)} bytes is more than the log takes ({_MAX_NOTICE_BYTES})")
        # The appliance may run as somebody else, who must be able to take the notice away, and must not lead root elsewhere.
        with acting_as_owner(self.path.parent):
            make_private_directory(self.path)
            write_exclusive(self.path / f"{at_ns:020d}-{os.urandom(4).hex()}.json", data)

    def waiting(self) -> Iterator[tuple[Path, Notice]]:
        """All notices, oldest first; what is no notice is passed over."""
        names = sorted(os.listdir(self.path)) if self.path.is_dir() else []
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                with contextlib.suppress(MalformedDocument, OSError):
                    yield self.path / name, _parse(self.path / name)


def _parse(path: Path) -> Notice:
    with path.open("rb") as file:
        document: dict[str, Any] = parse_json_object(file.read(_MAX_NOTICE_BYTES + 1))
    try:
        notice = Notice(**document)
    except TypeError:
        raise MalformedDocument(f"{path.name}: not a notice") from None
    texts = (notice.kind, notice.name, notice.digest, notice.actor)
    if not all(type(text) is str for text in texts) or type(notice.at_ms) is not int or type(notice.facts) is not dict:
        raise MalformedDocument(f"{path.name}: not a notice")
    return notice
