"""What runs under strace: opens a log, appends, commits and publishes, and says on standard output what was acknowledged.

Exit status: 0 all done (some of it perhaps refused for a full disk), 3 the writer gave up after an I/O error.
"""

import os
import sys
from pathlib import Path

from audit.append import LogWriter
from audit.entry import encode_canonical
from audit.errors import AuditUnavailable, NotDurable, StorageFailed

ORIGIN = "log.example/strace"
ROUNDS = 4


def make_record(index: int) -> bytes:
    """A record that says its index."""
    return encode_canonical({"metadata": {"sequence": index}, "text": "x" * 300})


def say(word: str) -> None:
    """One line, at once."""
    os.write(1, f"{word}\n".encode())


def main() -> int:
    """Four commits, each published."""
    home = Path(sys.argv[1])
    say("open")
    try:
        writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN, segment_bytes=1)
        for number in range(ROUNDS):
            writer.append([make_record(writer.next_index + i) for i in range(90)])
            try:
                for index in writer.commit():
                    say(f"durable {index}")
            except NotDurable:
                say("refused")
            try:
                say(f"published {writer.publish().size} {number}")
            except NotDurable:
                say("not published")
    except StorageFailed:
        return 3
    except AuditUnavailable:
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
