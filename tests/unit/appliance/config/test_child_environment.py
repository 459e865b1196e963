"""What of the environment reaches the processes."""

import ctypes.util
import shutil

import pytest

from appliance.config.child_environment import child_environment, gpu_environment, rank_environment


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


@pytest.mark.parametrize(
    ("shown", "expected"), [("", "2,3"), ("7,5,3,1", "3,1"), ("GPU-a,GPU-b,GPU-c,GPU-d", "GPU-c,GPU-d")]
)
def test_an_engine_is_shown_its_own_gpus(shown: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted among those that are shown to us, by number or by name."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert gpu_environment(2, 2) == {"CUDA_VISIBLE_DEVICES": expected}


@pytest.mark.parametrize(("rank", "expected"), [(0, "4,5,6"), (1, "5,4,6"), (2, "6,4,5")])
def test_each_rank_sees_its_own_gpu_first(rank: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So whatever it does is on GPU 0, and it reads its peers' memory on the others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = rank_environment(rank)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["LANG"]) == (expected, "C.UTF-8")


def test_a_rank_on_a_cpu_is_shown_what_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made up."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in rank_environment(1)
