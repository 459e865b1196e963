"""Tool calls are taken out of a growing answer, whole, and nothing else is lost."""

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.gateway.text.tool_calls import MAX_CALL_CHARS, ToolCall, ToolCallParser

pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                "<tool",
                "_call>",
                '{"name": "f", "arguments": {"a": 1}}',
                '{"name": 3}',
                "text",
                "\n",
            ]
        ),
    ),
    max_size=8,
)


def parse(text: str, cuts: list[int]) -> tuple[str, list[ToolCall]]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    parser = ToolCallParser()
    content, calls = "", []
    for left, right in itertools.pairwise(edges):
        parsed = parser.feed(text[left:right])
        content += parsed.content
        calls += parsed.calls
    return content + parser.finish().content, calls


def test_calls_and_text_are_told_apart() -> None:
    """Two calls with text around them."""
    text = (
        'one <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call> two <tool_call>{"name": "g"}</tool_call>'
    )
    assert parse(text, []) == ("one  two ", [ToolCall("f", '{"a":1}'), ToolCall("g", "{}")])


@settings(max_examples=60, deadline=None)
@given(parts=pieces, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_cut_of_the_text_does_not_matter(parts: list[str], cuts: list[int]) -> None:
    """However an answer comes in pieces, content and calls are the same, and no character is lost but those of calls."""
    text = "".join(parts)
    content, calls = parse(text, cuts)
    assert (content, calls) == parse(text, [])
    if not calls:
        assert content == text
    for call in calls:
        assert json.loads(call.arguments) == {"a": 1}


def test_what_is_no_call_stays_text() -> None:
    """Broken JSON, a call without a name, arguments that are no object, a mark that is never closed."""
    for text in (
        "<tool_call>not json</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f"',
        "a <tool_ca",
        "<tool_call>" + "[" * 5000 + "</tool_call>",
    ):
        assert parse(text, [3]) == (text, [])


def test_an_endless_call_is_given_back() -> None:
    """What is held back is bounded."""
    parser = ToolCallParser()
    given_back = parser.feed("<tool_call>" + "x" * (MAX_CALL_CHARS + 1)).content
    assert given_back.startswith("<tool_call>xxx")
    assert parser.feed("more").content == "more"
