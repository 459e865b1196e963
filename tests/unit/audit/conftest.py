"""What the tests of the log share: records, a log in a temporary folder, and where the outside vectors lie."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.entry import encode_canonical

ORIGIN = "log.example/casemate"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of the vectors from outside; the test is skipped where it is absent."""
    named = os.environ.get("CASEMATE_TEST_DATA")
    if not named or not (Path(named) / "vectors").is_dir():
        pytest.skip("CASEMATE_TEST_DATA does not name a folder with vectors/")
    return Path(named) / "vectors"


def make_record(index: int, text: str = "") -> bytes:
    """A record as small as the log takes it."""
    return encode_canonical({"metadata": {"sequence": index}, "text": text})


OpenLog = Callable[..., LogWriter]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[OpenLog]:
    """Opens the log of this test; call it again after `close` for a restart. Closes what is left open."""
    opened: list[LogWriter] = []

    def open_(**settings: object) -> LogWriter:
        writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN, **settings)  # type: ignore[arg-type]
        opened.append(writer)
        return writer

    yield open_
    for writer in opened:
        writer.close()
