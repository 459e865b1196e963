"""What lies in a folder that somebody works in: files are replaced and removed between being listed and being read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def contents_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file with its bytes; one that is gone by then held nothing that stays."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()
