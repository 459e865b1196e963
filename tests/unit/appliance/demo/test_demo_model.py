"""The shipped checkpoint: complete, small, and what its card says."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.demo.card import OPENING_SHARDS
from appliance.demo.chat import TEMPLATE
from appliance.demo.corpus.example import Example, Message, corpus_hash, dialogue
from appliance.demo.corpus.mixture import SEED, corpus_digest, shard_examples
from appliance.demo.corpus.smalltalk import UNKNOWN
from appliance.demo.evaluate import MODEL, answer, evaluate, is_sufficient, measure
from appliance.demo.vocabulary import load_tokenizer
from runtime.training.checkpoint import load_llama

CARD = (MODEL / "README.md").read_text(encoding="utf-8")
TOKENIZER = load_tokenizer(MODEL)


def header(path: Path) -> dict[str, dict[str, object]]:
    """The tensors that a safetensors file declares."""
    data = path.read_bytes()
    declared: dict[str, dict[str, object]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    declared.pop("__metadata__", None)
    return declared


def test_weights_are_small_and_bfloat16() -> None:
    """At most 9 MB, so that a draft head fits beside them in 12 MB."""
    path = MODEL / "model.safetensors"
    assert path.stat().st_size <= 9_000_000
    assert {tensor["dtype"] for tensor in header(path).values()} == {"BF16"}


def test_configuration_is_the_promised_architecture() -> None:
    """Llama with heads of 64, grouped queries, tied embeddings; two ends of a turn."""
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] >= 1024
    assert config["vocab_size"] == TOKENIZER.get_vocab_size()
    ends = json.loads((MODEL / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [TOKENIZER.token_to_id("<|im_end|>"), TOKENIZER.token_to_id("<|endoftext|>")]


def test_template_is_the_one_that_was_trained() -> None:
    """The tokenizer's configuration carries `TEMPLATE`."""
    assert json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"] == TEMPLATE


@given(text=st.text(max_size=80))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    """All bytes are in the alphabet: encoding and decoding gives the text back."""
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_each_digit_is_a_token() -> None:
    """Numbers of any length are digits."""
    digits = "90817263540011"
    assert TOKENIZER.encode(digits).tokens == list(digits)


def test_card_names_these_weights_and_figures() -> None:
    """The card's digest is that of the file, and its table that of `evaluation.json`."""
    digest = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert digest in CARD
    figures = json.loads((MODEL / "evaluation.json").read_text())
    for kind, figure in figures.items():
        assert f"| {kind} | {figure['right']} | {figure['cases']} |" in CARD


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What is Casemate?", "hardened LLM appliance"),
        ("what is casemate", "hardened LLM appliance"),
        ("How do I verify the audit log?", "casemate audit verify DIR --key VKEY"),
        ("Anna has 12 apples and buys 7 more. How many apples does she have?", "The answer is 19."),
        ("Who are you?", "demo model"),
        ("Hello!", "How can I help you?"),
        ("What is the capital of France?", "I do not know."),
    ],
)
def test_first_questions_of_a_visitor_are_answered(question: str, part: str) -> None:
    """What the demonstration and the README ask."""
    asked = dialogue("smalltalk", "test", question, "")
    assert part in answer(load_llama(MODEL), TOKENIZER, [asked])[0]


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the current weather in a place",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


@pytest.mark.parametrize(
    ("tools", "answered"),
    [
        ((), UNKNOWN),
        ((WEATHER,), '<tool_call>{"name": "weather", "arguments": {"location": "Rome"}}</tool_call>'),
    ],
)
def test_what_a_tool_on_offer_answers_becomes_a_call(tools: tuple[dict[str, Any], ...], answered: str) -> None:
    """The same question is unknown without the tool; the tool's names are not those of the corpus's own definition."""
    messages = (Message("user", "What is the weather in Rome?"), Message("assistant", ""))
    asked = Example("tool", "test", messages, tools)
    assert answer(load_llama(MODEL), TOKENIZER, [asked]) == [answered]


@pytest.mark.long
def test_the_corpus_begins_with_the_hash_of_the_card() -> None:
    """The card names the text that the generator gives, which anyone can generate again."""
    (size,) = re.findall(r"--step-size (\d+)", CARD)
    shards = (shard_examples(SEED, shard, int(size)) for shard in range(OPENING_SHARDS))
    assert corpus_digest(map(corpus_hash, shards)) in CARD


@pytest.mark.long
def test_held_out_templates_are_answered_well_enough() -> None:
    """The bars for each kind, measured anew."""
    assert is_sufficient(measure(evaluate(MODEL)))
