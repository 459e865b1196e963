"""`casemate draft train`: options that cannot be meant, and a whole training of a tiny head through our own engine."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import safe_open

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from appliance.config.defaults import DEMO_MODEL_DIR


@pytest.fixture(autouse=True)
def _plain_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that is configured keeps the standard error of the test that used it first."""
    monkeypatch.setattr("appliance.cli.draft.configure_logging", lambda _: None)


def words(folder: Path, *options: str, prompts: str = '{"prompt": [5, 6, 7], "held_out": false}') -> list[str]:
    """The command line over a file of prompts."""
    path = folder / "prompts.jsonl"
    path.write_text(prompts)
    named = ["--model", str(DEMO_MODEL_DIR), "--prompts", str(path), "--out", str(folder / "head")]
    return ["draft", "train", *named, "--layers", "2", "3", "5", *options]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "--epochs: expected at least 1"),
        (["--draft-vocab", "-1"], "--draft-vocab: expected at least 1"),
        (["--sampled-share", "1.5"], "--sampled-share"),
        (["--temperature", "0"], "--temperature"),
        (["--decay", "0"], "--decay"),
        (["--layers", "1", "3", "7"], "--layers: expected numbers from 1 to 6"),
        (["--layers", "1", "3", "3"], "--layers: expected three different ones, ascending, found [1, 3, 3]"),
        (["--layers", "5", "3", "1"], "--layers: expected three different ones, ascending, found [5, 3, 1]"),
        (["--max-tokens", "2048"], "--max-tokens"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_option_that_cannot_be_meant_is_named(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is loaded."""
    assert main(words(tmp_path, *options)) == EXIT_FAILED
    assert said in capsys.readouterr().err


def test_bad_prompts_and_wrong_models_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line of the file; the file of the model."""
    assert main(words(tmp_path, prompts='{"prompt": 3}')) == EXIT_FAILED
    assert "prompts.jsonl:1: " in capsys.readouterr().err
    (tmp_path / "prompts.jsonl").unlink()
    command = words(tmp_path)
    command[command.index("--model") + 1] = str(tmp_path)
    assert main(command) == EXIT_MISCONFIGURED
    assert "config.json" in capsys.readouterr().err
    command = words(tmp_path)
    command[command.index("--prompts") + 1] = str(tmp_path / "absent")
    assert main(command) == EXIT_FAILED
    assert "absent" in capsys.readouterr().err


def test_layers_that_must_be_named_are_asked_for_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of six layers has no usual three: before hours of answers, not after them."""
    command = words(tmp_path)
    del command[command.index("--layers") :]
    assert main(command) == EXIT_MISCONFIGURED
    assert "a model of 6 layers has no three default places" in capsys.readouterr().err
    assert not (tmp_path / "head.state").exists()


def test_disk_that_is_too_small_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How much is needed and how much there is, before hours of answers."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    assert main(words(tmp_path)) == EXIT_FAILED
    assert "GB are needed for head and state, 0.0 GB are free" in capsys.readouterr().err


def test_head_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds a head of before is left alone."""
    (tmp_path / "head").mkdir()
    (tmp_path / "head/model.safetensors").write_bytes(b"")
    assert main(words(tmp_path)) == EXIT_FAILED
    assert "holds a head" in capsys.readouterr().err


def test_trains_a_head_for_the_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From prompts to a head with its report; the state is gone, and the table names the kinds."""
    lines = [
        {"messages": [{"role": "user", "content": f"What is {number} plus 2?"}], "kind": "sum", "held_out": number == 3}
        for number in range(1, 4)
    ]
    options = "--layers 1 3 5 --draft-vocab 64 --intermediate-size 16 --unroll 2 --epochs 1 --max-tokens 6 --drafts 3"
    command = words(tmp_path, *options.split(), prompts="\n".join(map(json.dumps, lines)))
    assert main(command) == EXIT_OK
    told = capsys.readouterr()
    assert "| sum | 1 |" in told.out
    assert "training answers" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head", "prompts.jsonl"]
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == [
        "config.json",
        "model.safetensors",
        "report.json",
    ]
    report = json.loads((tmp_path / "head/report.json").read_text())
    assert [figures["kind"] for figures in report["held_out"]] == ["sum", "all"]
    assert len(report["held_out"][0]["acceptance_by_position"]) == 3
    with safe_open(tmp_path / "head/model.safetensors", framework="np") as held:
        assert held.get_slice("t2d").get_shape() == [2048]
