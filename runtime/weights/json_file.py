"""JSON files of a model folder: read whole, bounded, and with one meaning only.

Two readers of a file with a key given twice can see two different models, so that is refused; so are NaN and Infinity,
which JSON does not have.
"""

import json
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from runtime.errors import CheckpointRejected

MAX_JSON_BYTES = 1 << 24


def load_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object from a regular file.

    Raises: CheckpointRejected if it is missing, unreadable, too large or not one JSON object.
    """
    return parse_json_object(read_regular_file(path, max_bytes=max_bytes), where=path.name)


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """Read a whole file, refusing what is not a regular file or larger than `max_bytes`."""
    with open_regular_file(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise CheckpointRejected(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > max_bytes:
        raise CheckpointRejected(f"{path}: larger than {max_bytes} bytes")
    return content


def open_regular_file(path: Path) -> BufferedReader:
    """Open for reading; never waits, as it would on a pipe that nobody writes to.

    Raises: CheckpointRejected if the file is missing, unreadable or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CheckpointRejected(f"{path}: cannot be opened: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointRejected(f"{path}: not a regular file")
    return open(descriptor, "rb")


def parse_json_object(content: bytes, *, where: str) -> dict[str, Any]:
    """Parse untrusted bytes as one JSON object without duplicate keys, NaN or Infinity.

    Args:
        where: name of the source for messages.
    Raises: CheckpointRejected for whatever is refused.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise CheckpointRejected(f"{where}: {name} is not JSON")

    def build_object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise CheckpointRejected(f"{where}: key {key!r} occurs twice in one object")
            result[key] = value
        return result

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=build_object, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointRejected(f"{where}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointRejected(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
