"""The restricted canonical form: JCS vectors, an independent slow encoder, the cut rule, and what is refused."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.entry import (
    MAX_INTEGER,
    complete_entry,
    cut_string,
    encode_awaited_event,
    encode_canonical,
    encode_event,
    parse_canonical,
    parse_event,
    parse_sequence,
)
from audit.errors import AuditRejected, EntryTooLarge, MalformedEntry
from audit.summary import summarize

KEYS = st.text(alphabet=st.characters(max_codepoint=127), max_size=12)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    TEXTS | st.integers(-MAX_INTEGER, MAX_INTEGER),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)


def slow_encode(value: Any) -> str:
    """RFC 8785, section 3.2, character by character."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{slow_encode(key)}:{slow_encode(member)}" for key, member in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(slow_encode(member) for member in value) + "]"
    if isinstance(value, int):
        return str(value)
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    return '"' + "".join(short.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'


@given(OBJECTS)
def test_the_fast_encoder_agrees_with_the_slow_one(value: dict[str, Any]) -> None:
    """To the byte, for everything that the form has."""
    data = encode_canonical(value)
    assert data == slow_encode(value).encode()
    assert parse_canonical(data) == value


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_jcs_vectors(vectors: Path, name: str) -> None:
    """What the form covers is encoded as the vectors say; the rest (null, fractions, other keys, arrays) is refused."""
    source = json.loads((vectors / "jcs" / "input" / f"{name}.json").read_text())
    expected = (vectors / "jcs" / "output" / f"{name}.json").read_bytes()
    if name == "unicode":
        assert encode_canonical(source) == expected
        assert parse_canonical(expected) == source
    elif name == "structures":
        source["1"]["\n"] = 56  # 56.0 in the input: the canonical form is the integer's.
        assert encode_canonical(source) == expected
        assert parse_canonical(expected) == source
    else:
        with pytest.raises(MalformedEntry):
            parse_canonical(expected)


def test_the_parts_of_the_vectors_that_the_form_covers(vectors: Path) -> None:
    """The strings of `values` and `weird` encode as the vectors say."""
    values = json.loads((vectors / "jcs" / "input" / "values.json").read_text())
    expected = (vectors / "jcs" / "output" / "values.json").read_bytes()
    assert encode_canonical({"string": values["string"]})[1:-1] in expected
    weird = json.loads((vectors / "jcs" / "input" / "weird.json").read_text())
    ascii_only = {key: value for key, value in weird.items() if key.isascii()}
    encoded = encode_canonical(ascii_only)
    assert encoded[1:-1] in (vectors / "jcs" / "output" / "weird.json").read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":true}',
        b'{"a":null}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":1' + b"0" * 400 + b"}",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1} ',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u000A"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        '{"ä":1}'.encode(),
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a":"' + b"x" * 65_530 + b'"}',
    ],
)
def test_everything_outside_the_form_is_refused(data: bytes) -> None:
    """Each breaks one rule."""
    with pytest.raises(MalformedEntry):
        parse_canonical(data)


@pytest.mark.parametrize(
    "value", [{"a": 1.5}, {"a": None}, {"a": True}, {1: "a"}, {"a": (1,)}, {"a": "\ud800"}, {"a": b""}]
)
def test_values_outside_the_form_are_not_encoded(value: dict[Any, Any]) -> None:
    """A builder's mistake does not reach the log."""
    with pytest.raises(MalformedEntry):
        encode_canonical(value)


@given(st.binary(max_size=200) | OBJECTS.map(lambda v: json.dumps(v).encode()))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Rubbish is refused by our errors, and what is taken is canonical."""
    try:
        assert encode_canonical(parse_canonical(data)) == data
    except AuditRejected:
        pass
    for parse in (parse_sequence, summarize):
        try:
            parse(data)
        except AuditRejected:
            pass


def test_a_long_string_is_cut_with_its_length_and_digest() -> None:
    """The first 1,024 bytes stay, whole characters only."""
    text = "é" * 40_000
    event = {"metadata": {}, "text": text, "short": "x" * 1_200}
    data = encode_event(event)
    cut = parse_canonical(data)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert cut["text"] == f"{'é' * 512}[cut: 80000 bytes, sha256:{digest}]"
    assert cut["short"] == "x" * 1_200
    assert cut["metadata"]["untruncated_size"] == len(encode_canonical(event))
    assert len(data) <= 60_000


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=12))
def test_the_longest_strings_are_cut_first_and_no_more_than_needed(lengths: list[int]) -> None:
    """Every string that was cut is at least as long as every one that was not."""
    event: dict[str, Any] = {"metadata": {}, **{f"t{i}": "x" * length for i, length in enumerate(lengths)}}
    data = encode_event(event)
    result = parse_canonical(data)
    was_cut = {name: "[cut: " in result[name] for name in event if name != "metadata"}
    cut = [len(event[name]) for name, is_cut in was_cut.items() if is_cut]
    kept = [len(event[name]) for name, is_cut in was_cut.items() if not is_cut]
    assert len(data) <= 60_000
    assert min(cut, default=10**9) >= max(kept, default=0)
    assert bool(cut) == (len(encode_canonical(event)) > 60_000)
    assert event[f"t{len(lengths) - 1}"] == "x" * lengths[-1]


@given(OBJECTS)
def test_what_is_awaited_is_encoded_to_the_same_bytes(event: dict[str, Any]) -> None:
    """Only that nobody looks at it before the auditor does."""
    assert encode_awaited_event(event) == encode_event(event)


def test_what_is_awaited_and_too_long_is_cut_by_the_same_rule() -> None:
    """Byte for byte."""
    event = {"metadata": {}, "text": "é" * 40_000}
    assert encode_awaited_event(event) == encode_event(event)


@pytest.mark.parametrize("value", [1.5, True, None, (1,), MAX_INTEGER + 1, 1 << 80, b"bytes"])
def test_what_is_awaited_and_not_of_the_form_is_refused_by_whoever_reads_it(value: Any) -> None:
    """Or is still of the form, as a tuple that became a list is."""
    data = encode_awaited_event({"metadata": {}, "value": value})
    if isinstance(value, tuple | bytes):
        assert encode_canonical(parse_canonical(data)) == data
    else:
        with pytest.raises(MalformedEntry):
            parse_canonical(data)


def test_what_is_awaited_and_no_json_is_refused() -> None:
    """By the one error that leaves here."""
    for value in (object(), "\ud800"):
        with pytest.raises(MalformedEntry):
            encode_awaited_event({"metadata": {}, "value": value})


def test_an_event_that_cannot_be_cut_is_too_large() -> None:
    """A hundred thousand short strings are not cut: the event is refused."""
    with pytest.raises(EntryTooLarge):
        encode_event({"metadata": {}, "list": ["x" * 100] * 1_000})


def test_a_cut_string_is_shorter_than_any_that_is_cut() -> None:
    """So cutting always helps."""
    assert len(cut_string("x" * 1_201)) <= 1_200


@pytest.mark.parametrize("name", ["log_name", "logged_time", "reporter", "sequence", "uid"])
def test_a_peer_cannot_set_what_is_the_auditors(name: str) -> None:
    """Index, time, reporter and random bits are the auditor's alone, in whatever form it is said."""
    for data in (b'{"metadata":{"%s":"x"}}', b'{"metadata":{"\\u00%02x%s":"x"}}'):
        written = data % (name.encode() if data.count(b"%") == 1 else (ord(name[0]), name[1:].encode()))
        with pytest.raises(MalformedEntry, match=name):
            parse_event(written)
    with pytest.raises(MalformedEntry, match="time"):
        parse_event(b'{"metadata":{},"time":1}')
    for without in (b"{}", b'{"metadata":"x"}', b'{"metadata":{},"metadata":[]}'):
        with pytest.raises(MalformedEntry, match="metadata"):
            parse_event(without)


@given(OBJECTS, st.sampled_from([None, 1, 4]), st.booleans(), st.randoms(use_true_random=False))
def test_however_a_peer_writes_an_event_its_entry_is_canonical(
    members: dict[str, Any], indent: int | None, ensure_ascii: bool, random: Random
) -> None:
    """Other orders, spaces and escapes give the entry that the canonical form gives."""
    event = {key: value for key, value in members.items() if key != "time"} | {"metadata": {}}
    order = list(event.items())
    random.shuffle(order)
    written = json.dumps(dict(order), indent=indent, ensure_ascii=ensure_ascii).encode()
    completed = [
        complete_entry(taken, index=7, time_ms=1, reporter="gateway/0", log_name="o", random=bytes(16))
        for taken in (parse_event(written), parse_event(encode_canonical(event)))
    ]
    assert completed[0] == completed[1] == encode_canonical(parse_canonical(completed[0]))


@pytest.mark.parametrize(
    "value",
    [
        "1.0",
        "1e3",
        "1e400",
        "true",
        "null",
        "9007199254740992",
        '"\\ud800"',
        '{"\\u00e9":1}',
        '{"é":1}',
        "[" * 17 + "]" * 17,
    ],
)
@pytest.mark.parametrize("beside", ["1", '"é"', '"\\u0007"'])
def test_an_event_holds_only_what_the_form_has(value: str, beside: str) -> None:
    """Also beside a string that keeps it off the quick way."""
    with pytest.raises(MalformedEntry):
        parse_event(f'{{"beside":{beside},"metadata":{{}},"value":{value}}}'.encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"metadata":{}}x', b'{"metadata":{}', b'\xff{"metadata":{}}'])
def test_an_event_is_one_object(data: bytes) -> None:
    """And nothing besides."""
    with pytest.raises(MalformedEntry):
        parse_event(data)


def test_of_a_member_that_comes_twice_the_last_is_the_events() -> None:
    """One of them, as an entry has one."""
    assert parse_event(b'{"a":1,"a":2,"metadata":{}}') == {"a": 2, "metadata": {}}


def test_an_event_longer_than_a_leaf_is_too_large() -> None:
    """Before it is parsed."""
    with pytest.raises(EntryTooLarge):
        parse_event(b"x" * 65_536)


def test_a_completed_entry_says_where_it_stands() -> None:
    """The leaf is canonical and holds what the auditor added."""
    data = complete_entry({"metadata": {}}, index=7, time_ms=1, reporter="gateway/0", log_name="o", random=b"\xab" * 16)
    entry = parse_canonical(data)
    assert parse_sequence(data) == entry["metadata"]["sequence"] == 7
    assert entry["metadata"]["uid"] == "ab" * 16
    assert entry["time"] == entry["metadata"]["logged_time"] == 1
    assert entry["metadata"]["reporter"] == {"name": "gateway/0"}


def test_an_entry_fills_a_leaf_to_the_last_byte_and_no_further() -> None:
    """65,535 bytes, as the length before it has two; the auditor's own members count, too."""

    def complete(num_chars: int) -> bytes:
        event = {"metadata": {}, "note": "x" * num_chars}
        return complete_entry(event, index=7, time_ms=1, reporter="gateway/0", log_name="o", random=bytes(16))

    room = 65_535 - len(complete(0))
    assert len(complete(room)) == 65_535
    with pytest.raises(EntryTooLarge):
        complete(room + 1)
