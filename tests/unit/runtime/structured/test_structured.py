"""Structures compile, grammars constrain, and what is hostile or foreign is refused. Masks are those of xgrammar itself."""

import json
import re
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from runtime.errors import RequestRejected
from runtime.sampling.masks import mask_disallowed
from runtime.structured.compiler import compile_structure
from runtime.structured.matching import GrammarMatcher, Grammars
from runtime.structured.vocabulary import GrammarVocabulary

EOS, CONTROL = 256, 257
TABLE = [*(bytes([byte]) for byte in range(256)), b"", b"", b"the", b'": "', b'"}']
VOCAB_SIZE = 300


@pytest.fixture(scope="module")
def vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(TABLE, [EOS], vocab_size=VOCAB_SIZE)


def structure(kind: str, **fields: Any) -> str:
    return json.dumps({"type": "structural_tag", "format": {"type": kind, **fields}})


def allowed(matcher: GrammarMatcher, vocabulary: GrammarVocabulary) -> set[int]:
    mask = np.zeros(vocabulary.num_words, np.int32)
    matcher.fill(mask)
    return {token for token in range(VOCAB_SIZE) if int(mask[token // 32]) >> (token % 32) & 1}


def matcher_of(vocabulary: GrammarVocabulary, text: str) -> GrammarMatcher:
    return Grammars(vocabulary).matcher(compile_structure(vocabulary, text))


def as_sets(masks: np.ndarray) -> list[set[int]]:
    return [{token for token in range(VOCAB_SIZE) if int(mask[token // 32]) >> (token % 32) & 1} for mask in masks]


def test_masks_along_drafts_are_those_of_following_them(vocabulary: GrammarVocabulary) -> None:
    """Position by position; afterwards the matcher stands where it stood, whatever the drafts."""
    text = structure("regex", pattern="th(e|is)? end")
    matcher, follower = matcher_of(vocabulary, text), matcher_of(vocabulary, text)
    drafts = [ord("t"), ord("h"), ord(" "), ord("e")]
    masks = np.full((5, vocabulary.num_words), -1, np.int32)
    assert matcher.fill_along(drafts, [0, 1, 2, 3], (), masks) == [0, 1, 2, 3, 4]
    expected = [allowed(follower, vocabulary)]
    for draft in drafts:
        follower.accept(draft)
        expected.append(allowed(follower, vocabulary))
    assert as_sets(masks) == expected
    assert allowed(matcher, vocabulary) == expected[0]
    matcher.accept(ord("t"))
    assert matcher.fault == ""
    assert allowed(matcher, vocabulary) == expected[1]


def test_masks_along_drafts_end_where_a_draft_is_not_allowed(vocabulary: GrammarVocabulary) -> None:
    """What stands behind cannot be accepted; the matcher has no fault, as the draft was nobody's choice."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="the"))
    masks = np.zeros((4, vocabulary.num_words), np.int32)
    assert matcher.fill_along([ord("t"), ord("x"), ord("e")], [0, 1, 2], (), masks) == [0, 1]
    assert as_sets(masks[:2]) == [{ord("t"), 258}, {ord("h")}]
    assert matcher.fault == ""
    assert allowed(matcher, vocabulary) == {ord("t"), 258}


def test_masks_along_a_tree_are_those_of_following_each_path(vocabulary: GrammarVocabulary) -> None:
    """Branch by branch the matcher goes back to where they part; what follows an end, or what is not allowed, gets none."""
    text = structure("regex", pattern="t(he|o) (end|eve)?")
    matcher = matcher_of(vocabulary, text)
    drafts = [ord(char) for char in "txhoze  ee"]
    parents = [0, 0, 1, 1, 2, 3, 4, 6, 7, 8]
    masks = np.full((11, vocabulary.num_words), -1, np.int32)
    paths = {0: "", 1: "t", 3: "th", 4: "to", 6: "the", 7: "to ", 8: "the ", 9: "to e", 10: "the e"}
    places = matcher.fill_along(drafts, parents, (), masks)
    assert sorted(places) == sorted(paths)
    for place, mask in zip(places, as_sets(masks), strict=False):
        follower = matcher_of(vocabulary, text)
        for char in paths[place]:
            follower.accept(ord(char))
        assert mask == allowed(follower, vocabulary), paths[place]
    assert sorted(matcher.fill_along(drafts, parents, (ord("h"),), masks)) == [0, 1, 4, 7, 9]
    assert allowed(matcher, vocabulary) == {ord("t"), 258}


def test_importing_the_library_does_not_bring_transformers() -> None:
    """7 s of every start, and code that no process of ours may run; the placeholder is gone afterwards."""
    import subprocess

    code = "import sys, runtime.structured.matching; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mask_is_what_the_grammar_allows(vocabulary: GrammarVocabulary) -> None:
    """Byte by byte; tokens of several bytes where they fit; control tokens never; the end only when it is complete."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="th(e|is)?"))
    assert allowed(matcher, vocabulary) == {ord("t"), 258}
    matcher.accept(258)
    assert allowed(matcher, vocabulary) == {EOS}
    other = matcher_of(vocabulary, structure("regex", pattern="th(e|is)?"))
    for byte in b"th":
        other.accept(byte)
    assert allowed(other, vocabulary) == {EOS, ord("e"), ord("i")}
    assert not matcher.fault
    assert not other.fault


def test_random_walks_give_what_the_schema_says(vocabulary: GrammarVocabulary) -> None:
    """Whatever is drawn under the masks parses, and has the types, names and bounds of the schema."""
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "yy"]}, "n": {"type": "integer", "minimum": 3, "maximum": 120}},
        "required": ["a", "n"],
        "additionalProperties": False,
    }
    grammars = Grammars(vocabulary)
    grammar = compile_structure(vocabulary, structure("json_schema", json_schema=schema, max_whitespace_cnt=1))
    draw = np.random.default_rng(5)
    for _ in range(20):
        matcher, text = grammars.matcher(grammar), b""
        while (token := int(draw.choice(sorted(allowed(matcher, vocabulary))))) != EOS:
            matcher.accept(token)
            text += TABLE[token]
        value = json.loads(text)
        assert set(value) == {"a", "n"}
        assert value["a"] in ("x", "yy")
        assert 3 <= value["n"] <= 120


def test_a_token_that_was_not_allowed_is_a_fault_not_a_crash(vocabulary: GrammarVocabulary) -> None:
    """From then on nothing may come."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="a"))
    matcher.accept(ord("b"))
    assert matcher.fault == "grammar_violated"
    assert allowed(matcher, vocabulary) == set()


def test_going_on_after_the_end_is_a_fault_not_a_crash(vocabulary: GrammarVocabulary) -> None:
    """The library raises there."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="a"))
    matcher.accept(ord("a"))
    matcher.accept(EOS)
    assert allowed(matcher, vocabulary) == set()
    assert matcher.fault == "grammar_violated"


def test_a_grammar_that_leads_nowhere_is_a_fault(vocabulary: GrammarVocabulary) -> None:
    """It compiles, begins, and then allows nothing: that choice ends with a word of its own."""
    matcher = matcher_of(vocabulary, structure("grammar", grammar='root ::= "a" stuck\nstuck ::= "b" stuck'))
    for byte in b"ab":
        matcher.accept(byte)
    circular = matcher_of(vocabulary, structure("grammar", grammar='root ::= "a" loop\nloop ::= loop'))
    circular.accept(ord("a"))
    assert allowed(matcher, vocabulary) == {ord("b")}
    assert allowed(circular, vocabulary) == set()
    assert circular.fault == "grammar_stuck"


@pytest.mark.parametrize(("step_s", "num_steps"), [(0.6, 1), (0.2, 3), (0.02, 60)])
def test_a_slow_grammar_gives_up(
    vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch, step_s: float, num_steps: int
) -> None:
    """After half a second of the thread's time and ten milliseconds a step, however they come."""
    assert fault_after(vocabulary, monkeypatch, [step_s] * num_steps) == "grammar_too_slow"
    assert fault_after(vocabulary, monkeypatch, [step_s / 2] * num_steps) == ""


def test_one_long_step_is_no_fault(vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hypervisor takes the processor for a third of a second, and the thread's clock runs on."""
    assert fault_after(vocabulary, monkeypatch, [0.3, *[0.0001] * 100]) == ""


def fault_after(vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch, steps_s: list[float]) -> str:
    """Of a matcher whose steps cost so much by the thread's clock."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="a*"))
    ticks = iter([tick for step_s in steps_s for tick in (0.0, step_s)])
    monkeypatch.setattr(time, "thread_time", lambda: next(ticks))
    for _ in steps_s:
        matcher.accept(ord("a"))
    monkeypatch.undo()
    return matcher.fault


def test_waiting_for_a_processor_is_no_fault_of_a_grammar(
    vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loaded machine ends nobody's answer: hours pass on the wall, and the thread hardly ran."""
    matcher = matcher_of(vocabulary, structure("regex", pattern="a*"))
    hours = iter(range(0, 1_000_000, 3600))
    monkeypatch.setattr(time, "perf_counter", lambda: next(hours))
    monkeypatch.setattr(time, "monotonic", lambda: next(hours))
    for _ in range(20):
        assert ord("a") in allowed(matcher, vocabulary)
        matcher.accept(ord("a"))
    monkeypatch.undo()
    assert not matcher.fault


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "{}",
        structure("regex", pattern="(("),
        structure("grammar", grammar='root ::= "a" missing'),
        structure("json_schema", json_schema={"$ref": "#/$defs/nothing"}),
        structure("json_schema", json_schema={"type": "nothing"}),
        structure("json_schema", json_schema={"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
    ],
)
def test_bad_structures_are_refused(vocabulary: GrammarVocabulary, text: str) -> None:
    """With the library's own reason, which holds no source line of it."""
    with pytest.raises(RequestRejected) as refused:
        compile_structure(vocabulary, text)
    assert refused.value.code == "invalid_grammar"
    assert not re.search(r"\.cc:|\n", str(refused.value))


def test_a_structure_that_takes_all_memory_is_not_called_wrong(
    vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xgrammar lets C++'s word for it through as an error of the grammar."""

    def exhaust(*_: object) -> None:
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr("runtime.structured.compiler.CompiledGrammar.compile", exhaust)
    with pytest.raises(MemoryError):
        compile_structure(vocabulary, structure("regex", pattern="a"))


@pytest.mark.parametrize("grammar", [b"", b"{}", b"\xff\xfe", b'{"__VERSION__": "x"}', b"[" * 100])
def test_bytes_that_are_no_grammar_are_refused(vocabulary: GrammarVocabulary, grammar: bytes) -> None:
    """A captured gateway may send anything."""
    for sent in (grammar, vocabulary.digest + grammar):
        with pytest.raises(RequestRejected):
            Grammars(vocabulary).matcher(sent)


def test_a_grammar_of_another_vocabulary_is_refused(vocabulary: GrammarVocabulary) -> None:
    """Its token ids would mean something else."""
    other = GrammarVocabulary([*TABLE[:-1], b'"]'], [EOS], vocab_size=VOCAB_SIZE)
    with pytest.raises(RequestRejected):
        Grammars(other).matcher(compile_structure(vocabulary, structure("regex", pattern="a+")))


def test_the_cache_is_bounded_and_keeps_what_was_used_last(vocabulary: GrammarVocabulary) -> None:
    """The newest stays however large; matchers in use do not depend on it."""
    grammars = Grammars(vocabulary, max_cached_bytes=1)
    first = grammars.matcher(compile_structure(vocabulary, structure("regex", pattern="a")))
    grammars.matcher(compile_structure(vocabulary, structure("regex", pattern="b")))
    assert len(grammars._cached) == 1
    assert allowed(first, vocabulary) == {ord("a")}


def test_masked_logits_keep_what_is_allowed() -> None:
    """Bit by bit against the slow reading, with a vocabulary that fills no whole word, in the rows that are named only."""
    draw = np.random.default_rng(1)
    logits = torch.from_numpy(draw.normal(size=(4, 77)).astype(np.float32))
    bits = draw.integers(-(1 << 31), (1 << 31) - 1, size=(2, 3), dtype=np.int64).astype(np.int32)
    masked = mask_disallowed(logits, torch.tensor([3, 1]), torch.from_numpy(bits))
    for row, words in ((3, bits[0]), (1, bits[1])):
        for token in range(77):
            is_allowed = bool(int(words[token // 32]) >> (token % 32) & 1)
            assert masked[row, token] == (logits[row, token] if is_allowed else -torch.inf)
    assert torch.equal(masked[[0, 2]], logits[[0, 2]])
