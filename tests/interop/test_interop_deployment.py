"""What `deploy` holds for others' tools, judged by Docker Compose itself and the schemas of Kubernetes: `make test-interop`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import HERE, program_of
from tests.interop.test_interop_releases import judge

DEPLOY = HERE.parents[1] / "deploy"

pytestmark = pytest.mark.long


def compose(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose over our file; it asks no daemon for this."""
    program = program_of("judges", "docker-compose")
    inner = next(program.parents[1].glob("lib/python*/site-packages/compose/docker-compose"))
    command = [str(inner), "--file", str(DEPLOY / "compose/compose.yaml"), *words]
    environment = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_docker_compose_takes_the_file() -> None:
    """Its own parser and schema; what it understood is what we meant; without a release it says that one is missing."""
    done = compose("config", "--format", "json", CASEMATE_RELEASE="1.0.0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    service = json.loads(done.stdout)["services"]["casemate"]
    assert service["image"] == "casemate:1.0.0"
    assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
    assert service["read_only"] is True
    missing = compose("config")
    assert missing.returncode != 0
    assert "name the release" in missing.stderr


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_kubernetes_takes_every_object(version: str) -> None:
    """Strictly: a member that the schema of that version does not have is an error."""
    files = sorted(path for path in (DEPLOY / "kubernetes").iterdir())
    assert len(files) == 3
    assert judge("kubernetes", version, *files) == ""


def test_judge_of_kubernetes_sees_what_is_wrong(tmp_path: Path) -> None:
    """A member with a slip in its name, which the server would drop, and with it what it forbids."""
    text = (
        (DEPLOY / "kubernetes/appliance.yaml")
        .read_text()
        .replace("allowPrivilegeEscalation", "allowPrivilegesEscalation")
    )
    (tmp_path / "slip.yaml").write_text(text)
    assert "allowPrivilegesEscalation" in judge("kubernetes", "1.37", tmp_path / "slip.yaml")
