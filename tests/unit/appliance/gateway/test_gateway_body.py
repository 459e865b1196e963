"""Bodies: whatever bytes come, the result is a sound object or the family's own refusal, in time."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.gateway.body import MAX_DEPTH, parse_object
from appliance.gateway.errors import BadRequest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
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
