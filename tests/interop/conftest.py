"""An appliance with the demo model, and the environments in which other people's clients live."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, running_appliance

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".cache" / "interop"


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    # Proofs of possession need a nonce, so that clients show how they get one.
    options = {"extra": "dpop_nonce_lifetime_s = 60"}
    with running_appliance(tmp_path_factory.mktemp("interop") / "appliance", **options) as running:
        yield running


def program_of(name: str, program: str) -> Path:
    """A program of an environment. Skips where `make test-interop` has not made it."""
    path = ENVIRONMENTS / name / "bin" / program
    if not path.exists():
        pytest.skip(f"there is no {path}: make test-interop makes it")
    return path


def coding_agent(script: str) -> list[str]:
    """The command of a coding agent, by its script below node_modules. Skips where `make test-interop` found no npm."""
    place = ENVIRONMENTS / "coding_agents"
    if not (place / "ready").exists():
        pytest.skip("make test-interop installs the coding agents, with npm")
    return ["node", str(place / "node_modules" / script)]


def javascript(script: str) -> list[str]:
    """The command of a script of tests/interop/javascript. Skips where `make test-interop` found no npm."""
    place = ENVIRONMENTS / "javascript"
    if not (place / "ready").exists():
        pytest.skip("make test-interop installs the clients in JavaScript, with npm")
    return ["node", str(place / script)]


def run(command: list[str], appliance: Appliance, token: str, cwd: Path) -> str:
    """Run a client that finds the token and the appliance's own authority in its environment; gives what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OPENAI", "HF_"))
    }
    environment |= {
        "OPENAI_API_KEY": token,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(cwd / "hf"),
    }
    environment |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), str(appliance.ca_file))
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
