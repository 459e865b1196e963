"""Folders made to exhaust whoever reads them, at their real size: a million files, and seventy gigabytes that are a hole."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config.defaults import DEMO_MODEL_DIR
from tests.support.stewardship import Stewardship

ROOT = Path(__file__).parents[2]
NUM_FILES = 1_000_000
SPARSE_BYTES = 70 << 30
MEMORY_BYTES = 4 << 30
PATIENCE_S = 60.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A host that believes its people; ines imports."""
    people = Stewardship()
    people.establish(tmp_path / "state")
    people.people["ines"].write(tmp_path)
    return tmp_path / "state"


def casemate(place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """One command, with little memory and little time."""
    command = [sys.executable, "-m", "appliance.cli.main", *map(str, words)]
    return subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )


@pytest.fixture
def million() -> Iterator[Path]:
    """A folder in memory: on a disk it would take minutes."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or os.statvfs(memory).f_favail < NUM_FILES + 100_000:
        pytest.skip("/dev/shm has no room for a million files")
    folder = Path(tempfile.mkdtemp(prefix="million-", dir=memory))
    try:
        for number in range(NUM_FILES):
            os.close(os.open(folder / f"{number}.json", os.O_CREAT | os.O_WRONLY))
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.long
def test_a_million_files_are_refused_at_once(million: Path, tmp_path: Path, state: Path) -> None:
    """By signing and by importing: neither lists to the end, or keeps what it saw."""
    begin = time.monotonic()
    key = ("--key", tmp_path / "ines.pem")
    for words in (
        ("model", "sign", million, *key, "-o", tmp_path / "m.sig"),
        ("model", "import", million, *key, "--state", state, "--licence", "none"),
    ):
        done = casemate(tmp_path, *words)
        assert done.returncode == 1, done.stderr
        assert "holds more than 10000 files" in done.stderr
    assert time.monotonic() - begin < PATIENCE_S
    assert not (tmp_path / "m.sig").exists()


@pytest.mark.long
def test_seventy_sparse_gigabytes_are_refused_before_they_are_copied(tmp_path: Path, state: Path) -> None:
    """Weights whose header speaks of megabytes: nothing of them is copied, and nobody waits for them to be hashed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in DEMO_MODEL_DIR.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    os.truncate(folder / "model.safetensors", SPARSE_BYTES)
    begin = time.monotonic()
    done = casemate(
        tmp_path, "model", "import", folder, "--key", tmp_path / "ines.pem", "--state", state, "--licence", "none"
    )
    assert done.returncode == 1, done.stdout
    assert "model.safetensors" in done.stderr
    assert time.monotonic() - begin < PATIENCE_S
    assert not [path for path in (state / "models").rglob("*") if path.name == "model.safetensors"]
    (notice,) = (state / "outbox").glob("*.json")
    assert json.loads(notice.read_bytes())["kind"] == "model_import_refused"
