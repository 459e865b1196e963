"""`casemate audit` as people call it: what is printed, and how it ends."""

import json
import re
import shutil
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.messages.audit import FetchReceipt, Receipt
from audit.append import LogWriter
from audit.entry import encode_canonical
from audit.events import log_event
from audit.receipt import AuditReceipt, ReceiptEntry, encode_receipt
from audit.rotation import load_predecessor, predecessor_event, rotate_log
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import Auditor, count, intent, outcome


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log with one request, published but for its last record; an earlier checkpoint; a receipt."""
    auditor = Auditor(tmp_path)
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.pass_time(1.0)
    shutil.copy(tmp_path / "log/checkpoint", tmp_path / "earlier")
    auditor.tell(gateway, intent())
    auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1))
    auditor.pass_time(1.0)
    auditor.tell(gateway, FetchReceipt(1, "req-1", "demo"))
    receipt = gateway.last(Receipt)
    entries = [
        ReceiptEntry(index=part.index, record=part.record.decode(), proof=part.proof) for part in (receipt.intent, receipt.outcome)
    ]  # fmt: skip
    document = AuditReceipt(intent=entries[0], outcome=entries[1], log_vkey=receipt.log_vkey)
    (tmp_path / "receipt.json").write_bytes(encode_receipt(document))
    auditor.tell(gateway, intent("req-2", 5))
    auditor.die()
    return tmp_path


def run(*words: object) -> int:
    return main(["audit", *map(str, words)])


def test_verify_without_an_earlier_checkpoint_does_not_exclude_a_rollback(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, with an exit status of its own, and reports what is not yet signed."""
    assert run("verify", home / "log", "--key", home / "log.vkey") == 3
    printed = capsys.readouterr().out
    assert "3 records" in printed
    assert "1 durable records behind the checkpoint, not yet signed" in printed
    assert printed.endswith(
        "consistent; rollback not excluded: give an earlier checkpoint, kept elsewhere, with --since, "
        "or the key of a witness with --witness\n"
    )


def test_verify_with_an_earlier_checkpoint_succeeds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key may be given as text."""
    key = (home / "log.vkey").read_text().strip()
    assert run("verify", home / "log", "--key", key, "--since", home / "earlier") == 0
    assert "extends the earlier checkpoint of 1 records" in capsys.readouterr().out


def test_verify_names_what_is_damaged(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the file; exit status 1."""
    bundle = home / "log/tile/entries/000.p/3"
    data = bytearray(bundle.read_bytes())
    data[100] ^= 1
    bundle.write_bytes(data)
    assert run("verify", home / "log", "--key", home / "log.vkey") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"casemate: {bundle}: entry 0 does not hash")
    assert told.err.count("\n") == 1


@control("AU-9(3)")
def test_verify_finds_a_rollback(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of an earlier day, with the checkpoint of today."""
    shutil.copy(home / "log/checkpoint", home / "today")
    shutil.copy(home / "earlier", home / "log/checkpoint")
    assert run("verify", home / "log", "--key", home / "log.vkey", "--since", home / "today") == 1
    assert "records were taken away" in capsys.readouterr().err


def write_log(home: Path, name: str) -> None:
    """A log of three records, which continues the one that was closed there."""
    predecessor = load_predecessor(home / "log")
    writer = LogWriter(home / "log", home / "log.key", origin=name)
    started = log_event("log_started", log_name=name, facts={})
    first = started if predecessor is None else predecessor_event(predecessor, name)
    for index, event in enumerate((first, started, started)):
        writer.append([encode_canonical(event | {"metadata": event["metadata"] | {"sequence": index}})])
    writer.commit()
    writer.publish()
    writer.close()


@control("AU-11", "AU-9(3)")
def test_verify_follows_a_log_to_those_that_it_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three logs, each the next of the other; every one is verified, and none may be left out or take another's place."""
    write_log(tmp_path, "log.example/one")
    one = rotate_log(tmp_path / "log", tmp_path / "log.key")[1]
    write_log(tmp_path, "log.example/two")
    two = rotate_log(tmp_path / "log", tmp_path / "log.key")[1]
    write_log(tmp_path, "log.example/three")
    command = ("verify", tmp_path / "log", "--key", tmp_path / "log.vkey", "--continues")
    assert run(*command, two, "--continues", one) == 3
    printed = capsys.readouterr().out
    assert "continues   log.example/two, all of its 3 records, signed by log.example/two+" in printed
    assert "continues   log.example/one, all of its 3 records, signed by log.example/one+" in printed
    assert run(*command, one) == 1
    said = f"casemate: {one}: is not what {tmp_path / 'log'} continues: note: no signature by log.example/two+"
    assert capsys.readouterr().err.startswith(said)
    assert run(*command, two, "--continues", one, "--continues", two) == 1
    assert "the first record does not name a log that this one continues" in capsys.readouterr().err
    bundle = two / "tile/entries/000.p/3"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b" ")
    assert run(*command, two) == 1
    assert f"{bundle}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "nothing", "--key", "log.vkey"),
        ("verify", "log", "--key", "missing.vkey"),
        ("verify", "log", "--key", "a+b+c"),
        ("verify", "log", "--key", "log.vkey", "--since", "missing"),
        ("prove", "0", "--dir", "nothing"),
        ("show", "0", "--dir", "nothing"),
        ("verify-receipt", "missing", "--key", "log.vkey"),
    ],
)
def test_wrong_usage_is_told(
    home: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2, and one line that names the thing."""
    monkeypatch.chdir(home)
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith("casemate: ")
    assert told.count("\n") == 1


def test_a_proof_is_printed_and_verifies_with_its_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `prove` and `show --raw` print is what `verify-receipt` takes."""
    assert run("prove", 1, "--dir", home / "log", "--key", home / "log.vkey", "-o", home / "proof") == 0
    record = json.loads((home / "receipt.json").read_text())["intent"]["record"]
    (home / "record").write_text(record)
    assert run("verify-receipt", home / "proof", "--record", home / "record", "--key", home / "log.vkey") == 0
    (home / "record").write_text(record.replace("demo", "omed"))
    assert run("verify-receipt", home / "proof", "--record", home / "record", "--key", home / "log.vkey") == 1
    assert run("verify-receipt", home / "proof", "--key", home / "log.vkey") == 2


def test_show_prints_records_published_and_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Indented JSON in ASCII."""
    for index, uid in ((1, "req-1"), (3, "req-2")):
        assert run("show", index, "--dir", home / "log") == 0
        record = json.loads(capsys.readouterr().out)
        assert record["unmapped"]["casemate"]["request_uid"] == uid


def test_what_is_not_there_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record to come, and one that is not yet under a checkpoint."""
    assert run("show", 99, "--dir", home / "log") == 1
    assert "no record 99" in capsys.readouterr().err
    assert run("prove", 3, "--dir", home / "log") == 1
    assert "not yet under a signed checkpoint" in capsys.readouterr().err
    assert run("prove", 99, "--dir", home / "log") == 1


def test_a_proof_without_a_key_warns(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed, and said what was not checked."""
    assert run("prove", 0, "--dir", home / "log") == 0
    told = capsys.readouterr()
    assert told.out.startswith("c2sp.org/tlog-proof@v1\nindex 0\n")
    assert "signature was not checked" in told.err


def test_a_receipt_is_verified_with_the_key_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And refused when a character was changed."""
    assert run("verify-receipt", home / "receipt.json", "--key", home / "log.vkey") == 0
    assert "verified: in the log" in capsys.readouterr().out
    text = (home / "receipt.json").read_text()
    (home / "receipt.json").write_text(text.replace("inference_outcome", "inference_Outcome"))
    assert run("verify-receipt", home / "receipt.json", "--key", home / "log.vkey") == 1
    assert "receipt.json" in capsys.readouterr().err


@control("3.3.6", "AC-2(12)", "AU-7", "AU-7(1)")
def test_records_are_found_by_who_and_what(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, newest first; the index is made on the way, outside of the log's folder."""
    words = ("search", "--dir", home / "log", "--index", home / "index.sqlite")
    assert run(*words, "--client", "demo") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["inference_outcome", "inference_intent"]
    assert lines[0].startswith("2 2026-11-")
    assert run(*words, "--client", "nobody") == 1
    assert re.fullmatch(r"casemate: none of \d+ records matches; .*\n", capsys.readouterr().err), "not silence"
    assert run(*words, "--since", "2027-01-01") == 1
    assert run(*words, "--kind", "inference_intent", "--until", "2027-01-01", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["sequence"] == 1


def test_a_time_that_is_none_is_wrong_usage(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message shows the form."""
    assert run("search", "--dir", home / "log", "--index", home / "i.sqlite", "--since", "yesterday") == 2
    assert "2026-11-25T14:30:00Z" in capsys.readouterr().err


def test_who_follows_a_log_is_told_that_another_has_begun(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait in silence until the next one has as many records."""
    monkeypatch.setattr(
        "appliance.cli.audit.searching.time.sleep", lambda _s: (home / "log").rename(home / "log-closed")
    )
    assert run("tail", "--dir", home / "log", "-f") == 1
    assert "another log has begun" in capsys.readouterr().err


def test_the_last_records_are_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as were asked for, of what a checkpoint covers."""
    assert run("tail", "--dir", home / "log", "-n", "2") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
