"""Prompts from a file become the tokens that clients' requests become; what serving would refuse is refused by its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.drafting.prompts import HELD_OUT_EVERY, PromptSet, load_prompts
from appliance.errors import CommandFailed
from appliance.gateway.text.tokenizer import load_tokenizer
from tests.support.model_folders import write_byte_level_model

VOCAB_SIZE = 300
ASKED = {"messages": [{"role": "user", "content": "the end"}]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and a template."""
    return write_byte_level_model(tmp_path_factory.mktemp("model"))


def load(model: Path, folder: Path, lines: list[Any], max_tokens: int = 400) -> PromptSet:
    """Write lines, texts as they stand and anything else as JSON, and load them."""
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return load_prompts(path, model, vocab_size=VOCAB_SIZE, max_tokens=max_tokens)


def test_lines_become_what_requests_become(model: Path, tmp_path: Path) -> None:
    """Messages by the template, with tools if there are any; text as a completion's; token ids as they are."""
    lines = [
        ASKED | {"kind": "chat"},
        ASKED | {"tools": [TOOL]},
        {"prompt": "the <|im_end|>"},
        "",
        {"prompt": [5, 6], "held_out": True, "kind": "ids"},
    ]
    prompts = load(model, tmp_path, lines)
    tokenizer = load_tokenizer(model)
    special = {
        token["content"]: token["id"] for token in json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    }
    chat, tools, text = (prompt.token_ids for prompt in prompts.training)
    begin, end = special["<|im_start|>"], special["<|im_end|>"]
    plain = tokenizer.encode_plain
    assert chat == [begin, *plain("user\nthe end"), end, *plain("\n"), begin, *plain("assistant\n")]
    assert tools[-len(chat) :] == chat
    assert len(tools) > len(chat) + 20
    assert text == plain("the <|im_end|>")
    assert end not in text
    assert [(prompt.token_ids, prompt.kind) for prompt in prompts.held_out] == [([5, 6], "ids")]
    assert [prompt.kind for prompt in prompts.training] == ["chat", "", ""]


def test_every_twentieth_is_held_out_where_no_line_says(model: Path, tmp_path: Path) -> None:
    """By place, so that the same file is always divided alike."""
    prompts = load(model, tmp_path, [{"prompt": [number]} for number in range(2 * HELD_OUT_EVERY + 3)])
    assert [prompt.token_ids for prompt in prompts.held_out] == [[HELD_OUT_EVERY - 1], [2 * HELD_OUT_EVERY - 1]]
    assert len(prompts.training) == 2 * HELD_OUT_EVERY + 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", ":2: "),
        ("[]", ":2: "),
        ("\xff", ":2: "),
        ({}, "either messages or prompt"),
        (ASKED | {"prompt": "a"}, "either messages or prompt"),
        ({"prompt": "a", "tools": [TOOL]}, "tools go with messages"),
        ({"prompt": "a", "sort": "b"}, "sort"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "expected 1 to 400 tokens, found 0"),
        ({"prompt": [VOCAB_SIZE]}, "token 300 is not among the model's 300"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1] * 401}, "expected 1 to 400 tokens, found 401"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "witness", "content": "a"}]}, "role"),
        (ASKED | {"tools": [{"type": "function"}]}, "tools"),
        (ASKED | {"kind": "k" * 65}, "kind"),
    ],
    ids=str,
)
def test_bad_line_is_named(line: Any, said: str, model: Path, tmp_path: Path) -> None:
    """File, number and reason; never an error of a library."""
    if isinstance(line, str):
        (tmp_path / "prompts.jsonl").write_bytes(b'{"prompt": [1]}\n' + line.encode("latin-1"))
        with pytest.raises(CommandFailed) as refused:
            load_prompts(tmp_path / "prompts.jsonl", model, vocab_size=VOCAB_SIZE, max_tokens=400)
    else:
        with pytest.raises(CommandFailed) as refused:
            load(model, tmp_path, [{"prompt": [1]}, line])
    assert "prompts.jsonl:2: " in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "holds no prompt"),
        ([" ", ""], "holds no prompt"),
        ([{"prompt": [1]}] * 3, "3 prompts to learn from and 0 held out"),
        ([{"prompt": [1], "held_out": True}], "0 prompts to learn from and 1 held out"),
    ],
    ids=("empty", "blank", "nothing held out", "nothing to learn"),
)
def test_file_must_hold_both_parts(lines: list[Any], said: str, model: Path, tmp_path: Path) -> None:
    """Before an engine is started."""
    with pytest.raises(CommandFailed, match=said):
        load(model, tmp_path, lines)
