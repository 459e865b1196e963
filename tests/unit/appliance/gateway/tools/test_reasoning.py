"""Reasoning is told from the answer, whatever pieces it comes in."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.gateway.tools.events import gather
from appliance.gateway.tools.forms import Forms, find_forms
from appliance.gateway.tools.hermes import HermesParser
from appliance.gateway.tools.reader import AnswerReader
from appliance.gateway.tools.reasoning import ReasoningParser


def read(text: str, cuts: list[int], *, is_open: bool) -> tuple[str, str]:
    reader = AnswerReader(HermesParser(), ReasoningParser(is_open=is_open))
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    events = [event for left, right in itertools.pairwise(edges) for event in reader.feed(text[left:right])]
    parsed = gather([*events, *reader.finish()])
    return parsed.reasoning, parsed.content


@pytest.mark.parametrize(
    ("text", "is_open", "reasoning", "content"),
    [
        ("<think>\nA b\n</think>\n\nAnswer\n", False, "A b", "Answer\n"),
        ("A b\n</think>\n\nAnswer", True, "A b", "Answer"),
        ("never closed", True, "never closed", ""),
        ("No thought at all", False, "", "No thought at all"),
        ("  spaces first", False, "", "  spaces first"),
        ("Later <think>x</think>", False, "", "Later <think>x</think>"),
        ("<think></think>x", False, "", "x"),
        ("<thi", False, "", "<thi"),
    ],
)
def test_both_parts(text: str, is_open: bool, reasoning: str, content: str) -> None:
    """White space at the seams belongs to the form; reasoning stands at the beginning or nowhere."""
    assert read(text, [], is_open=is_open) == (reasoning, content)
    assert read(text, list(range(len(text))), is_open=is_open) == (reasoning, content)


@settings(max_examples=100)
@given(
    parts=st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "a", " ", "\n", "b c"]), max_size=9),
    cuts=st.lists(st.integers(0, 99), max_size=6),
    is_open=st.booleans(),
)
def test_the_pieces_do_not_matter(parts: list[str], cuts: list[int], is_open: bool) -> None:
    """The same parts come out, however the text is cut."""
    text = "".join(parts)
    assert read(text, cuts, is_open=is_open) == read(text, [], is_open=is_open)


def test_a_template_tells_the_forms() -> None:
    """By the marks that it writes itself; what is configured goes before."""
    assert find_forms(["{% if tools %}<tool_call>{% endif %} enable_thinking </think>"]) == Forms("hermes", "qwen3")
    assert find_forms(["{{ tools }}<｜tool▁calls▁begin｜> </think>"]) == Forms("deepseek", "deepseek-r1")
    assert find_forms(["{{ tools }}[TOOL_CALLS]"]) == Forms("mistral", "none")
    assert find_forms(["{{ messages }}"]) == Forms("none", "none")
    assert find_forms(["{{ tools }}<tool_call>"], calls="pythonic") == Forms("pythonic", "none")


def test_ids_of_calls_are_such_as_templates_take() -> None:
    """Mistral's raise for anything but nine alphanumeric characters."""
    assert Forms("mistral").new_call_id().isalnum()
    assert len(Forms("mistral").new_call_id()) == 9
    assert Forms("hermes").new_call_id().startswith("call_")
