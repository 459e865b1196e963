"""SBOM, VEX and signed provenance for a release's files: what `casemate verify-release` verifies.

The folder must hold `control-results.json`, which `make test` writes there: how the tests of this very software ended that show
controls. A release without it, with that of another build, with a test that failed, or without one that a control names is none.
Tests of these that were skipped are told: what they show is not evidenced wherever this release runs.

Usage: python -m image.evidence FOLDER --key KEY [--commit COMMIT]
"""

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

from appliance.cli.signing_key import open_signer
from appliance.statement.measuring import measure_software
from compliance.loading import load_catalogues
from compliance.results import parse_results
from image.fetch import ROOT
from image.lock import DEBS_LOCK, WHEELS_LOCK, hash_file
from security.supply_chain.components import Component, parse_debs_lock, parse_wheels_lock
from security.supply_chain.evidence import PROVENANCE, SBOM, VEX, hash_release_files
from security.supply_chain.provenance import Provenance, dependencies_of, sign_provenance
from security.supply_chain.sbom import encode_sbom
from security.supply_chain.vex import VexStatement, encode_vex

RESULTS = "control-results.json"
VEX_SOURCE = ROOT / "image" / "vex.toml"
BUILDER = "urn:casemate:builder:make-image"


def find_components() -> list[Component]:
    """Every part of the CPU image that came as a file."""
    wheels = parse_wheels_lock(WHEELS_LOCK.read_text())
    return [*wheels, *parse_debs_lock(DEBS_LOCK.read_text())]


def read_statements() -> tuple[str, list[VexStatement]]:
    """When the statements were last reviewed, and the statements."""
    document = tomllib.loads(VEX_SOURCE.read_text())
    statements = [
        VexStatement(
            one["vulnerability"],
            tuple(one["products"]),
            one["status"],
            one.get("justification", ""),
            one.get("action", ""),
        )
        for one in document["statements"]
    ]
    return document["reviewed_at"], statements


def read_version() -> str:
    """The product's version."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def verify_results(data: bytes) -> None:
    """Check that the tests of this software ran and that none failed that shows a control."""
    results = parse_results(data)
    if results.software != f"sha256:{measure_software()}":
        raise SystemExit(f"{RESULTS}: is of another build: run `make test`")
    if not any(one.outcome == "passed" for one in results.tests.values()):
        raise SystemExit(f"{RESULTS}: shows nothing: run `make test`")
    if failed := sorted(test for test, one in results.tests.items() if one.outcome == "failed"):
        raise SystemExit(f"{RESULTS}: {failed[0]} failed")
    named = {test for one in load_catalogues().values() for control in one.controls.values() for test in control.tests}
    if missing := sorted(named - set(results.tests)):
        raise SystemExit(f"{RESULTS}: is not of a whole run, {missing[0]} is not in it: run `make test`")
    for test in sorted(test for test in named if results.tests[test].outcome == "skipped"):
        print(
            f"{RESULTS}: {test} was skipped: the controls that name it are not evidenced by this release",
            file=sys.stderr,
        )


def main() -> None:
    """Write the three files beside the release's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", required=True)
    parser.add_argument("--commit", default="")
    arguments = parser.parse_args()
    if not (arguments.folder / RESULTS).is_file():
        raise SystemExit(f"{arguments.folder / RESULTS}: is missing: run `make test`")
    verify_results((arguments.folder / RESULTS).read_bytes())
    components, version = find_components(), read_version()
    reviewed_at, statements = read_statements()
    (arguments.folder / SBOM).write_bytes(encode_sbom(Component("pypi", "casemate", version), components))
    vex = encode_vex(f"urn:casemate:vex:{version}", "Casemate's maintainers", reviewed_at, statements)
    (arguments.folder / VEX).write_bytes(vex)
    commit = arguments.commit or _run("git", "rev-parse", "HEAD")
    parameters = {
        "source_commit": commit,
        "dockerfile_sha256": hash_file(ROOT / "Dockerfile"),
        "wheels_lock_sha256": hash_file(WHEELS_LOCK),
        "debs_lock_sha256": hash_file(DEBS_LOCK),
        "target": "casemate-cpu",
    }
    provenance = Provenance(hash_release_files(arguments.folder), parameters, BUILDER, dependencies_of(components))
    with open_signer(arguments.key) as signer:
        (arguments.folder / PROVENANCE).write_bytes(sign_provenance(provenance, signer))


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
