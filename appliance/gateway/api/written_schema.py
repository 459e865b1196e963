"""A JSON Schema in the words that the compiler holds output to.

The compiler passes over keywords of a schema that names no type, over the type beside `enum`, and over required names that no
property has; one character that is a string may be a control character, and its
formats let more pass than they should. Each has other words that mean the same, or a little less, and that it honours.
"""

from typing import Any

from appliance.gateway.api.text_patterns import FORMATS, MAX_MOST, pattern_of_one, written_pattern

ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly")
)
"""Say something to readers, and nothing about values."""
BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "propertyNames")
OBJECT_WORDS = frozenset(
    (
        *("properties", "patternProperties", "additionalProperties", "propertyNames", "required"),
        *("minProperties", "maxProperties"),
    )
)
_WORDS_OF = {
    "object": OBJECT_WORDS,
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("pattern", "format", "minLength", "maxLength")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
}
_DECIDING = frozenset(("type", "enum", "const", "anyOf", "allOf", "$ref"))


def as_written(schema: Any) -> Any:
    """The schema in those words. It MUST have been verified (`constrained_schema`)."""
    if not isinstance(schema, dict):
        return schema
    written = {key: _written_members(key, value) for key, value in schema.items()}
    if not _DECIDING & set(written):
        kinds = [kind for kind, words in _WORDS_OF.items() if words & set(written)]
        if kinds:
            written["type"] = kinds[0] if len(kinds) == 1 else kinds
    _choose_values(written)
    _write_text(written)
    _add_required(written)
    _open(written)
    return written


def is_of_type(value: Any, types: str | list[str] | None) -> bool:
    """Whether a value is of one of the types; of any, where none is named."""
    named = [types] if isinstance(types, str) else types
    if named is None:
        return True
    if isinstance(value, bool) or value is None:
        return ("null" if value is None else "boolean") in named
    if isinstance(value, int | float):
        return "number" in named or ("integer" in named and value == int(value))
    return ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object") in named


def _written_members(key: str, value: Any) -> Any:
    if key in BY_NAME:
        is_pattern = key == "patternProperties"
        return {written_pattern(name) if is_pattern else name: as_written(member) for name, member in value.items()}
    if key in LISTS:
        return [as_written(member) for member in value]
    return as_written(value) if key in SINGLE else value


def _choose_values(schema: dict[str, Any]) -> None:
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if is_of_type(value, schema.get("type"))]
        if "const" in schema:
            del schema["enum"]


def _write_text(schema: dict[str, Any]) -> None:
    if "format" in schema:
        schema.pop("minLength", None)  # One at most, which every text of a format has.
    if "pattern" in schema:
        schema["pattern"] = written_pattern(schema["pattern"])
    elif schema.get("format") in FORMATS:
        schema["pattern"] = FORMATS[schema.pop("format")]
    elif schema.get("maxLength") == 1:
        schema["pattern"] = pattern_of_one(schema.pop("minLength", 0))
        del schema["maxLength"]
    elif schema.get("maxLength", 0) > MAX_MOST:
        del schema["maxLength"]


def _add_required(schema: dict[str, Any]) -> None:
    """The compiler has only what is named come."""
    properties = schema.get("properties", {})
    absent = [name for name in schema.get("required", ()) if name not in properties]
    if absent:
        schema["properties"] = properties | {name: schema.get("additionalProperties", True) for name in absent}


def _open(schema: dict[str, Any]) -> None:
    """Where only their number is told, items and properties may be any; the compiler would have none."""
    if {"minItems", "maxItems"} & set(schema) and not {"items", "prefixItems"} & set(schema):
        schema["items"] = True
    named = OBJECT_WORDS & set(schema)
    if named and named <= {"minProperties", "maxProperties"}:
        schema["additionalProperties"] = True
