"""Which of several served models it is that something is wrong with: what reads a folder names its files alone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import CheckpointRejected


@contextlib.contextmanager
def naming_model(folder: str | Path) -> Iterator[None]:
    """Raises: CheckpointRejected, with the folder before what it said, unless it said that already."""
    try:
        yield
    except CheckpointRejected as error:
        if str(folder) in str(error):
            raise
        raise CheckpointRejected(f"{folder}: {error}") from error
