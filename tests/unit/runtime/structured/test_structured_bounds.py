"""Bounded text: no answer is longer or shorter than its schema says, whatever is drawn, and bounds cost next to nothing."""

import json
import re
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.structured.bounds import MARKED, UNMARKED, with_budgets
from runtime.structured.compiler import compile_structure
from runtime.structured.following import Follower
from runtime.structured.library import Grammar
from runtime.structured.matching import GrammarMatcher, Grammars
from runtime.structured.text_bounds import NEAR_CHARS, Tail
from runtime.structured.vocabulary import GrammarVocabulary

EOS = 256
PIECES = [
    "ab",
    " the",
    "é",
    "日本",
    "a" * 9,
    "x" * 30,
    ' "',
    '."',
    '",',
    '": "',
    '"}',
    'ab"',
    '", "',
    '""',
    '"ab"',
    "🙂x",
    "  ",
    "\n    ",
]
LOOSE = (0xE0, 0xED, 0xF0)
"""Bytes behind which the library takes some that make no UTF-8, in expressions: no model writes them, but a draw would."""
TABLE = [
    *(b"" if byte in LOOSE else bytes([byte]) for byte in range(256)),
    b"",
    *(piece.encode() for piece in PIECES),
    "日".encode()[:2],
    b"a\xf0\x9f",
]
VOCAB_SIZE = 320


@pytest.fixture(scope="module")
def vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(TABLE, [EOS], vocab_size=VOCAB_SIZE)


@pytest.fixture(scope="module")
def grammars(vocabulary: GrammarVocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.fixture(scope="module")
def large() -> GrammarVocabulary:
    """As many tokens as models of today have, half of them behind a space, some with quotation marks, one of 128 spaces."""
    draw = np.random.default_rng(7)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    words = [letters[draw.integers(0, 26, length)].tobytes() for length in draw.integers(3, 9, 160_000)]
    heads = draw.choice([b" ", b"", b"_", b'"', b"\n"], len(words), p=[0.5, 0.4, 0.05, 0.03, 0.02])
    ends = draw.choice([b"", b'",', b'":', b'"'], len(words), p=[0.96, 0.02, 0.01, 0.01])
    made = {bytes(head) + word + bytes(end) for head, word, end in zip(heads, words, ends, strict=True)}
    table = [*(bytes([byte]) for byte in range(256)), b"", b" " * 128, *sorted(made)]
    assert len(table) > 128_000
    return GrammarVocabulary(table, [EOS], vocab_size=len(table))


def of_schema(vocabulary: GrammarVocabulary, schema: Any) -> bytes:
    form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 16}
    return compile_structure(vocabulary, json.dumps({"type": "structural_tag", "format": form}))


def of_regex(vocabulary: GrammarVocabulary, pattern: str) -> bytes:
    form = {"type": "regex", "pattern": pattern}
    return compile_structure(vocabulary, json.dumps({"type": "structural_tag", "format": form}))


def allowed(mask: Any) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def answer(
    matcher: GrammarMatcher, table: list[bytes], num_words: int, draw: np.random.Generator, *, reluctance: float
) -> str:
    """One drawn under the masks; at each step drafts are tried first, and taken back. `reluctance`: to end a text."""
    text = b""
    masks = np.zeros((4, num_words), np.int32)
    for _ in range(6000):
        matcher.fill(masks[0])
        assert not matcher.fault, (matcher.fault, text)
        choices = allowed(masks[0])
        drafts = [int(draw.choice(choices)), *draw.integers(0, len(table), 2).tolist()]
        first = masks[0].copy()
        matcher.fill_along(drafts, [0, 1, 2], (EOS,), masks)
        assert (masks[0] == first).all()
        going_on = [token for token in choices if token != EOS and b'"' not in table[token] and table[token].strip()]
        token = int(draw.choice(going_on if going_on and draw.random() < reluctance else choices))
        if token == EOS:
            return text.decode()
        matcher.accept(token)
        assert not matcher.fault, (matcher.fault, text, table[token])
        text += table[token]
    raise AssertionError("no end")


def text_schema(least: int, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


BOUNDS = st.tuples(st.integers(0, 8), st.one_of(st.integers(2, 8), st.integers(20, 60))).map(
    lambda pair: (min(pair), max(pair))
)
"""One character at most is a pattern, which the gateway writes."""


@given(
    bounds=st.lists(BOUNDS, min_size=1, max_size=3),
    seed=st.integers(0, 1 << 30),
    reluctance=st.sampled_from([0.0, 0.9, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_drawn_keeps_the_bounds(
    vocabulary: GrammarVocabulary, grammars: Grammars, bounds: list[tuple[int, int]], seed: int, reluctance: float
) -> None:
    """Fields, lists and alternatives of bounded texts, with a pattern beside; drafts change nothing; a validator judges."""
    names = [f"f{number}" for number in range(len(bounds))]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            **{name: text_schema(*pair) for name, pair in zip(names, bounds, strict=True)},
            "list": {"type": "array", "items": text_schema(*bounds[0]), "maxItems": 3},
            "either": {"anyOf": [text_schema(*bounds[0]), {"type": "null"}, text_schema(*bounds[-1])]},
            "pattern": {"type": "string", "pattern": "^[0-9a-c]{2,40}$"},
        },
        "required": [*names, "list", "either", "pattern"],
        "additionalProperties": False,
    }
    matcher = grammars.matcher(of_schema(vocabulary, schema))
    text = answer(matcher, TABLE, vocabulary.num_words, np.random.default_rng(seed), reluctance=reluctance)
    jsonschema_rs.validate(schema, json.loads(text))


@pytest.mark.parametrize("character", ["a", "é", "日", "\U00050000"])
def test_characters_are_code_points_and_the_bound_is_reached(
    vocabulary: GrammarVocabulary, grammars: Grammars, character: str
) -> None:
    """As many as the schema says, whatever bytes each takes; then only the end may come."""
    matcher = grammars.matcher(of_schema(vocabulary, text_schema(3, 40)))
    mask = np.zeros(vocabulary.num_words, np.int32)
    for number in range(40):
        for byte in (b'"' if not number else b"") + character.encode():
            matcher.fill(mask)
            assert byte in allowed(mask), (number, byte)
            assert (ord('"') in allowed(mask)) is (byte == ord('"') or (number >= 3 and byte == character.encode()[0]))
            matcher.accept(byte)
    matcher.fill(mask)
    assert allowed(mask) == [ord('"')]
    matcher.accept(ord('"'))
    assert not matcher.fault


def test_white_space_costs_no_states_in_the_second_schema_either() -> None:
    """Of several in one structure, as tools have them: the library numbers the names of its rules once more for each."""
    schemas = [{"type": "object", "properties": {name: {"type": "string"}}, "required": [name]} for name in "abc"]
    elements = [{"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 16} for schema in schemas]
    structure = {"type": "structural_tag", "format": {"type": "or", "elements": elements}}
    printed = str(Grammar(json.dumps(structure)))
    assert "whitespace_2_1{0, 16}" in printed
    assert "{0, 16}" not in with_budgets(printed)


def test_masks_near_a_bound_are_the_librarys(vocabulary: GrammarVocabulary, grammars: Grammars) -> None:
    """Token by token, where one text is open and has its least length: what is quicker allows the same."""
    schema = {"type": "array", "items": text_schema(0, 30)}
    grammar = of_schema(vocabulary, schema)
    marked = grammars.matcher(grammar)
    plain = GrammarMatcher(Follower(grammars.follower(grammar)._matcher, None))
    ours, theirs = np.zeros((2, vocabulary.num_words), np.int32)
    num_near = 0
    for byte in b'["' + b"a" * 12 + "é日".encode() + b"b" * 16 + b'", "cd':
        marked.fill(ours)
        plain.fill(theirs)
        assert allowed(ours) == allowed(theirs)
        num_near += bool(theirs.any())
        marked.accept(byte)
        plain.accept(byte)
    assert num_near > NEAR_CHARS
    assert not marked.fault
    assert not plain.fault


@pytest.mark.parametrize(
    "pattern",
    [
        "[a-c]{1,200}",
        r"x{0,40}\d{3}",
        "(ab|c){1,150}",
        "[ -~à-é]{2,90}é{0,50}",
        "([a-c]{1,35}-){0,3}",
        "[a-b]{3}[a-c]{0,60}b",
    ],
)
def test_expressions_with_counted_repeats_match(
    vocabulary: GrammarVocabulary, grammars: Grammars, pattern: str
) -> None:
    """Python's own engine judges what is drawn."""
    grammar = of_regex(vocabulary, pattern)
    for seed in range(4):
        draw = np.random.default_rng(seed)
        text = answer(grammars.matcher(grammar), TABLE, vocabulary.num_words, draw, reluctance=0.9)
        assert re.fullmatch(pattern, text), text


def test_white_space_of_json_ends(vocabulary: GrammarVocabulary, grammars: Grammars) -> None:
    """It is no bound that a client was told; but no model goes on with it for ever. In texts it is a character."""
    matcher = grammars.matcher(of_schema(vocabulary, {"type": "array", "items": text_schema(0, 100)}))
    mask = np.zeros(vocabulary.num_words, np.int32)
    space = ord(" ")
    for byte in b"[" + b" " * 16:
        matcher.fill(mask)
        assert byte in allowed(mask)
        matcher.accept(byte)
    matcher.fill(mask)
    assert not {space, ord("\n"), TABLE.index(b"  ")} & set(allowed(mask))
    for byte in b'"' + b" " * 50:
        matcher.accept(byte)
    matcher.fill(mask)
    assert space in allowed(mask)


def test_a_clients_own_rules_stay_as_they_are(vocabulary: GrammarVocabulary, grammars: Grammars) -> None:
    """Whatever names and options they have: these mean something for the grammars that are written here only."""
    ebnf = 'root ::= whitespace{0, 16} text "b"\nwhitespace ::= [ \\n\\r\\t]\ntext[temperature=0.5] ::= " "{20}'
    form = {"type": "or", "elements": [{"type": "grammar", "grammar": ebnf}, {"type": "const_string", "value": "x"}]}
    grammar = compile_structure(vocabulary, json.dumps({"type": "structural_tag", "format": form}))
    assert grammar[len(vocabulary.digest) :].startswith(UNMARKED)
    assert of_regex(vocabulary, "a")[len(vocabulary.digest) :].startswith(MARKED)
    matcher = grammars.matcher(grammar)
    for byte in b" " * 36 + b"b":
        matcher.accept(byte)
    assert not matcher.fault


def test_many_lengths_keep_their_bounds(vocabulary: GrammarVocabulary, grammars: Grammars) -> None:
    """Their states are shared then, and each is its own."""
    schema = {
        "type": "object",
        "properties": {f"f{most}": {"type": "string", "maxLength": most} for most in range(30, 46)},
        "required": [f"f{most}" for most in range(30, 46)],
        "additionalProperties": False,
    }
    matcher = grammars.matcher(of_schema(vocabulary, schema))
    value = json.loads(answer(matcher, TABLE, vocabulary.num_words, np.random.default_rng(3), reluctance=1.0))
    jsonschema_rs.validate(schema, value)
    lengths = {most: len(text) for most, text in zip(range(30, 46), value.values(), strict=True)}
    # A token may begin and end a text; whatever else was begun went on to its bound.
    assert all(length == most or length in (0, 2) for most, length in lengths.items())
    assert sum(length == most for most, length in lengths.items()) > 8


def test_what_only_looks_like_a_bound_stays(vocabulary: GrammarVocabulary) -> None:
    """In constants and classes it is text."""
    form = {
        "type": "sequence",
        "elements": [{"type": "const_string", "value": "w{0, 99}[a]{0, 99}"}, {"type": "regex", "pattern": "[{0, 9}]"}],
    }
    printed = str(Grammar(json.dumps({"type": "structural_tag", "format": form})))
    assert with_budgets(printed) == printed


@pytest.mark.parametrize(
    ("schema", "most_bytes"),
    [
        *(({"type": "string", "maxLength": most}, 600_000) for most in (20, 100, 500, 2000, 4000)),
        (
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        **{
                            f"f{most}": {"type": "string", "minLength": 1, "maxLength": most}
                            for most in (100, 500, 2000, 4000)
                        },
                        "code": {"type": "string", "pattern": "^[A-Z]{3}[0-9]{4}$"},
                    },
                    "required": ["f100", "f500", "f2000", "f4000", "code"],
                    "additionalProperties": False,
                },
                "maxItems": 50,
            },
            2 << 20,
        ),
        (
            {
                "type": "object",
                "properties": {f"f{most}": {"type": "string", "maxLength": most} for most in range(90, 120)},
                "required": [f"f{most}" for most in range(90, 120)],
                "additionalProperties": False,
            },
            4 << 20,
        ),
        ({"type": "string", "pattern": "^[a-z]{1,300}$"}, 1 << 20),
    ],
)
def test_bounds_cost_little_with_as_many_tokens_as_models_have(
    large: GrammarVocabulary, schema: Any, most_bytes: int
) -> None:
    """However large: no states for characters, so the size says nothing of the bound."""
    assert len(of_schema(large, schema)) < most_bytes


def test_expressions_cost_little_with_as_many_tokens_as_models_have(large: GrammarVocabulary) -> None:
    """A few hundred characters of a class are one state."""
    assert len(of_regex(large, r"[a-z]{1,200}(-\d{1,300})?")) < 1 << 20


def test_a_tail_tells_characters_white_space_and_what_is_cut() -> None:
    """Token by token as in one."""
    content = 'x"é日\n 🙂  '.encode()
    for step in (1, 2, 3, 5, len(content)):
        tail = Tail()
        for place in range(0, len(content), step):
            tail = tail.after(content[place : place + step])
        assert tail == Tail(text_chars=7, num_white=2, num_missing=0)
    assert Tail().after(b"a\xf0\x9f").num_missing == 2
    assert Tail().after(b"a\xf0\x9f").after(b"\x99").num_missing == 1
