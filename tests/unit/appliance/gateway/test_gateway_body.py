"""Bodies: whatever bytes come, the result is a sound object or the family's own refusal, in time."""

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.gateway import body as bodies
from appliance.gateway.body import MAX_DEPTH, MAX_QUOTES, parse_object
from appliance.gateway.errors import BadRequest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(body=st.binary(max_size=60))
def test_nothing_but_the_family_escapes(body: bytes) -> None:
    """Any bytes at all."""
    try:
        parse_object(body)
    except BadRequest:
        return


@settings(max_examples=40)
@given(value=st.dictionaries(st.text(), values, max_size=4))
def test_what_is_sound_comes_through(value: dict[str, object]) -> None:
    """A round trip of any object."""
    assert parse_object(json.dumps(value).encode()) == value


@given(
    text=st.lists(st.sampled_from(['"', "\\", "{", "}", "[", "]", ":", ",", "1", "a", '\\"']), max_size=30).map("".join)
)
def test_hostile_fragments_are_taken_exactly_where_the_library_takes_them(text: str) -> None:
    """Quotes, backslashes and brackets in any order: an object without repeated keys, and nothing else."""
    repeats: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        repeats.extend(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        return dict(pairs)

    try:
        expected = json.loads(text, object_pairs_hook=note)
    except ValueError:
        expected = None
    if isinstance(expected, dict) and not repeats:
        assert parse_object(text.encode()) == expected
    else:
        with pytest.raises(BadRequest):
            parse_object(text.encode())


def outcome(parse: Callable[[bytes], dict[str, object]], body: bytes) -> str:
    """What comes out, types and all, or the words of the refusal."""
    try:
        return repr(parse(body))
    except BadRequest as refused:
        return f"{refused.code}: {refused}"


_PARTS = [
    '"',
    "\\",
    '\\"',
    "\\n",
    "\\ud83d",
    "\\ude00",
    "\\u0041",
    "\\x",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    ' "a": ',
    ' "b": ',
    "1",
    "-0",
]
_PARTS += [
    "1.5",
    "1e400",
    "-",
    "0",
    "9" * 25,
    "9" * 5000,
    "true",
    "null",
    "NaN",
    "é",
    "\x01",
    "\x7f",
    "\n",
    "\ufeff",
    " ",
]


@settings(max_examples=400)
@given(parts=st.lists(st.sampled_from(_PARTS), max_size=12), is_whole=st.booleans())
def test_the_quick_parser_decides_nothing(parts: list[str], is_whole: bool) -> None:
    """Values, their types and all refusals are the library's."""
    text = "".join(parts)
    body = ('{"a": [' + text + "]}" if is_whole else text).encode()
    assert outcome(parse_object, body) == outcome(bodies._parse_slowly, body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": [], "b": {}}, "c": [1, 2]}',
        b'{"ids": [1, 2, {"b": 1, "b": 1}], "c": {}}',
        b'{"c": [[1, [{"x\\"": 1, "x\\"": 2}]]], "d": [3]}',
        b'{"a": ":", "b": "{:", "\\u0062": 1}',
    ],
)
def test_a_repeated_key_is_found_at_any_depth(body: bytes) -> None:
    """Also behind a long list, and where it is written in another way."""
    with pytest.raises(BadRequest, match="twice"):
        parse_object(body)


@pytest.mark.parametrize("number", ["1.5e300", "5E-324"])
@pytest.mark.parametrize(("num_numbers", "is_quick"), [(bodies.MAX_QUICK_EXPONENTS, True), (150_000, False)])
def test_exponents_in_plenty_are_not_for_the_quick_parser(
    number: str, num_numbers: int, is_quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes up to 10 µs for such a number, which is a second for a megabyte of them."""
    slow: list[bytes] = []
    parse_slowly = bodies._parse_slowly
    monkeypatch.setattr(bodies, "_parse_slowly", lambda body: (slow.append(body), parse_slowly(body))[1])
    body = b'{"a": [' + b",".join([number.encode()] * num_numbers) + b"]}"
    assert parse_object(body) == {"a": [float(number)] * num_numbers}
    assert (not slow) == is_quick


@pytest.mark.parametrize("quote", ['"', r"\""], ids=["plain", "escaped"])
def test_quotation_marks_are_bounded_exactly(quote: str) -> None:
    """Escaped ones count as well."""
    pair = '"a",' if quote == '"' else r"\"\""
    inner = pair * ((MAX_QUOTES - 4) // 2)
    body = '{"a": [' + (inner + "1" if quote == '"' else f'"{inner[4:]}"') + "]}"
    assert body.count('"') == MAX_QUOTES - 2
    parse_object(body.encode())
    with pytest.raises(BadRequest, match="quotation marks"):
        parse_object(body.replace('"a": [', '"b": "", "a": ["",').encode())


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
def test_depth_is_bounded_exactly(depth: int) -> None:
    """The object itself is the first level; brackets within strings do not count."""
    body = b'{"s": "[[[[{{{{", "a": ' + b"[" * depth + b"]" * depth + b"}"
    if depth < MAX_DEPTH:
        assert "a" in parse_object(body)
    else:
        with pytest.raises(BadRequest, match="nested deeper"):
            parse_object(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b'\\"' * 500_000,
        b'"' * 1_000_000,
        b'{"a":[' + b"[]," * 300_000 + b"1]}",
        b"\\" * 1_000_000,
        b"[" * 1_000_000,
        b"}" * 1_000_000,
    ],
    ids=["escapes", "quotes", "containers", "backslashes", "brackets", "ends"],
)
def test_a_megabyte_of_noise_is_refused_in_time(body: bytes) -> None:
    """Linear, whatever it is made of: no pattern makes the scanner go back."""
    began = time.thread_time()
    with pytest.raises(BadRequest):
        parse_object(body)
    assert time.thread_time() - began < 2.0
