"""Every form of tool calls: what is found, what is given back, and that the pieces in which text comes change nothing."""

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.gateway.text.vocabulary import SHOWN_MARKS
from appliance.gateway.tools import hermes, llama3_json, mistral, reasoning
from appliance.gateway.tools.deepseek import CALL_BEGIN, CALL_END, CALLS_BEGIN, CALLS_END, SEPARATOR, DeepSeekParser
from appliance.gateway.tools.events import MAX_HELD_CHARS, Call, CallArguments, CallBegun, CallParser, Event, gather
from appliance.gateway.tools.hermes import HermesParser
from appliance.gateway.tools.json_text import MAX_NUMBER_CHARS
from appliance.gateway.tools.llama3_json import Llama3JsonParser
from appliance.gateway.tools.mistral import MistralParser
from appliance.gateway.tools.pythonic import PythonicParser
from appliance.gateway.tools.reader import AnswerReader

FORMS: dict[str, Callable[[], CallParser]] = {
    "hermes": HermesParser,
    "llama3_json": Llama3JsonParser,
    "mistral": MistralParser,
    "pythonic": PythonicParser,
    "deepseek": DeepSeekParser,
}
GOOD = '{"name": "f", "arguments": {"a": 1}}'
V3 = f"{CALL_BEGIN}function{SEPARATOR}f\n```json\n" + '{"a": 1}' + f"\n```{CALL_END}"
V31 = f"{CALL_BEGIN}f{SEPARATOR}" + '{"a": 1}' + CALL_END
F = Call("f", '{"a": 1}')
FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "<tool", "_call>", GOOD, '{"name": 3}', '{"arguments": {"a": 1}, "name": "f"}'),
    *(
        '{"name": "f", "parameters": {"a": "x}\\"]"}}',
        '{"name": "f", "arguments": {"a": 01}}',
        '{"a": [1, {"b": null}]}',
    ),
    *(
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "[TOOL",
        "[",
        "]",
        ",",
        ";",
        "f",
        "f(a=1",
        ")",
        "b='x, y)'",
        "g()",
        "c=[1, {'d': None}]",
    ),
    *(CALLS_BEGIN, CALL_BEGIN, "function", SEPARATOR, "f\n```json\n", '{"a": 1}', "\n```", CALL_END, CALLS_END, V31),
    *("<|python_tag|>", "text", "\n", " ", "{", "}", '"', "\\", "é😀"),
]


def feed(parser: CallParser, text: str, cuts: list[int]) -> list[Event]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    events = [event for left, right in itertools.pairwise(edges) for event in parser.feed(text[left:right])]
    return [*events, *parser.finish()]


def parse(form: str, text: str, cuts: list[int] | None = None) -> tuple[str, tuple[Call, ...]]:
    parsed = gather(feed(FORMS[form](), text, cuts or []))
    return parsed.content, parsed.calls


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        ("hermes", f"one <tool_call>\n{GOOD}\n</tool_call> two", "one  two", [F]),
        ("hermes", f"<tool_call>{GOOD}</tool_call>\n<tool_call>{GOOD}</tool_call>\n", "", [F, F]),
        ("hermes", f"<tool_call>{GOOD}", "", [F]),
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", [Call("f", '{"a":1}')]),
        ("hermes", '<tool_call>{"name": "g"}</tool_call>', "", [Call("g", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [Call("f", '{"a":1}')]),
        ("hermes", '<tool_call>{"name": "g", "arguments": null}</tool_call>', "", [Call("g", "{}")]),
        ("llama3_json", '{"name": "f", "parameters": {"a": 1}}', "", [F]),
        ("llama3_json", '{"name": "Ada"}', '{"name": "Ada"}', []),
        ("llama3_json", f"{GOOD}\n{GOOD}", "", [F, F]),
        ("llama3_json", f"{GOOD} I used {{f}}.", " I used {f}.", [F]),
        ("llama3_json", f"<|python_tag|>{GOOD}; {GOOD}\n", "", [F, F]),
        ("llama3_json", "Hello " + GOOD, "Hello " + GOOD, []),
        ("llama3_json", f"Let me look.<|python_tag|>{GOOD}; {GOOD}", "Let me look.", [F, F]),
        ("llama3_json", "Hm <|python_tag|>print(1)", "Hm <|python_tag|>print(1)", []),
        ("llama3_json", f"<|python_tag|>f(<|python_tag|>{GOOD} Done", "<|python_tag|>f( Done", [F]),
        ("llama3_json", '  {"temperature": 21}', '  {"temperature": 21}', []),
        ("mistral", f"Sure.[TOOL_CALLS] [{GOOD}, {GOOD}]", "Sure.", [F, F]),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}', "", [F, Call("g", "{}")]),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]aB3-[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]1{}', "", [F, Call("g", "{}")]),
        ("mistral", "[TOOL_CALLS]f[CALL_ID][ARGS]{}", "[TOOL_CALLS]f[CALL_ID][ARGS]{}", []),
        ("mistral", '[TOOL_CALLS]  [ {"name":"f" , "arguments" : {"a": 1} } ]', "", [F]),
        ("pythonic", "[f(a=1), g()]", "", [F, Call("g", "{}")]),
        ("pythonic", "[f('positional')] is a list", "[f('positional')] is a list", []),
        ("pythonic", "[f(a=1), g(true)]", " g(true)]", [F]),
        ("pythonic", " [f(a='cut", " [f(a='cut", []),
        ("pythonic", "[f(a=1)] Here it is.", " Here it is.", [F]),
        (
            "pythonic",
            "[f(a='x, )', b=[1, None, True], c={'d': 1.5},)]",
            "",
            [Call("f", '{"a": "x, )", "b": [1, null, true], "c": {"d": 1.5}}')],
        ),
        ("pythonic", "[1, 2]", "[1, 2]", []),
        ("pythonic", "See [f(a=1)]", "See [f(a=1)]", []),
        ("deepseek", f"Hm.{CALLS_BEGIN}{V3}\n{V3}{CALLS_END}", "Hm.", [F, F]),
        ("deepseek", f"{CALLS_BEGIN}{V31}{V31}{CALLS_END}", "", [F, F]),
    ],
)
def test_calls_are_found(form: str, text: str, content: str, calls: list[Call]) -> None:
    """Each form as its models write it: names, arguments as written, text around them; the same character by character."""
    assert parse(form, text) == (content, tuple(calls))
    assert parse(form, text, list(range(len(text)))) == (content, tuple(calls))


def test_every_mark_of_a_form_is_shown_in_an_answers_text() -> None:
    """Parsers live on them; of control tokens the text has no others."""
    marks = {hermes.BEGIN, hermes.END, mistral.MARK, mistral.ARGS, mistral.CALL_ID, llama3_json.TAG}
    marks |= {CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR, reasoning.BEGIN, reasoning.END}
    assert {mark.encode() for mark in marks} == SHOWN_MARKS


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150)
@given(parts=st.lists(st.sampled_from(FRAGMENTS), max_size=10), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_the_pieces_do_not_matter(form: str, parts: list[str], cuts: list[int]) -> None:
    """However an answer comes in pieces, content and calls are the same; without calls, content is all of the text."""
    text = "".join(parts)
    whole = parse(form, text)
    assert parse(form, text, cuts) == whole
    assert parse(form, text, list(range(len(text)))) == whole
    content, calls = whole
    if not calls and not any(mark in text for mark in (CALLS_BEGIN, CALLS_END)):
        assert content == text


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100)
@given(text=st.text(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
@example(text="[f(a=" + "(" * 100, cuts=[7])
@example(text="[f(a=" + "1" * 5000 + ")]", cuts=[7])
@example(text="<tool_call>" + '{"name": "\\ud800", "arguments": {}}', cuts=[20])
@example(text='[f(a="\\ud800")]', cuts=[3])
def test_no_text_makes_a_parser_raise(form: str, text: str, cuts: list[int]) -> None:
    """Models write anything."""
    assert parse(form, text, cuts) == parse(form, text)


def test_arguments_stream_as_they_come() -> None:
    """The name is told when the arguments begin, and each piece of them at once; a client need not wait for the end."""
    parser = HermesParser()
    assert parser.feed('<tool_call>{"name": "write", "arguments": {"te') == [CallBegun("write"), CallArguments('{"te')]
    assert parser.feed('xt": "long') == [CallArguments('xt": "long')]
    assert parser.feed('"}}') == [CallArguments('"}')]


ARGUMENTS = '{"text": "' + "x" * 40 + '", "n": [1, {"b": null}]}'


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": ', "}\n</tool_call>"),
        ("llama3_json", '{"name": "f", "parameters": ', "}"),
        ("llama3_json", '<|python_tag|>{"name": "f", "parameters": ', "}"),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": ', "}]"),
        ("mistral", "[TOOL_CALLS]f[ARGS]", ""),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]123456789[ARGS]", ""),
        ("deepseek", f"{CALLS_BEGIN}{CALL_BEGIN}function{SEPARATOR}f\n```json\n", f"\n```{CALL_END}{CALLS_END}"),
        ("deepseek", f"{CALLS_BEGIN}{CALL_BEGIN}f{SEPARATOR}", f"{CALL_END}{CALLS_END}"),
    ],
)
def test_every_form_in_json_streams_each_character(form: str, before: str, after: str) -> None:
    """Of the arguments nothing waits for what comes behind it, in whichever way a model writes the form."""
    parser, told = FORMS[form](), ""
    for character in before:
        told += "".join(event.text for event in parser.feed(character) if isinstance(event, CallArguments))
    assert told == ""
    for number, character in enumerate(ARGUMENTS, start=1):
        told += "".join(event.text for event in parser.feed(character) if isinstance(event, CallArguments))
        assert told == ARGUMENTS[:number]
    events = [*parser.feed(after), *parser.finish()]
    assert not any(isinstance(event, CallArguments) for event in events)


@pytest.mark.parametrize("length", [65, MAX_NUMBER_CHARS])
def test_long_numbers_are_arguments(length: int) -> None:
    """Keys and identifiers are; a number that does not end is no call any more."""
    number = "1" * length
    events = feed(HermesParser(), f'<tool_call>{{"name": "f", "arguments": {{"a": {number}}}}}</tool_call>', [])
    assert gather(events).calls == (Call("f", f'{{"a": {number}}}'),)
    endless = "1" * (MAX_NUMBER_CHARS + 1)
    assert gather(feed(HermesParser(), f'<tool_call>{{"name": "f", "arguments": {{"a": {endless}', [])).content == "1"


def test_pythonic_arguments_come_one_by_one() -> None:
    """Each as soon as its comma is here."""
    parser = PythonicParser()
    assert parser.feed("[f(a=1,") == [CallBegun("f"), CallArguments("{"), CallArguments('"a": 1')]
    assert parser.feed(" b='x')") == [CallArguments(', "b": "x"'), CallArguments("}")]


def test_broken_arguments_end_where_they_break() -> None:
    """What was given out cannot be taken back: the arguments stop, and the rest is text."""
    assert parse("hermes", '<tool_call>{"name": "f", "arguments": {"a": oops') == ("oops", (Call("f", '{"a": '),))


@pytest.mark.parametrize(
    "inner", ["not json", '{"arguments": {}}', '{"name": "f", "arguments": [1]}', '{"name": "f"', "[" * 5000]
)
def test_what_is_no_call_stays_text(inner: str) -> None:
    """Broken JSON, a call without a name, arguments that are no object, a mark that is never closed."""
    for text in (f"<tool_call>{inner}</tool_call>", f"a <tool_call>{inner}"):
        assert parse("hermes", text, [3]) == (text, ())


def test_an_endless_call_is_given_back() -> None:
    """What is held back is bounded."""
    parser = HermesParser()
    given = gather(parser.feed('<tool_call>{"x": "' + "x" * (MAX_HELD_CHARS + 1))).content
    assert given.startswith('<tool_call>{"x": "xxx')
    assert gather(parser.feed("more")).content.endswith("more")


def test_a_second_call_is_dropped_where_one_is_asked_for() -> None:
    """`parallel_tool_calls: false`, for models that do not hold to it."""
    reader = AnswerReader(HermesParser(), max_calls=1)
    text = f"<tool_call>{GOOD}</tool_call><tool_call>{GOOD}</tool_call>done"
    parsed = gather([*reader.feed(text), *reader.finish()])
    assert (parsed.calls, parsed.content) == ((F,), "done")


@settings(max_examples=60)
@given(
    value=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 300), max_size=5),
)
def test_any_arguments_come_through_unchanged(value: dict[str, object], cuts: list[int]) -> None:
    """Whatever JSON can say reaches the client as it was written."""
    text = json.dumps(value)
    call = f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>'
    assert parse("hermes", call, cuts) == ("", (Call("f", text),))
