"""Forms as structures: what is required is what the same form's parser reads, and nothing else passes.

xgrammar is the judge; so these tests import what the gateway never does.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.gateway.api.constrained_schema import FORMATS, PLAIN, constrained
from appliance.gateway.api.schema_loops import find_loop
from appliance.gateway.errors import BadRequest
from appliance.gateway.tools import deepseek, llama3_json
from appliance.gateway.tools.events import Call, gather
from appliance.gateway.tools.forms import Forms
from appliance.gateway.tools.structure import (
    ANY_OBJECT,
    CallableTool,
    after_reasoning,
    json_format,
    optional_calls,
    required_calls,
)
from appliance.inference.vocabulary import load_grammar_vocabulary
from runtime.structured.compiler import compile_structure
from runtime.structured.matching import Grammars
from runtime.structured.vocabulary import GrammarVocabulary
from tests.support.model_folders import write_byte_level_model

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOLS = [CallableTool("f", SCHEMA), CallableTool("g", ANY_OBJECT)]
F, G = Call("f", '{"a": 1}'), Call("g", '{"x": [1]}')
TEXTS = {
    Forms("hermes"): '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
    '<tool_call>{"name": "g", "arguments": {"x": [1]}}</tool_call>',
    Forms("llama3_json"): '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {"x": [1]}}',
    Forms("mistral"): '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"x": [1]}}]',
    Forms("mistral", variant="args"): '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{"x": [1]}',
    Forms("deepseek"): (
        f"{deepseek.CALLS_BEGIN}{deepseek.CALL_BEGIN}f{deepseek.SEPARATOR}" + '{"a": 1}' + deepseek.CALL_END
        + f"{deepseek.CALL_BEGIN}g{deepseek.SEPARATOR}" + '{"x": [1]}' + deepseek.CALL_END + deepseek.CALLS_END
    ),
    Forms("deepseek", variant="fenced"): (
        f"{deepseek.CALLS_BEGIN}{deepseek.CALL_BEGIN}function{deepseek.SEPARATOR}f\n```json\n" + '{"a": 1}\n```'
        + f"{deepseek.CALL_END}\n{deepseek.CALL_BEGIN}function{deepseek.SEPARATOR}g\n```json\n" + '{"x": [1]}\n```'
        + deepseek.CALL_END + deepseek.CALLS_END
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> GrammarVocabulary:
    folder: Path = write_byte_level_model(tmp_path_factory.mktemp("structure-model"))
    made = load_grammar_vocabulary(folder, [261], 280)
    assert made is not None
    return made


def follows(vocabulary: GrammarVocabulary, format_: Any, text: str) -> bool:
    """Is the text, whole, what the format asks for?"""
    structure = json.dumps({"type": "structural_tag", "format": format_})
    matcher = Grammars(vocabulary).follower(compile_structure(vocabulary, structure))._matcher
    return bool(matcher.accept_string(text, False) and matcher.is_completed())


LOOP = {"$ref": "#/$defs/b"}
"""In a schema whose definition `b` does not end."""


@pytest.mark.parametrize("forms", TEXTS, ids=lambda forms: f"{forms.calls}-{forms.variant}")
def test_required_calls_are_what_the_parser_reads(vocabulary: GrammarVocabulary, forms: Forms) -> None:
    """The text of two calls passes where several may come; prose, a wrong type and another tool do not."""
    text = TEXTS[forms]
    parser = forms.new_call_parser()
    assert gather([*parser.feed(text), *parser.finish()]).calls == (F, G)
    several = required_calls(forms, TOOLS, parallel=True)
    assert follows(vocabulary, several, text)
    assert not follows(vocabulary, required_calls(forms, TOOLS, parallel=False), text)
    for other in ("", "Hello", text.replace('{"a": 1}', '{"a": "x"}'), text.replace('"g"', '"h"').replace("g[", "h[")):
        if other != text and "h" not in text:
            assert not follows(vocabulary, several, other), other


@pytest.mark.parametrize("forms", TEXTS, ids=lambda forms: f"{forms.calls}-{forms.variant}")
def test_optional_calls_leave_prose_alone(vocabulary: GrammarVocabulary, forms: Forms) -> None:
    """Prose passes, calls pass, calls with wrong arguments do not."""
    format_ = optional_calls(forms, TOOLS, parallel=True)
    assert follows(vocabulary, format_, "Hello there, {1}.")
    assert follows(vocabulary, format_, TEXTS[forms])
    wrong = TEXTS[forms].replace('{"a": 1}', '{"a": "x"}')
    assert not follows(vocabulary, format_, wrong)
    mark = llama3_json.TAG if forms.calls == "llama3_json" else ""
    assert not follows(vocabulary, format_, f"Hello. {mark}{wrong}")


def test_arguments_keep_their_bounds(vocabulary: GrammarVocabulary) -> None:
    """In calls that are required, and in those that may come between prose."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 300}}, "required": ["a"]}
    tools = [CallableTool("f", constrained(schema, "s"))]
    for format_ in (
        required_calls(Forms("hermes"), tools, parallel=False),
        optional_calls(Forms("hermes"), tools, parallel=True),
    ):
        for length in (300, 301):
            call = f'<tool_call>{{"name": "f", "arguments": {{"a": "{"é" * length}"}}}}</tool_call>'
            assert follows(vocabulary, format_, call) is (length == 300)


def test_a_form_without_structure_has_none() -> None:
    """Pythonic calls are read, and cannot be required."""
    assert required_calls(Forms("pythonic"), TOOLS, parallel=True) is None
    assert optional_calls(Forms("none"), TOOLS, parallel=True) is None


@pytest.mark.parametrize(
    ("is_open", "text", "passes"),
    [
        (False, '<think>\nanything {"a"</think>\n\n{"a": 1}', True),
        (False, '{"a": 1}', True),
        (False, "<think>never closed", False),
        (True, 'hm</think>\n\n{"a": 1}', True),
        (True, 'hm</think>\n\n{"a": "x"}', False),
    ],
)
def test_reasoning_is_free_and_what_follows_is_held(
    vocabulary: GrammarVocabulary, is_open: bool, text: str, passes: bool
) -> None:
    """Open or not, as the prompt ends."""
    format_ = after_reasoning(Forms("none", "qwen3"), json_format(SCHEMA), is_open=is_open)
    assert follows(vocabulary, format_, text) is passes


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_that_is_taken_is_held_to(vocabulary: GrammarVocabulary, name: str) -> None:
    """The library passes over those that it does not know."""
    assert not follows(vocabulary, json_format(constrained({"format": name}, "s")), '"@ ^ @"')


HELD = [
    ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", '["x"]'),
    ({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}}, "[1]", "[1, 2, 3]"),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, "[1]", "[1, 2]"),
    ({"type": "string", "minLength": 2, "maxLength": 3}, '"ab"', '"a"'),
    ({"type": "string", "pattern": "a+"}, '"aa"', '"b"'),
    ({"type": "integer", "minimum": 3, "maximum": 5}, "4", "6"),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}, "4", "5"),
    ({"type": "number", "minimum": 0.5}, "0.7", "0.2"),
    ({"type": "integer", "multipleOf": 3}, "6", "4"),
    ({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": True}, '{"a": 1}', "{}"),
    ({"type": "object", "propertyNames": {"pattern": "a+"}, "additionalProperties": True}, '{"aa": 1}', '{"b": 1}'),
    ({"type": "object", "patternProperties": {"^a$": {"type": "integer"}}}, '{"a": 1}', '{"a": "x"}'),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", '"x"'),
    ({"allOf": [{"type": "integer"}]}, "3", '"x"'),
    ({"enum": ["a", 1]}, '"a"', '"b"'),
    ({"const": {"a": 1}}, '{"a":1}', '{"a":2}'),
    ({"type": "string", "format": "date"}, '"2026-01-31"', '"soon"'),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, '{"a": 1}', "{}"),
    ({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}, "[1]", "[null]"),
    ({"type": ["integer", "null"]}, "null", '"x"'),
    # What the compiler alone would let pass.
    ({"pattern": "^a$"}, '"a"', "1"),
    ({"minItems": 1}, "[1]", "[]"),
    ({"minLength": 1, "items": {"type": "null"}}, "[null]", '""'),
    ({"type": "string", "minLength": 1}, '"a"', '"\t"'),
    ({"type": "string", "maxLength": 3}, '"é😀"', '"abcd"'),
    ({"type": "string", "maxLength": 1}, '"é"', '"\t"'),
    ({"type": "string", "minLength": 1, "maxLength": 1}, '"é"', '"\x01"'),
    ({"type": "string", "maxLength": 2000}, f'"{"é" * 2000}"', f'"{"a" * 2001}"'),
    ({"type": "string", "maxLength": 1 << 40}, '"a"', '"\t"'),
    ({"type": "string", "minLength": 20, "maxLength": 300}, f'"{"é" * 20}"', f'"{"é" * 19}"'),
    ({"propertyNames": {"type": "string", "maxLength": 90}}, f'{{"{"a" * 90}": 1}}', f'{{"{"a" * 91}": 1}}'),
    ({"type": "string", "pattern": "^[a-z]{2,200}$"}, f'"{"a" * 200}"', f'"{"a" * 201}"'),
    ({"type": "string", "pattern": "^é.$"}, '"éa"', '"é""'),
    ({"type": "string", "pattern": r"^a(-[0-9]+)?$"}, '"a-1"', '"a1"'),
    ({"type": "string", "pattern": '^[^"]+$'}, '"a"', '"\t"'),
    ({"type": "string", "pattern": r"^\ud83d\ude00$"}, '"😀"', '"a"'),
    ({"type": "string", "pattern": r"^[^\ud800-\udfff]$"}, '"a"', '"aa"'),
    ({"type": "string", "format": "date"}, '"2024-02-29"', '"2023-02-29"'),
    ({"type": "string", "format": "date-time"}, '"2026-01-31T09:00:00.5Z"', '"2026-01-31T09:00:001Z"'),
    ({"type": "string", "format": "uri", "minLength": 1}, '"a:b"', '""'),
    ({"type": "string", "format": "ipv4"}, '"10.0.0.1"', '"10.0.0.01"'),
    ({"type": "string", "format": "email"}, '"a.b@c.org"', r'"\"\q\"@c.org"'),
    ({"type": "string", "enum": ["a", 1]}, '"a"', "1"),
    ({"type": "string", "enum": ["a", "b"], "const": "b"}, '"b"', '"a"'),
    ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a", "b"]}, '{"a":null,"b":1}', '{"a":null}'),
    ({"required": ["b"], "additionalProperties": {"type": "integer"}}, '{"b":1}', '{"b":"x"}'),
    ({"properties": {"y": {"type": "null"}}, "patternProperties": {"^x-": {"type": "null"}}}, '{"y":null}', '{"y":1}'),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), HELD, ids=lambda part: json.dumps(part)[:40])
def test_what_is_taken_is_held_to(vocabulary: GrammarVocabulary, schema: dict[str, Any], good: str, bad: str) -> None:
    """Each keyword that the gateway takes really decides."""
    written = json_format(constrained(schema, "schema"))
    assert follows(vocabulary, written, good)
    assert not follows(vocabulary, written, bad)


def test_the_table_names_every_plain_keyword() -> None:
    """No keyword is taken on trust."""
    named = {key for schema, _, _ in HELD for key in _keys(schema)}
    assert set(PLAIN) <= named


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_keys(item) for item in value.values()))
    return set().union(*(_keys(item) for item in value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"oneOf": [{"type": "string"}]}, "s.oneOf"),
        ({"not": {"type": "string"}}, "s.not"),
        ({"type": "array", "uniqueItems": True}, "s.uniqueItems"),
        ({"properties": {"a": {"contains": 1}}}, "s.properties.a.contains"),
        ({"type": "string", "format": "color"}, "s.format"),
        ({"type": "number", "multipleOf": 0.1}, "s.multipleOf"),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "s.allOf"),
        ({"$ref": "https://example.org/schema"}, "s.$ref"),
        ({"$ref": "#/$defs/x", "minLength": 3}, "s"),
        ({"type": "string", "pattern": "a", "minLength": 3}, "s.pattern"),
        ({"items": 3}, "s.items"),
        ({"type": []}, "s.type"),
        ({"type": "string", "format": "json-pointer"}, "s.format"),
        ({"type": "string", "format": "email", "maxLength": 9}, "s.format"),
        ({"type": "string", "format": "uri-reference", "minLength": 1}, "s.format"),
        ({"type": "string", "minLength": "1"}, "s.minLength"),
        ({"type": "string", "minLength": 129}, "s.minLength"),
        ({"type": "string", "minLength": 9, "maxLength": 8}, "s.minLength"),
        ({"type": "string", "pattern": r"a\n"}, "s.pattern"),
        ({"type": "string", "pattern": '["]b'}, "s.pattern"),
        ({"type": "string", "pattern": r"[\x00-\x1f]"}, "s.pattern"),
        ({"type": "string", "pattern": r"a\ude00\ud83d"}, "s.pattern"),
        ({"type": "string", "pattern": r"[\ud800-\udfff]"}, "s.pattern"),
        ({"type": "string", "pattern": r"\u{110000}"}, "s.pattern"),
        ({"type": "string", "pattern": 3}, "s.pattern"),
        ({"enum": ["a"], "minLength": 1}, "s"),
        ({"enum": ["a"], "type": "integer"}, "s.enum"),
        ({"const": 2**64}, "s.const"),
        ({"enum": [{"a": [2**64]}]}, "s.enum"),
        ({"required": "a"}, "s.required"),
        ({"required": ["a"], "additionalProperties": False}, "s.required"),
        ({"propertyNames": {"pattern": "a"}, "properties": {"a": {}}}, "s"),
        ({"propertyNames": {"pattern": "a"}, "additionalProperties": False}, "s"),
        ({"patternProperties": {"^a": {}, "b$": {}}}, "s.patternProperties"),
        ({"patternProperties": {"^a": {}}, "properties": {"ab": {}}}, "s.patternProperties"),
        ({"$ref": "#"}, "s"),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#/anyOf/0"}]}, "s"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "s.properties.a"),
        ({"properties": {"a": LOOP}, "$defs": {"b": {"$ref": "#/$defs/c"}, "c": LOOP}}, "s.properties.a"),
        ({"items": {"allOf": [LOOP]}, "$defs": {"b": {"anyOf": [LOOP, {"$ref": "#/$defs/b"}]}}}, "s.items"),
        (
            {"properties": {"a": {"$ref": "#/$defs/x~1y%20z"}}, "$defs": {"x/y z": {"$ref": "#/$defs/x~1y%20z"}}},
            "s.properties.a",
        ),
    ],
)
def test_what_output_cannot_be_held_to_is_refused_by_name(schema: dict[str, Any], place: str) -> None:
    """The library would pass over it."""
    with pytest.raises(BadRequest) as refused:
        constrained(schema, "s")
    assert (refused.value.code, refused.value.parameter) == ("unsupported_schema", place)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
        {"type": "array", "items": {"$ref": "#"}},
        {"anyOf": [{"$ref": "#"}, {"type": "string"}]},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}},
        },
        {"type": "object", "properties": {"a": {"type": "string"}}, "$defs": {"unused": {"$ref": "#/$defs/unused"}}},
        {"properties": {"a": {"$ref": "#/$defs/any"}}, "$defs": {"any": True}},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
    ],
)
def test_trees_and_what_nobody_refers_to_are_taken(schema: dict[str, Any]) -> None:
    """A reference back is no loop where something is written on the way, or another choice ends it."""
    constrained(schema, "s")


def test_a_long_chain_of_references_is_followed_in_time() -> None:
    """Ten thousand names, each for the next; the last for the first, or for a text."""
    for last, is_taken in ({"type": "string"}, True), ({"$ref": "#/$defs/d0"}, False):
        definitions = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(10_000)}
        schema = {"items": {"$ref": "#/$defs/d0"}, "$defs": definitions | {"d10000": last}}
        assert (find_loop(schema, "s") is None) is is_taken
