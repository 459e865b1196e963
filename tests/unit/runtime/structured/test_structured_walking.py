"""A grammar is followed before anybody's answer is: what has a slow step is refused, wherever it is, and ordinary ones are not."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.gateway.tools.forms import Forms
from appliance.gateway.tools.structure import CallableTool, json_format, optional_calls
from appliance.messages.grammar import MAX_GRAMMAR_BYTES
from runtime.errors import RequestRejected
from runtime.structured import walking
from runtime.structured.compiler import compile_structure
from runtime.structured.following import Follower, read_places
from runtime.structured.matching import Grammars
from runtime.structured.vocabulary import GrammarVocabulary
from runtime.structured.walking import StepTokens, Walker

EOS = 256
TABLE = [
    *(bytes([byte]) for byte in range(256)),
    b"",
    *(bytes([byte]) * length for byte in b"a= -" for length in (2, 4, 8)),
    *(f"{chr(97 + number % 26)}{number}".encode() for number in range(1500)),
]
KNOWN = f"""root ::= {"t " * 20} "!" x{{0,30}}
t ::= [b-z]+ [0-9]+ " "
x ::= y{{0,30}}
y ::= z{{0,30}}
z ::= "a"?"""
DEEP = "(((a?){0,30}){0,30}){0,30}"


@pytest.fixture(scope="module")
def vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(TABLE, [EOS], vocab_size=len(TABLE))


@pytest.fixture(scope="module")
def walker(vocabulary: GrammarVocabulary) -> Walker:
    return Walker(vocabulary)


def tagged(form: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": form})


def regex(pattern: str) -> str:
    return tagged({"type": "regex", "pattern": pattern})


def members(**kinds: Any) -> dict[str, Any]:
    return {"type": "object", "properties": kinds, "required": list(kinds), "additionalProperties": False}


@pytest.mark.parametrize(
    "structure",
    [
        regex(DEEP),
        regex("x{50}" + DEEP),
        regex("[b-z]{20}0" + DEEP),
        regex(f"[b-z]{{30}}|0{DEEP}|[1-9]{{30}}"),
        regex("((a|aa)*){0,50}b"),
        tagged(
            {"type": "grammar", "grammar": f'root ::= [b-z]+ " " (slow | root)\nslow ::= {DEEP.replace("a", "[a]")}'}
        ),
        tagged({"type": "grammar", "grammar": KNOWN}),
    ],
    ids=["alone", "prefix", "any prefix", "branch", "two ways", "rule", "behind what is known"],
)
def test_a_slow_step_is_found_wherever_it_is(walker: Walker, structure: str) -> None:
    """Behind a beginning, in one of several branches: within seconds of processor time."""
    started = time.process_time()
    with pytest.raises(RequestRejected, match="takes longer than") as refused:
        walker.compile(structure, MAX_GRAMMAR_BYTES)
    assert refused.value.code == "grammar_too_slow"
    assert time.process_time() - started < 20


KINDS: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 400},
    {"type": "number"},
    {"enum": ["red", "green", "blue"]},
    {"type": "array", "items": {"type": "string"}},
]


def many(count: int, name: str = "member") -> dict[str, Any]:
    return members(**{f"{name}_{number}": KINDS[number % len(KINDS)] for number in range(count)})


def calls() -> str:
    tools = [CallableTool(f"tool_{number}", many(4, f"argument_{number}")) for number in range(3)]
    return tagged(optional_calls(Forms(calls="hermes"), tools, parallel=True))


@pytest.mark.parametrize(
    "structure",
    [
        tagged(json_format({"type": "object", "additionalProperties": True})),
        tagged(json_format(many(40))),
        tagged(json_format({"enum": [f"value {number * 7919}" for number in range(1000)]})),
        calls(),
        regex("[\u0430-\u044f\u4e00-\u9fa5 ]{1,80}[\u3002!]"),
        regex(".{1,200} - .{1,200}"),
        regex("(- [^\\n]{1,80}\\n){1,8}"),
    ],
    ids=["json", "members", "enum", "tools", "unicode", "any", "lines"],
)
def test_what_is_large_or_long_is_not_slow(walker: Walker, vocabulary: GrammarVocabulary, structure: str) -> None:
    """And comes out of the walk as the compiler gave it."""
    assert walker.compile(structure, 1 << 30) == compile_structure(vocabulary, structure)


def test_a_grammar_that_no_engine_gets_is_not_walked_through(walker: Walker) -> None:
    """It is refused for its size."""
    assert len(walker.compile(regex(DEEP), 1 << 10)) > 1 << 10


def test_a_walk_has_been_everywhere(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member's own part of a schema, each of which is behind a text that all share."""
    monkeypatch.setattr(walking, "WALK_S", 60.0)
    been: set[str] = set()
    advance = Follower.advance
    path: list[int] = []

    def watched(follower: Follower, token: int) -> bool:
        taken = advance(follower, token)
        path.extend([token] if taken else [])
        return taken

    take_back = Follower.take_back

    def watched_back(follower: Follower, count: int) -> None:
        been.add(b"".join(TABLE[token] for token in path).decode(errors="replace"))
        del path[-count:]
        take_back(follower, count)

    monkeypatch.setattr(Follower, "advance", watched)
    monkeypatch.setattr(Follower, "take_back", watched_back)
    schema = members(a={"type": "string"}, b={"enum": ["x", "y"]}, c={"type": "string", "pattern": "^[0-9]{2}(k|m)$"})
    walker.compile(tagged(json_format(schema)), MAX_GRAMMAR_BYTES)
    for part in ('"b":', '"x', '"y', '"c":', 'k"'):
        assert any(part in "".join(text.split()) for text in been), part


def test_the_same_walk_each_time(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token, where its time does not end it."""
    monkeypatch.setattr(walking, "WALK_S", 60.0)
    walks: list[list[int]] = []
    advance = Follower.advance

    def watched(follower: Follower, token: int) -> bool:
        walks[-1].append(token)
        return advance(follower, token)

    monkeypatch.setattr(Follower, "advance", watched)
    for _ in range(2):
        walks.append([])
        walker.compile(tagged(json_format(many(6))), MAX_GRAMMAR_BYTES)
    assert walks[0] == walks[1]
    assert len(walks[0]) > 100


def clock(monkeypatch: pytest.MonkeyPatch, costs_s: Iterator[float]) -> None:
    """Every two looks at the clock are so far apart, in turn."""
    now = [0.0]

    def tick() -> float:
        now[0] += next(costs_s, 0.0)
        return now[0]

    monkeypatch.setattr(time, "process_time", tick)


def test_one_long_step_is_measured_again(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hypervisor takes the processor for a second, and the clock runs on: that is no grammar's fault."""
    clock(monkeypatch, iter([0.0, 0.0, 0.0, 1.0]))
    walker.compile(regex("[ab]{3}"), MAX_GRAMMAR_BYTES)


def test_steps_that_stay_long_are_slow(walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the grammar says."""
    clock(monkeypatch, iter([0.0, 0.0, *[0.3] * 8]))
    with pytest.raises(RequestRejected, match="takes longer than"):
        walker.compile(regex("[ab]{3}"), MAX_GRAMMAR_BYTES)


def test_tokens_of_a_walk() -> None:
    """The shortest for each first byte, the longest run of each, the longest first; what has no bytes is none."""
    tokens = StepTokens.of([b"", b"ab", b"a", b"aaa", b"bb", b"bc", b"b", b"cd"])
    assert tokens.ways.tolist() == [2, 6, 7]
    assert tokens.runs.tolist() == [3, 4]
    assert tokens.of_byte == {ord("a"): 2, ord("b"): 6}


def test_places_are_read_as_the_library_writes_them(vocabulary: GrammarVocabulary) -> None:
    """Another place for another state, the same one where the text has come back to it, and nothing is taken by looking."""
    follower = Grammars(vocabulary).follower(compile_structure(vocabulary, regex("(ab)*")))
    seen = []
    for byte in b"abab":
        after = follower.places_after(byte)
        assert follower.advance(byte)
        assert follower.places() == after
        seen.append(read_places(after)[0])
    assert seen[0] == seen[2]
    assert seen[1] == seen[3]
    assert seen[0]
    assert seen[0] != seen[1]
    assert follower.places_after(ord("c")) == ""
    assert follower.forced() == b""
