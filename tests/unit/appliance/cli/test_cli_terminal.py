r"""Nothing that others wrote reaches a terminal as anything but printable characters."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.audit.arguments import print_event, write_private_output
from appliance.cli.audit.searching import describe_record
from appliance.cli.definitions import tabulate
from appliance.cli.main import main
from appliance.cli.terminal import escape_json, escape_text, say
from audit.append import LogWriter
from audit.entry import encode_canonical
from audit.events import log_event
from tests.support.controls import control

HOSTILE = "a\x9b2J\x7f\u202egnp.exe\u2066\x1b[1A \U000e0041é"
"""A C1 control that clears the screen, DEL, an override, an isolate, a C0 sequence, a tag character; and a letter."""


@given(st.text())
def test_escaped_json_is_equal_json_in_printable_ascii(text: str) -> None:
    """Also of half a surrogate pair, and outside the basic plane."""
    written = json.dumps({text: text}, ensure_ascii=False)
    escaped = escape_json(written)
    assert json.loads(escaped) == {text: text}
    assert escaped.isascii()
    assert escaped.isprintable()


@given(st.text())
def test_an_escaped_line_is_printable_and_one_line(text: str) -> None:
    """Letters stay what they are."""
    assert escape_text(text).isprintable()
    assert len(escape_text(text).splitlines()) <= 1
    letters = "".join(char for char in text if unicodedata.category(char).startswith("L"))
    assert escape_text(letters) == letters


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log whose only record names somebody hostile."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/terminal")
    event = log_event("log_searched", log_name="log.example/terminal", facts={"actor": HOSTILE})
    event |= {"metadata": event["metadata"] | {"sequence": 0}, "actor": {"user": {"uid": HOSTILE}}}
    writer.append([encode_canonical(event)])
    writer.commit()
    writer.publish()
    writer.close()
    return tmp_path / "log"


@control("AU-7")
@pytest.mark.parametrize(
    "words",
    [("tail", "--json"), ("tail",), ("search", "--json"), ("search",), ("show", "0"), ("show", "0", "--raw")],
    ids=" ".join,
)
def test_a_record_cannot_move_an_auditors_cursor(
    log: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever command prints it; and nothing of what it says is lost."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["audit", *words, "--dir", str(log)]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.replace("\n", "").isprintable()
    assert "\\u202egnp.exe" in printed
    if "--json" in words or words[0] == "show":
        assert json.loads(printed)["actor"]["user"]["uid"] == HOSTILE


def test_raw_into_a_pipe_is_what_is_hashed(log: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Escapes would hash to something else."""
    assert main(["audit", "show", "0", "--raw", "--dir", str(log)]) == 0
    assert "\u202egnp.exe".encode() in capfdbinary.readouterr().out


def test_an_opened_body_cannot_either(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not even be JSON, nor UTF-8."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_private_output(HOSTILE.encode() + b"\xff\n", None)
    assert capsys.readouterr().out == "a\\u009b2J\\u007f\\u202egnp.exe\\u2066\\u001b[1A \\udb40\\udc41\\u00e9\\xff\n"


def test_lines_for_people_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Events, tables, and words of a message."""
    print_event({"name": HOSTILE})
    print(tabulate([("ID", "NAME"), ("c1", HOSTILE)]))
    say(HOSTILE)
    assert main(["nothing\x9b2J"]) == 2
    told = capsys.readouterr()
    assert (told.out + told.err).replace("\n", "").isprintable()


def test_a_name_is_one_word_of_its_line() -> None:
    """A name with spaces in it cannot pretend to be a name, a model and how it ended."""
    event = {"actor": {"user": {"uid": "ada llama success"}}, "unmapped": {"casemate": {"kind": "token_issued"}}}
    assert describe_record(event) == '? ? token_issued "ada llama success"'
