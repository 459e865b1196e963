"""From a release's files to `casemate verify-release` and `casemate advisories import`: the way of docs/building.md, by command."""

import json
import subprocess
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_OK, main
from appliance.statement.measuring import measure_software
from compliance.results import FORMAT
from image import evidence
from image.lock import WHEELS_LOCK
from security.supply_chain.components import parse_wheels_lock
from tests.support.evidence import make_results
from tests.support.stewardship import Holder


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image and its evidence, signed by `builder`; that folder's parent is the working directory."""
    Holder("builder").write(tmp_path)
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "casemate-cpu.tar").write_bytes(b"an image")
    (folder / evidence.RESULTS).write_bytes(make_results(software=f"sha256:{measure_software()}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["evidence", "dist", "--key", "builder.pem", "--commit", "c0ffee"])
    evidence.main()
    return folder


def test_release_is_verified_by_command(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it is made of, by whom, from which commit; a changed file is named."""
    assert main(["verify-release", "dist", "--key", "builder.pub"]) == EXIT_OK
    out = capsys.readouterr().out
    assert "good       4 files, made by urn:casemate:builder:make-image" in out
    assert "commit c0ffee" in out
    (release / "casemate-cpu.tar").write_bytes(b"another")
    assert main(["verify-release", "dist", "--key", "builder.pub"]) == EXIT_FAILED
    assert "casemate-cpu.tar: changed" in capsys.readouterr().err


def test_evidence_is_the_same_twice_but_for_the_signature(release: Path) -> None:
    """SBOM and VEX to the byte."""
    before = [(release / name).read_bytes() for name in (evidence.SBOM, evidence.VEX)]
    (release / evidence.PROVENANCE).unlink()
    evidence.main()
    assert [(release / name).read_bytes() for name in (evidence.SBOM, evidence.VEX)] == before


def test_results_that_show_nothing_make_no_release(release: Path) -> None:
    """None, of another build, of no test, with a failure, or without one that a control names."""
    (release / evidence.PROVENANCE).unlink()
    partly = json.loads(make_results(software=f"sha256:{measure_software()}"))
    partly["tests"].popitem()
    no_tests = json.dumps({"format": FORMAT, "software": f"sha256:{measure_software()}", "tests": {}}).encode()
    failed = ("tests/unit/audit/test_audit_fsck.py::test_damage_is_found_and_named",)
    for data, words in (
        (make_results(), "another build"),
        (no_tests, "shows nothing"),
        (json.dumps(partly).encode(), "is not of a whole run"),
        (make_results(software=f"sha256:{measure_software()}", failed=failed), "test_damage_is_found_and_named failed"),
    ):
        (release / evidence.RESULTS).write_bytes(data)
        with pytest.raises(SystemExit, match=words):
            evidence.main()
    (release / evidence.RESULTS).unlink()
    with pytest.raises(SystemExit, match="is missing"):
        evidence.main()


def test_a_skipped_test_is_told_when_a_release_is_made(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another platform may lack what it needs; what it shows is then not shown."""
    (release / evidence.PROVENANCE).unlink()
    skipped = "tests/unit/audit/test_audit_fsck.py::test_damage_is_found_and_named"
    data = make_results(software=f"sha256:{measure_software()}", skipped=(skipped,))
    (release / evidence.RESULTS).write_bytes(data)
    evidence.main()
    assert f"{skipped} was skipped" in capsys.readouterr().err


def sign_feed(place: Path, *documents: dict[str, object]) -> None:
    """A feed, signed with openssl as its curators do."""
    (place / "feed.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    command = ["openssl", "dgst", "-sha256", "-sign", "builder.pem", "-out", "feed.jsonl.sig", "feed.jsonl"]
    subprocess.run(command, cwd=place, check=True)


def test_feed_says_what_of_this_release_is_affected(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline; the exit status tells scripts; an altered feed is refused."""
    torch = next(one for one in parse_wheels_lock(WHEELS_LOCK.read_text()) if one.name == "torch")
    affected = {"package": {"ecosystem": "PyPI", "name": "torch"}, "versions": [torch.version.partition("+")[0]]}
    elsewhere = {"package": {"ecosystem": "npm", "name": "torch"}, "versions": ["1"]}
    sign_feed(release.parent, {"id": "GHSA-x", "affected": [affected]}, {"id": "GHSA-y", "affected": [elsewhere]})
    words = ["advisories", "import", "feed.jsonl", "--key", "builder.pub", "--release", "dist"]
    assert main(words) == EXIT_FAILED
    assert f"torch {torch.version}: GHSA-x" in capsys.readouterr().out
    assert main([*words, "--json"]) == EXIT_FAILED
    assert [match["purl"] for match in json.loads(capsys.readouterr().out)] == [torch.purl]
    (release.parent / "feed.jsonl").write_text("")
    assert main(words) == EXIT_FAILED
    assert "signed by none of the keys given, or altered" in capsys.readouterr().err
    sign_feed(release.parent, {"id": "GHSA-y", "affected": [elsewhere]})
    assert main(words) == EXIT_OK
