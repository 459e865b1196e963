"""`casemate calibrate`: options that cannot be meant, and a file that the engine then serves with."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.inference.model import load_model
from runtime.settings import EngineSettings


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose logging was configured; loggers stay as the other tests of this process have them."""
    names: list[str] = []
    monkeypatch.setattr("appliance.cli.calibrate.configure_logging", names.append)
    return names


def words(folder: Path, *options: str, prompts: str = '{"prompt": [5, 6, 7]}') -> list[str]:
    """The command line over a file of prompts."""
    path = folder / "prompts.jsonl"
    path.write_text(prompts)
    return [
        "calibrate", "--model", str(DEMO_MODEL_DIR), "--prompts", str(path), "--out", str(folder / "scales.json"), *options,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "prompts", "said"),
    [
        (["--percentile", "0"], '{"prompt": [5]}', "--percentile: expected more than 0"),
        (["--percentile", "101"], '{"prompt": [5]}', "--percentile"),
        (["--threads", "0"], '{"prompt": [5]}', "--threads: expected at least 1"),
        ([], "", "holds no prompt"),
        ([], '{"prompt": 3}', "prompts.jsonl:1"),
        ([], '{"prompt": [999999]}', "token 999999 is not among the model's"),
    ],
)
def test_what_cannot_be_meant_is_named(
    options: list[str], prompts: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and no file."""
    assert main(words(tmp_path, *options, prompts=prompts)) == EXIT_FAILED
    assert said in capsys.readouterr().err
    assert not (tmp_path / "scales.json").exists()


def test_no_file_is_written_over_and_a_wrong_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that is in the way; the file of the model that is missing."""
    (tmp_path / "scales.json").write_text("mine")
    assert main(words(tmp_path)) == EXIT_FAILED
    assert "scales.json exists" in capsys.readouterr().err
    assert (tmp_path / "scales.json").read_text() == "mine"
    (tmp_path / "scales.json").unlink()
    command = words(tmp_path)
    command[command.index("--model") + 1] = str(tmp_path)
    assert main(command) == EXIT_MISCONFIGURED
    assert "config.json" in capsys.readouterr().err


def test_scales_of_the_demo_model_serve_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], configured: list[str]
) -> None:
    """From prompts to a file that says how it was made, and an engine over it that has nothing to warn of.

    Logging is configured, so that the log goes to standard error and the table alone to standard output.
    """
    lines = [{"messages": [{"role": "user", "content": f"What is {number} plus 2?"}]} for number in range(3)]
    assert main(words(tmp_path, prompts="\n".join(map(json.dumps, lines)))) == EXIT_OK
    told = capsys.readouterr()
    assert configured == ["calibrate"]
    assert "| 0 | " in told.out
    assert "of 3 prompts, SHA-256 " in told.out
    document = json.loads((tmp_path / "scales.json").read_text())
    assert document["calibration"]["statistic"] == "amax"
    assert document["calibration"]["num_prompts"] == 3
    assert len(document["kv_cache"]["k_scale"]) == 6
    settings = EngineSettings(
        model_path=str(DEMO_MODEL_DIR), kv_cache_dtype="fp8_e4m3", max_total_tokens=256, context_length=256,
        quantization_param_path=str(tmp_path / "scales.json"),
    )  # fmt: skip
    calibrated = load_model(settings, "demo", progress=lambda: None)
    assert not calibrated.facts.has_unscaled_cache
    assert calibrated.runner.cache.scales is not None
    assert calibrated.runner.cache.scales[:, 0].tolist() == pytest.approx(document["kv_cache"]["k_scale"])
    plain = EngineSettings(
        model_path=str(DEMO_MODEL_DIR), kv_cache_dtype="fp8_e4m3", max_total_tokens=256, context_length=256
    )
    unscaled = load_model(plain, "demo", progress=lambda: None)
    assert unscaled.facts.has_unscaled_cache
    assert unscaled.facts.engine_build != calibrated.facts.engine_build
