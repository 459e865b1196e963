"""What of the environment reaches the processes."""

import ctypes.util
import shutil

import pytest

from appliance.config.child_environment import child_environment


def test_only_named_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that nobody named here configures nothing; the working folder is never imported from."""
    monkeypatch.setenv("CASEMATE_SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = child_environment(is_confined=False)
    assert "CASEMATE_SECRET" not in environment
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["UV_USE_IO_URING"] == "0"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"


def test_a_confined_process_is_told_of_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a library that looks for one with `ctypes` goes on without, instead of making a file for the compiler."""
    monkeypatch.setenv("PATH", child_environment(is_confined=True)["PATH"])
    assert shutil.which("cc") is None
    assert shutil.which("sh") is None

    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise FileNotFoundError("no temporary folder")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    ctypes.util.find_library("a-library-that-is-not-there")
