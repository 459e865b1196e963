"""The OSCAL of evidence packs, read by compliance-trestle in an environment of its own: `make test-interop`."""

import json
import subprocess
from pathlib import Path

import pytest

from compliance.frameworks import FRAMEWORKS
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
    assert len(ours) == 5
    assert read == [f"{kind} {uuid}" for kind, uuid in ours]
