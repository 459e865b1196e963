"""The OSCAL of evidence packs, read and imported by compliance-trestle in an environment of its own: `make test-interop`."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compliance.frameworks import FRAMEWORKS
from compliance.oscal.document import control_id
from tests.interop.conftest import HERE, program_of
from tests.support.evidence import order_pack, write_made_up_pack
from tests.support.synthetic_logs import write_log

pytestmark = pytest.mark.long


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_trestle_takes_every_document(framework: str, tmp_path: Path) -> None:
    """Each document of each framework is a valid one of its kind, and is the one that we wrote."""
    python = program_of("trestle", "python")
    order = order_pack(framework)
    write_log(tmp_path, 300, first_ms=order.period.start_ms, last_ms=order.period.end_ms - 1)
    write_made_up_pack(order, tmp_path)
    folder = tmp_path / "pack" / "oscal"
    command = [str(python), str(HERE / "trestle_read.py"), str(folder)]
    read = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    ours = [(path.stem, json.loads(path.read_bytes())[path.stem]["uuid"]) for path in sorted(folder.glob("*.json"))]
    assert len(ours) == 7
    assert read == [f"{kind} {uuid}" for kind, uuid in ours]


@pytest.mark.parametrize("framework", ["cmmc-l2", "800-53-high"])
def test_trestle_imports_every_document_into_a_workspace(framework: str, tmp_path: Path) -> None:
    """With its own validation, which resolves what the plan imports: the profile, and by it the catalog, without a network."""
    program = str(program_of("trestle", "trestle"))
    order = order_pack(framework)
    write_log(tmp_path, 300, first_ms=order.period.start_ms, last_ms=order.period.end_ms - 1)
    write_made_up_pack(order, tmp_path)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for name in ("profile.json", "catalog.json"):  # Trestle looks for them from its workspace on.
        shutil.copy(tmp_path / "pack" / "oscal" / name, workspace)
    subprocess.run([program, "init", "--local"], check=True, cwd=workspace, capture_output=True)
    documents = sorted((tmp_path / "pack" / "oscal").glob("*.json"))
    for path in documents:
        words = [program, "import", "--file", str(path), "--output", path.stem]
        done = subprocess.run(words, cwd=workspace, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    checked = subprocess.run([program, "validate", "--all"], check=True, cwd=workspace, capture_output=True, text=True)
    assert (checked.stdout + checked.stderr).count("VALID: ") == len(documents) == 7
    made = [program, "author", "profile-resolve", "--name", "profile", "--output", "resolved"]
    subprocess.run(made, check=True, cwd=workspace, capture_output=True, text=True)
    resolved = json.loads((workspace / "catalogs" / "resolved" / "catalog.json").read_bytes())
    found = {value for name, value in walk(resolved) if name == "id"}
    assert found >= {control_id(FRAMEWORKS[framework], control) for control in FRAMEWORKS[framework].controls}


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object."""
    for name, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield str(name), member
        if isinstance(member, dict | list):
            yield from walk(member)
