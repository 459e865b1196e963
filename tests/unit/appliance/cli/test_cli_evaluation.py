"""`casemate eval quant`: a table for the demo model in FP8, and options that cannot be meant."""

import json
import re
import shutil
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_OK, main
from appliance.config.defaults import DEMO_MODEL_DIR

TEXT = "Casemate is an appliance that serves language models. " * 6


@pytest.fixture(autouse=True)
def _plain_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that is configured keeps the standard error of the test that used it first."""
    monkeypatch.setattr("appliance.cli.evaluation.configure_logging", lambda _: None)


def words(folder: Path, *options: str, text: bytes = TEXT.encode()) -> list[str]:
    """The command line over a text."""
    path = folder / "text.txt"
    path.write_bytes(text)
    return ["eval", "quant", "--model", str(DEMO_MODEL_DIR), "--text", str(path), *options]


def test_table_of_the_demo_model_in_fp8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounding to e4m3 costs something and not much; one question of each kind is answered by both forms."""
    assert main(words(tmp_path, "--window", "64", "--max-tokens", "100", "--demo-tasks", "200")) == EXIT_OK
    told = capsys.readouterr()
    assert "98 tokens of" in told.out
    agreement = re.search(r"\| top-1 agreement \|  \| ([0-9.]+) % \|", told.out)
    divergence = re.search(r"\| KL divergence, mean \|  \| ([0-9.]+) \|", told.out)
    assert agreement is not None
    assert divergence is not None
    assert 80 < float(agreement[1]) <= 100
    assert 1e-5 < float(divergence[1]) < 0.2
    assert re.search(r"\| arithmetic, right of 1 \| [01] \| [01] \|", told.out)
    assert "quantized tasks" in told.err


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        (["--window", "1"], TEXT.encode(), "--window: expected 2 to the model's 2048"),
        (["--window", "4096"], TEXT.encode(), "--window"),
        (["--demo-tasks", "-1"], TEXT.encode(), "--demo-tasks at 1"),
        ([], b"\xff\xfe", "not UTF-8"),
        ([], b"", "at least 2 are needed"),
        (["--quantized", str(DEMO_MODEL_DIR)], TEXT.encode(), "is not quantized"),
    ],
    ids=("window 1", "window too wide", "tasks", "bytes", "empty", "not quantized"),
)
def test_what_cannot_be_meant_is_named(
    options: list[str], text: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is computed."""
    assert main(words(tmp_path, *options, text=text)) == EXIT_FAILED
    assert said in capsys.readouterr().err


def test_a_model_of_short_texts_is_read_in_short_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to say a window to be understood."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    command = words(tmp_path, "--max-tokens", "100")
    command[command.index("--model") + 1] = str(folder)
    assert main(command) == EXIT_OK
    assert "98 tokens of" in capsys.readouterr().out


def test_quantized_checkpoint_is_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of two quantized forms would say nothing."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}
    (folder / "config.json").write_text(json.dumps(config))
    command = words(tmp_path)
    command[command.index("--model") + 1] = str(folder)
    assert main(command) == EXIT_FAILED
    assert "is no reference" in capsys.readouterr().err
