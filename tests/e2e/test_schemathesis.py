"""Schemathesis, a fuzzer of others that knows us by our OpenAPI document alone, against a running appliance.

No request may end in a server's error, an answer that the document does not describe, or a body accepted although the document
forbids it. Two of its checks are left out, as JSON Schema cannot say when they would be wrong. `positive_data_acceptance`: what the
document allows may still be refused with 400 where two parameters contradict each other or this appliance lacks what is asked for.
`ensure_resource_availability`: a response that was answered is there afterwards only if it is kept, which the request and the
configuration decide.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from tests.support.appliance import Appliance

ROOT = Path(__file__).parents[2]


def attack(appliance: Appliance, token: str, folder: Path, *options: str, document: str = "") -> int:
    """Run it; gives the number of requests that it made. A document may be in a file, as not every role may fetch it."""
    ended = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", document or f"{appliance.url}/openapi.json", "--url", appliance.url,
            "--header", f"Authorization: Bearer {token}", "--tls-verify", str(appliance.ca_file),
            "--exclude-checks", "positive_data_acceptance,ensure_resource_availability",
            "--request-timeout", "60", "--seed", "1", "--no-color", *options,
        ],
        cwd=folder, env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    found = re.search(r"([\d,]+) generated", ended.stdout)
    assert found, ended.stdout[-2000:]
    return int(found[1].replace(",", ""))


def test_the_api_is_what_its_document_says(appliance: Appliance, access_token: str, tmp_path: Path) -> None:
    """A few requests to each route."""
    assert attack(appliance, access_token, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "5") > 60


ROLES = [("auditor", "^/audit"), ("operator", "^/(metrics|flush|(get_)?server)")]


@pytest.mark.parametrize(("role", "routes"), ROLES)
def test_what_a_privileged_role_may_is_what_the_document_says(
    appliance: Appliance, sdk: openai.OpenAI, tmp_path: Path, role: str, routes: str
) -> None:
    """The routes that a user's token does not open, so that nothing behind them was reached."""
    assert attack_as(appliance, sdk, tmp_path, role, routes, "--phases", "fuzzing", "--max-examples", "8") > 10


def attack_as(appliance: Appliance, sdk: openai.OpenAI, folder: Path, role: str, routes: str, *options: str) -> int:
    """`attack` by a client of that role, which may not fetch the document itself."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(sdk.get(f"{appliance.url}/openapi.json", cast_to=object)))
    token = appliance.token(appliance.create_client(f"schemathesis-{role}", "--role", role))
    return attack(appliance, token, folder, *options, "--include-path-regex", routes, document=str(file))


@pytest.mark.long
def test_the_api_is_what_its_document_says_in_every_corner(
    appliance: Appliance, access_token: str, tmp_path: Path
) -> None:
    """Every bound of every parameter, and a hundred requests to each route."""
    assert attack(appliance, access_token, tmp_path, "--max-examples", "100") > 1000


@pytest.mark.long
@pytest.mark.parametrize(("role", "routes"), ROLES)
def test_what_a_privileged_role_may_is_what_the_document_says_in_every_corner(
    appliance: Appliance, sdk: openai.OpenAI, tmp_path: Path, role: str, routes: str
) -> None:
    """Every phase, and a hundred requests to each of its routes."""
    assert attack_as(appliance, sdk, tmp_path, role, routes, "--max-examples", "100") > 100
