"""Serialized grammars without their copies: what a matcher allows stays the same, and many tools fit into a message."""

import json
import random
from typing import Any

import numpy as np
import pytest

from appliance.gateway.tools.forms import Forms
from appliance.gateway.tools.structure import CallableTool, optional_calls, required_calls
from appliance.messages.grammar import MAX_GRAMMAR_BYTES
from runtime.structured.bounds import with_budgets
from runtime.structured.compiler import compile_structure
from runtime.structured.library import CompiledGrammar, Grammar, new_matcher
from runtime.structured.trimming import trimmed
from runtime.structured.vocabulary import GrammarVocabulary

EOS = 256
TABLE = [*(bytes([byte]) for byte in range(256)), b"", b"the", b'": "', b'"}', b'{"name": "', b"tool_"]
KINDS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "integer"},
    {"enum": ["a", "b"]},
    {"type": "array", "items": {"type": "string", "maxLength": 40}},
]
PATTERN = {"type": "structural_tag", "format": {"type": "regex", "pattern": "(ab|a[c-f]{2,5})*|x{3,90}y"}}


@pytest.fixture(scope="module")
def vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(TABLE, [EOS], vocab_size=len(TABLE))


def tools(count: int) -> list[CallableTool]:
    """Each with arguments of its own."""
    found = []
    for tool in range(count):
        members = {f"member_{tool}_{index}": kind for index, kind in enumerate(KINDS)}
        schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
        found.append(CallableTool(f"tool_{tool}", schema))
    return found


def tagged(form: Any) -> dict[str, Any]:
    return {"type": "structural_tag", "format": form}


@pytest.mark.parametrize(
    "structure",
    [
        tagged(required_calls(Forms(calls="hermes"), tools(3), parallel=True)),
        tagged(optional_calls(Forms(calls="hermes"), tools(3), parallel=True)),
        PATTERN,
    ],
    ids=["required", "optional", "pattern"],
)
def test_a_trimmed_grammar_allows_the_same(vocabulary: GrammarVocabulary, structure: dict[str, Any]) -> None:
    """Along random walks, and back again."""
    compiled = CompiledGrammar.compile(with_budgets(str(Grammar(json.dumps(structure)))), vocabulary.info)
    whole = compiled.serialize()
    short = trimmed(whole)
    assert len(short) < len(whole)
    loaded = CompiledGrammar.deserialize(short, vocabulary.info)
    draw = random.Random(7)
    for _ in range(8):
        matchers = [new_matcher(compiled), new_matcher(loaded)]
        for step in range(120):
            masks = np.zeros((2, vocabulary.num_words), np.int32)
            for row, matcher in enumerate(matchers):
                matcher.fill_next_token_bitmask(masks, row, False)
            assert (masks[0] == masks[1]).all()
            allowed = [token for token in range(len(TABLE)) if int(masks[0][token // 32]) >> (token % 32) & 1]
            token = draw.choice(allowed)
            if token == EOS:
                break
            assert [matcher.accept_token(token, False) for matcher in matchers] == [True, True]
            if step % 11 == 10:
                for matcher in matchers:
                    matcher.rollback(3)


def test_many_tools_fit_into_a_message(vocabulary: GrammarVocabulary) -> None:
    """A quarter of one holds these, which did not fit: with each rule's copy of all others they grew by the square."""
    structure = tagged(required_calls(Forms(calls="hermes"), tools(8), parallel=True))
    assert len(compile_structure(vocabulary, json.dumps(structure))) < MAX_GRAMMAR_BYTES // 4


def test_what_is_written_otherwise_stays_as_it_is() -> None:
    """Such as another version's, which deserializing judges."""
    for text in ("{}", '{"complete_fsm":3,"per_rule_fsms":[3]}', '{"complete_fsm":{"edges":{}},"per_rule_fsms":[]}'):
        assert trimmed(text) == text
