"""`casemate compliance` by command: a pack from a state folder, verified with two public keys; what is missing, in words."""

import json
import shutil
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.cli.main import EXIT_FAILED, EXIT_OK, EXIT_ROLLBACK_NOT_EXCLUDED, EXIT_USAGE, main
from appliance.statement.measuring import measure_software
from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner
from audit.courier import add_cosignatures, merge_cosigned
from audit.entry import complete_entry, encode_event, parse_canonical
from audit.note import SignedNote, encode_note, encode_signature, parse_note
from audit.reader import LogReader
from audit.rotation import predecessor_event, rotate_log
from audit.settings import DEFAULT_ORIGIN
from audit.signing_key import load_signer
from compliance.settings import DEFAULT_SIGNER
from tests.support import synthetic_logs
from tests.support.controls import control
from tests.support.evidence import FIRST_MS, MONTH_MS, make_results

DEMO_MODEL = Path(__file__).parents[4] / "appliance" / "demo" / "model"


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and a state that has a log; not to be changed."""
    home = tmp_path_factory.mktemp("stateful")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_logs, "ORIGIN", DEFAULT_ORIGIN)
        (home / "state").mkdir()
        synthetic_logs.write_log(home / "state" / "audit", 300, first_ms=FIRST_MS, last_ms=FIRST_MS + MONTH_MS - 1)
    (home / "casemate.toml").write_text(f'state_dir = "state"\n[[engines]]\nmodel_path = "{DEMO_MODEL}"\n')
    (home / "results.json").write_bytes(make_results(software=f"sha256:{measure_software()}"))
    return home


@pytest.fixture
def home(stateful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    shutil.copytree(stateful, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


WORDS = ["compliance", "export", "--framework", "cmmc-l2", "--from", "2026-01-01", "--to", "2026-01-31"]
KEYS = ["--key", "state/audit/log.vkey", "--signer", "state/compliance/evidence.vkey"]


def test_a_pack_is_made_verified_and_recorded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is made at the first export; that evidence was taken is left for the log."""
    assert main([*WORDS, "--out", "pack", "--test-results", "results.json"]) == EXIT_OK
    out = capsys.readouterr().out
    assert "CMMC 2.0 level 2" in out
    assert f"signed by   {DEFAULT_SIGNER}+" in out
    assert main(["compliance", "verify", "pack", *KEYS]) == EXIT_OK
    assert "verified: signed, whole" in capsys.readouterr().out
    (notice,) = (home / "state" / "outbox").glob("*.json")
    told = json.loads(notice.read_text())
    assert (told["kind"], told["facts"]["framework"], told["facts"]["end"]) == ("log_exported", "cmmc-l2", 300)


@pytest.mark.parametrize(
    "words", [[*WORDS, "--out", "taken"], ["audit", "export", "taken", "--dir", "state/audit/log", "--to", "9"]]
)
def test_what_cannot_be_recorded_does_not_verify(home: Path, words: list[str]) -> None:
    """Neither a pack nor an export of which no word could be left for the log."""
    outbox = home / "state" / "outbox"
    outbox.write_text("in its place")
    assert main(words) != EXIT_OK
    assert list(Path("taken").iterdir())
    assert not Path("taken", "manifest.json").exists()
    outbox.unlink()
    Path("taken").rename("failed")
    assert main(words) == EXIT_OK
    assert Path("taken", "manifest.json").exists()


def test_two_exports_told_the_same_time_are_equal(home: Path) -> None:
    """To the byte."""
    for name in ("one", "two"):
        assert main([*WORDS, "--at", "2026-02-01T12:00:00Z", "--out", name]) == EXIT_OK
    one, two = (
        {path.relative_to(name).as_posix(): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two


def test_a_pack_is_made_again_after_the_log_went_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Framework, period, time and tree are the pack's own; the bytes are the same."""
    assert main([*WORDS, "--out", "one", "--records"]) == EXIT_OK
    writer = LogWriter(Path("state/audit/log"), Path("state/audit/log.key"), origin=DEFAULT_ORIGIN)
    writer.append([b'{"time":%d}' % (FIRST_MS + 2 * MONTH_MS)])
    writer.commit()
    writer.publish()
    writer.close()
    assert main(["compliance", "export", "--again", "one", "--out", "two"]) == EXIT_OK
    one, two = (
        {path.relative_to(name).as_posix(): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two
    capsys.readouterr()
    assert main(["compliance", "verify", "two", *KEYS]) == EXIT_OK
    assert "without --witness it is not excluded that the log was told anew" in capsys.readouterr().out


def rotate(home: Path) -> Path:
    """Close the log in the middle of February, and begin the next with the record that names it. Gives the closed log's folder."""
    audit = home / "state" / "audit"
    predecessor, closed = rotate_log(audit / "log", audit / "log.key")
    event = parse_canonical(encode_event(predecessor_event(predecessor, "log.example/next")))
    time_ms = FIRST_MS + MONTH_MS + MONTH_MS // 2
    first = complete_entry(
        event, index=0, time_ms=time_ms, reporter="auditor", log_name="log.example/next", random=bytes(16)
    )
    writer = LogWriter(audit / "log", audit / "log.key", origin="log.example/next")
    writer.append([first])
    writer.commit()
    writer.publish()
    writer.close()
    return closed


def export_words(framework: str, *, begin: str = "2026-01-01", out: str = "pack") -> list[str]:
    """The command line of a pack up to March."""
    return f"compliance export --framework {framework} --from {begin} --to 2026-03-01 --out {out}".split()


def test_a_pack_says_what_of_its_period_is_in_another_log(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the first record, which is proven: whoever takes 0 requests for all that were asked is told, and so is who verifies."""
    rotate(home)
    words = export_words("cmmc-l2")
    assert main(words) == EXIT_OK
    told = f"continues the log {DEFAULT_ORIGIN} of 300 records"
    assert told in capsys.readouterr().out
    assert told in Path("pack/report.html").read_text()
    results = json.loads(Path("pack/oscal/assessment-results.json").read_bytes())["assessment-results"]["results"]
    assert told in results[0]["remarks"]
    assert main(["compliance", "verify", "pack", *KEYS]) == EXIT_ROLLBACK_NOT_EXCLUDED
    assert told in capsys.readouterr().out
    assert main(export_words("cmmc-l2", begin="2026-02-15", out="later")) == EXIT_OK
    assert "not covered" not in capsys.readouterr().out, "the log is older than that"


def test_a_log_that_was_closed_has_a_pack_of_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own key, with the witnesses' last word on it; and it says that another one goes on."""
    note = LogReader(Path("state/audit/log")).checkpoint_note()
    witness = Cosigner("witness.example/1", Ed25519PrivateKey.generate())
    line = encode_signature(witness.cosign(parse_note(note).text, FIRST_MS // 1000)).encode()
    merge_cosigned(Path("state/audit"), add_cosignatures(note, line, [witness.key]))
    closed = rotate(home)
    words = export_words("eu-ai-act")
    assert main([*words, "--log", str(closed)]) == EXIT_OK
    assert "what came later is in the log that continues it" in capsys.readouterr().out
    keys = ["--key", str(closed.with_suffix(".vkey")), *KEYS[2:], "--witness", witness.key.encode()]
    assert main(["compliance", "verify", "pack", *keys]) == EXIT_OK
    assert main(["compliance", "export", "--again", "pack", "--log", str(closed), "--out", "again"]) == EXIT_OK
    assert Path("again/manifest.json").read_bytes() == Path("pack/manifest.json").read_bytes()
    assert main([*words[:-1], "none", "--log", "nowhere"]) == EXIT_FAILED


@control("AU-10", "3.3.8")
@pytest.mark.parametrize(
    ("num_cosigned", "ahead_s", "status", "words"),
    [
        (300, 0, EXIT_OK, "cosigned the first 300 records"),
        (200, 0, EXIT_ROLLBACK_NOT_EXCLUDED, "not covered: records 200 to 299 came after the witnesses' word"),
        (
            300,
            86_400,
            EXIT_ROLLBACK_NOT_EXCLUDED,
            "not covered: every witness gave its word at a time that has not come",
        ),
    ],
    ids=["all", "some", "to come"],
)
def test_what_the_witnesses_word_does_not_cover_is_said(
    home: Path, num_cosigned: int, ahead_s: int, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a status of its own: those records can have been told anew, or the word is worth nothing."""
    audit = Path("state/audit")
    cosigner = Cosigner("witness.example/w", Ed25519PrivateKey.generate())
    with (home / "casemate.toml").open("a") as file:
        file.write(f'[audit]\nwitnesses = ["{cosigner.key.encode()}"]\n')
    signer = load_signer(audit / "log.key", DEFAULT_ORIGIN)
    text = Checkpoint(DEFAULT_ORIGIN, num_cosigned, LogReader(audit / "log").root(num_cosigned, 300)).encode()
    word = cosigner.cosign(text, int(time.time()) + ahead_s)
    (audit / "cosigned").write_bytes(encode_note(SignedNote(text, (signer.sign_alone(text), word))))
    assert main([*WORDS, "--out", "pack"]) == EXIT_OK
    assert main(["compliance", "verify", "pack", *KEYS, "--witness", cosigner.key.encode()]) == status
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--again", "pack", "--from", "2026-01-01"], EXIT_USAGE, "--again takes framework, period"),
        (["--again", "state"], EXIT_FAILED, "manifest.json: is missing"),
        (["--from", "2026-01-01"], EXIT_USAGE, "name --framework and --from"),
    ],
)
def test_a_pack_is_about_what_is_asked_or_what_another_is_about(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    """One of the two, and in one line."""
    assert main(["compliance", "export", *words, "--out", "new"]) == status
    assert message in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_changed_pack_fails_and_the_file_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    main([*WORDS, "--out", "pack"])
    with Path("pack/report.html").open("ab") as file:
        file.write(b" ")
    capsys.readouterr()
    assert main(["compliance", "verify", "pack", *KEYS]) == EXIT_FAILED
    assert capsys.readouterr().err == "casemate: pack/report.html: is not what the manifest says\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--from", "soon"], EXIT_USAGE, "expected a date"),
        (["--from", "2026-03-01"], EXIT_FAILED, "is no period"),
        (["--from", "2020-01-01", "--to", "2020-02-01"], EXIT_FAILED, "the log has no record from 2020-01-01"),
        (["--out", "state"], EXIT_USAGE, "state: exists already"),
        (["--test-results", "casemate.toml"], EXIT_FAILED, "test results"),
        (["--statements", "results.json"], EXIT_FAILED, "statements"),
        (["--config", "nowhere.toml"], 78, "nowhere.toml"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    """One clear line."""
    assert main([*WORDS, "--out", "pack", *words]) == status
    assert message in capsys.readouterr().err
    assert not Path("pack").exists()


def test_without_a_log_there_is_no_pack(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And it says what makes one."""
    shutil.rmtree("state")
    assert main([*WORDS, "--out", "pack"]) == EXIT_FAILED
    assert "there is no log" in capsys.readouterr().err


def test_gaps_are_told_with_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing here: no witness, one person, no validated module; whose controls want it; and it fails."""
    assert main(["compliance", "gaps", "--framework", "800-53-high", "--test-results", "results.json"]) == EXIT_FAILED
    out = capsys.readouterr().out
    for words in ("a witness under another administrator", "audit.witnesses names none", "privileged roles need two people",
                  "Set policy.two_person_grants = true.", "SC-13", "AU-9(3)"):  # fmt: skip
        assert words in out
    assert "results of the tests" not in out


def test_gaps_for_scripts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in JSON; results of another build are none."""
    Path("other.json").write_bytes(make_results())
    words = ["compliance", "gaps", "--framework", "cmmc-l2", "--json", "--test-results"]
    assert main([*words, "other.json"]) == EXIT_FAILED
    told = json.loads(capsys.readouterr().out)
    assert told["has_test_results"] is False
    assert told["not_met_by_product"] == ["SC.L2-3.13.11"]
    assert "witness" in [gap["name"] for gap in told["gaps"]]
    assert main([*words, "results.json"]) == EXIT_FAILED
    assert json.loads(capsys.readouterr().out)["has_test_results"] is True


def test_nothing_missing_ends_well(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A framework whose facts hold, with results of this build."""
    assert main(["compliance", "gaps", "--framework", "eu-ai-act", "--test-results", "results.json"]) == EXIT_OK
    assert "0 facts are missing" in capsys.readouterr().out


def test_a_test_that_was_skipped_is_a_gap(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With how it ended and whose evidence it is; whoever asks by script is told the same."""
    skipped = "tests/unit/audit/test_audit_export.py::test_an_export_is_whole_and_verifies"
    Path("skipped.json").write_bytes(make_results(software=f"sha256:{measure_software()}", skipped=(skipped,)))
    words = ["compliance", "gaps", "--framework", "eu-ai-act", "--test-results", "skipped.json"]
    assert main(words) == EXIT_FAILED
    assert f"a pass of {skipped} (skipped)" in capsys.readouterr().out
    assert main([*words, "--json"]) == EXIT_FAILED
    (told,) = json.loads(capsys.readouterr().out)["tests_not_passed"]
    assert told == {"test": skipped, "outcome": "skipped", "controls": ["Article 19(1)", "Article 26(6)"]}


def test_keys_and_files_can_be_configured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The signing key, its name, the results, the statements."""
    main([*WORDS, "--out", "first"])
    (home / "state" / "compliance" / "evidence.key").rename(home / "own.key")
    (home / "said.toml").write_text('[statements."3.10.1"]\nstatus="met"\nby="us"\non=2026-01-01\nevidence="e"\n')
    text = '[compliance]\nsigning_key = "own.key"\nsigning_name = "house.example/evidence"\n'
    text += 'test_results = "results.json"\nstatements = "said.toml"\n'
    Path("casemate.toml").write_text(Path("casemate.toml").read_text() + text)
    capsys.readouterr()
    assert main([*WORDS, "--out", "second"]) == EXIT_OK
    captured = capsys.readouterr()
    assert "signed by   house.example/evidence+" in captured.out
    assert captured.err == ""
    assert {"software/control-results.json", "statements.toml"} <= {
        path.relative_to("second").as_posix() for path in Path("second").rglob("*")
    }
