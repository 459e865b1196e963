"""`casemate bench speculative` over the demo model and its head."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, main
from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.drafting import tuning

HEAD = DEMO_MODEL_DIR.parent / "head"
PROMPT = '{"messages": [{"role": "user", "content": "What is 3 plus 2?"}]}'


@pytest.fixture(autouse=True)
def untouched_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers stay as the other tests of this process have them."""
    monkeypatch.setattr("appliance.cli.bench_speculation.configure_logging", lambda _: None)


def words(folder: Path, *options: str, prompts: str = PROMPT, head: Path = HEAD) -> list[str]:
    """The command line over a file of prompts."""
    path = folder / "prompts.jsonl"
    path.write_text(prompts)
    return [
        "bench", "speculative", "--model", str(DEMO_MODEL_DIR), "--head", str(head), "--prompts", str(path), *options,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "prompts", "said"),
    [
        (["--steps", "0"], PROMPT, "--steps: expected at least 1, found 0"),
        (["--batch-sizes", "1", "-3"], PROMPT, "--batch-sizes: expected at least 1, found -3"),
        (["--temperature", "-1"], PROMPT, "--temperature"),
        (["--steps", "3", "--draft-tokens", "9"], PROMPT, "skipped: 3 steps, top-k 1, 9 tokens: speculative_num_draft"),
        (["--steps", "3", "--draft-tokens", "9"], PROMPT, "the engine refuses every combination"),
        (["--steps", "3", "--topk", "17"], PROMPT, "Expected `int` <= 16 - at `$.speculative_eagle_topk`"),
        (["--steps", "16"], PROMPT, "Expected `int` <= 15 - at `$.speculative_num_steps`"),
        ([], '{"prompt": 3}', "prompts.jsonl:1"),
    ],
)
def test_what_cannot_be_meant_is_named(
    options: list[str], prompts: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model is read."""
    assert main(words(tmp_path, *options, prompts=prompts)) == EXIT_FAILED
    assert said in capsys.readouterr().err


def test_a_folder_that_holds_no_head_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option, and the file that is missing."""
    assert main(words(tmp_path, "--steps", "1", "--batch-sizes", "1", head=tmp_path)) == EXIT_MISCONFIGURED
    assert "config.json" in capsys.readouterr().err


def test_the_table_and_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain decoding and two chains at two sizes, one loaded model; what to write names the head."""
    options = ["--steps", "1", "3", "--batch-sizes", "1", "2", "--answers", "2", "--max-tokens", "12"]
    assert main(words(tmp_path, *options)) == EXIT_OK
    told = capsys.readouterr()
    assert len([line for line in told.out.splitlines() if line.startswith(("| 1 |", "| 2 |"))]) == 6
    assert "batch size 2: " in told.out
    assert "6 of 6: batch size 2, 3 steps" in told.err
    assert told.err.count("loading the model") == 1
    pays = 'speculative_algorithm = "EAGLE3"' in told.out
    assert pays or "leave speculative_algorithm out" in told.out


def test_every_tree_has_a_loaded_model_of_its_own_where_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a GPU: one table all the same, each batch size's lines together, with one line of plain decoding."""
    monkeypatch.setattr(tuning, "runs_on_reference", lambda _settings: False)
    options = [
        "--steps",
        "2",
        "--topk",
        "1",
        "2",
        "--draft-tokens",
        "3",
        "4",
        "--batch-sizes",
        "2",
        "1",
        "--answers",
        "2",
        "--max-tokens",
        "12",
    ]
    assert main(words(tmp_path, *options, "--answers", "2", "--max-tokens", "12")) == EXIT_OK
    told = capsys.readouterr()
    rows = [line.split("|")[1:5] for line in told.out.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [
        [size, steps] for size in "21" for steps in ["plain", "2", "2", "2"]
    ]
    assert [row[2].strip() + row[3].strip() for row in rows] == ["", "13", "23", "24"] * 2
    assert told.err.count("loading the model") == 3
    assert "12 of 12: " in told.err


def test_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One a measurement, then the best; a head that was trained for this model has drafts accepted."""
    options = ["--json", "--steps", "3", "--batch-sizes", "1", "--answers", "2", "--max-tokens", "24"]
    assert main(words(tmp_path, *options)) == EXIT_OK
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    plain, chain, last = map(json.loads, lines)
    assert (plain["speculative_num_steps"], plain["acceptance_length"], plain["speedup"]) == (0, 1.0, 1.0)
    assert chain["speculative_num_draft_tokens"] == 4
    assert chain["acceptance_length"] > 1.3
    assert last["best"][0]["batch_size"] == 1
    assert set(last) == {"best", "configuration"}
