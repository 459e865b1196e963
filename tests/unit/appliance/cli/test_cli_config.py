"""`casemate config check` and `casemate config explain`, as an operator uses them."""

import os
from pathlib import Path

import pytest

from appliance.cli import config
from appliance.cli.main import main
from appliance.config.explain import render_markdown


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and a configuration that names it."""
    monkeypatch.delenv("CASEMATE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "casemate.toml").write_text('[[engines]]\nmodel_path = "model"\n')
    return tmp_path


@pytest.mark.parametrize("words", [[], ["casemate.toml"]])
def test_good_file_is_summed_up_with_what_it_lacks(
    site: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What would start, where, and without which protections."""
    assert main(["config", "check", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("casemate.toml: OK\n")
    assert f"model from {site}/model" in out
    assert "lacks       witness: " in out


def test_every_listener_that_is_switched_on_is_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who switches the console on reads where it will be."""
    assert main(["config", "check"]) == 0
    assert "console " not in capsys.readouterr().out
    with (site / "casemate.toml").open("a") as file:
        file.write("[administration]\nenabled = true\n[console]\nenabled = true\nport = 9446\n")
    assert main(["config", "check"]) == 0
    out = capsys.readouterr().out
    assert "  admin API   127.0.0.1:8445\n" in out
    assert "  console     127.0.0.1:9446\n" in out


def test_check_says_for_whom_it_was_judged(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root has users for each role where the user that serves may have none."""
    (site / "state").mkdir()
    assert main(["config", "check"]) == 0
    assert "judged for" not in capsys.readouterr().out
    monkeypatch.setattr(config, "_owner_of", lambda _state: 60_990)
    assert main(["config", "check"]) == 0
    assert f"judged for uid {os.geteuid()}, and uid 60990 has the state" in capsys.readouterr().out


def test_every_error_of_a_file_is_told_on_standard_error(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, line, key, what was expected and what came; exit code 1 for scripts."""
    (site / "casemate.toml").write_text('mod = "x"\n[gateway]\nport = 99999\n[[engines]]\nmodel_path = "model"\n')
    assert main(["config", "check"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "casemate: casemate.toml:1: mod: unknown key in the top level; the nearest known key is mode",
        "casemate: casemate.toml:3: gateway.port: expected integer, from 0 to 65535; got 99999",
    ]


def test_check_without_a_file_says_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file here is an error, not an empty success."""
    monkeypatch.delenv("CASEMATE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["config", "check"]) == 1
    assert "there is no casemate.toml here" in capsys.readouterr().err


def test_check_can_explain_every_effective_key(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values, where they were set, and the verdict at the end."""
    assert main(["config", "check", "--explain"]) == 0
    out = capsys.readouterr().out
    assert f'engines[0].model_path = "{site}/model"    (casemate.toml:2)' in out
    assert "gateway.port = 8443    (default)" in out
    assert "casemate.toml: OK" in out


def test_explain_shows_a_files_value_when_asked(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same words as without a file, with the value first."""
    assert main(["config", "explain", "engines.model_path", "--config", "casemate.toml"]) == 0
    assert capsys.readouterr().out.startswith(f'engines[0].model_path = "{site}/model"    (casemate.toml:2)\n')


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("gateway.prot", "did you mean gateway.port"),
        ("gatway.workers", "did you mean gateway.workers?"),
        ("nonsense", "lists all"),
    ],
)
def test_explain_of_no_key_is_refused(capsys: pytest.CaptureFixture[str], key: str, said: str) -> None:
    """A misspelt key is not an empty answer; one that is near is named."""
    assert main(["config", "explain", key]) == 1
    error = capsys.readouterr().err
    assert f"there is no key {key!r}" in error
    assert said in error


def test_markdown_is_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """What `make docs` writes."""
    assert main(["config", "explain", "--markdown"]) == 0
    assert capsys.readouterr().out == render_markdown()
