"""How a file is put below the state folder: whole and durable, or not at all, so that no power cut leaves half of what was said."""

from pathlib import Path

from appliance.errors import StartRefused
from security.errors import KeyUnusable
from security.keys import make_private_directory, write_replacing

_MODE = 0o644
"""Nothing of it is secret: the folder decides who comes that far."""


def write_file(path: Path, data: bytes) -> None:
    """In place of what is there. Raises: StartRefused."""
    try:
        make_private_directory(path.parent)
        write_replacing(path, data, mode=_MODE)
    except KeyUnusable as fault:
        raise StartRefused(str(fault)) from fault
