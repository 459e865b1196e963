"""transformers as an outside judge: the same conversation gives the same token ids, as long as nobody forges anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.model_folders import load_model, write_byte_level_model

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "the thing in there"}],
    [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  grüße 😀 "},
        {"role": "assistant", "content": "ok"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>x</think>y"},
        {"role": "user", "content": "b"},
    ],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "1 < 2 && 3 > 2 | not a <|token"}],
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "é <b>", "parameters": {"type": "object", "properties": {}}},
    }
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    from transformers import PreTrainedTokenizerFast

    folder = write_byte_level_model(tmp_path_factory.mktemp("judged"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    outside = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=config["eos_token"])
    outside.chat_template = config["chat_template"]
    return folder, outside


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_conversations_are_tokenized_as_transformers_does(
    judge: tuple[Path, Any], conversation: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> None:
    """Template, control tokens and text together."""
    folder, outside = judge
    expected = outside.apply_chat_template(
        conversation, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert load_model(folder).template.render(conversation, tools) == list(expected)
