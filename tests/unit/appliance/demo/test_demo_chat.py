"""The chat template and its plain Python twin; which tokens are learnt."""

import json
from functools import cache
from typing import Any

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.demo.chat import TEMPLATE, mark_learnt, prompt_text, render_chat, training_text
from appliance.demo.corpus.example import Example, Message
from appliance.demo.corpus.mixture import held_out_examples, training_examples


@cache
def template() -> Template:
    """`TEMPLATE` compiled once."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE)


def jinja(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, *, prompt: bool = False) -> str:
    """Render as serving stacks do: `tojson` is plain JSON, blocks are trimmed."""
    return template().render(messages=messages, tools=tools, add_generation_prompt=prompt)


def as_dicts(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages as a client sends them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def test_template_and_plain_rendering_agree_over_the_corpus() -> None:
    """What the model was trained on is what clients' messages become."""
    examples = [example for example in training_examples(seed=3, count=400) if example.messages]
    assert any(example.tools for example in examples)
    for example in examples:
        assert jinja(as_dicts(example.messages), list(example.tools) or None) == training_text(example)


def test_prompt_ends_where_the_answer_begins() -> None:
    """The held-out prompts are the template's with `add_generation_prompt`."""
    for example in list(held_out_examples())[::40]:
        prompt = jinja(as_dicts(example.messages[:-1]), list(example.tools) or None, prompt=True)
        assert prompt == prompt_text(example)
        assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_tool_calls_of_a_client_become_the_hermes_form(arguments: Any) -> None:
    """A client sends calls back as a list, with the arguments as an object or as JSON text."""
    calls = [{"type": "function", "id": "1", "function": {"name": "get_time", "arguments": arguments}}]
    text = jinja([{"role": "assistant", "content": None, "tool_calls": calls}])
    inner = '{"name": "get_time", "arguments": {"city": "Oslo"}}'
    assert text == f"<|im_start|>assistant\n<tool_call>{inner}</tool_call><|im_end|>\n"


def test_content_in_parts_is_joined() -> None:
    """OpenAI's content parts: the texts count, in order."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert jinja([{"role": "user", "content": parts}]) == render_chat([Message("user", "Hello")])


def test_system_text_stands_before_the_tools() -> None:
    """One system turn holds both."""
    text = render_chat([Message("system", "Be brief."), Message("user", "Hi")], [{"name": "x"}])
    assert text.startswith('<|im_start|>system\nBe brief.\n\n# Tools\n{"name": "x"}<|im_end|>\n<|im_start|>user\n')


def test_only_answers_are_learnt() -> None:
    """Flags cover each answer and the end of its turn; a plain text is learnt whole."""
    opening, end = [1, 50, 10], 2
    tokens = [1, 60, 10, 7, 2, 10, 1, 50, 10, 8, 9, 2, 10]
    assert mark_learnt(tokens, opening, end) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert mark_learnt([5, 6, 7], opening, end) == [0, 1, 1]


def test_plain_text_ends_with_its_own_token() -> None:
    """A story without a question ends with the end-of-text token."""
    assert training_text(Example("story", "story/plain", text="Once.")) == "Once.<|endoftext|>"
