"""What loses its power: a log with publications beside, appended to while there is room; it says how many records are durable."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audit.append import LogWriter
from audit.entry import encode_canonical

ORIGIN = "log.example/power"
NUM_RECORDS = 40_000
"""Then the disk of the test is full enough, and the script only publishes."""


def make_record(index: int) -> bytes:
    """A record that says its index."""
    return encode_canonical({"metadata": {"sequence": index}, "text": "x" * (index % 400)})


def main() -> None:
    """Until it is killed."""
    home = Path(sys.argv[1])
    writer = LogWriter(
        home / "log",
        home / "log.key",
        origin=ORIGIN,
        checkpoint_interval_ms=20,
        segment_bytes=200_000,
        executor=ThreadPoolExecutor(max_workers=1),
    )
    writer.prepare()
    while writer.size < NUM_RECORDS:
        writer.append([make_record(writer.next_index + i) for i in range(1 + writer.size % 40)])
        writer.commit()
        os.write(1, f"{writer.size}\n".encode())
        writer.publish_if_due()
    while True:
        writer.publish_if_due()


if __name__ == "__main__":
    main()
