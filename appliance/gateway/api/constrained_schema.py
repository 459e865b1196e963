"""JSON Schemas that output is held to: only of keywords that really hold it; any other is refused by name.

The compiler passes over keywords that it does not know without a word, and over some that it knows where they stand beside others;
then an answer would not be what was asked. So what it honours is listed here, and a test holds the list against it;
`written_schema` says the rest in its words. A schema that is only told to a model (`tool_schemas`) may say more.
"""

from typing import Any

from appliance.gateway.api.schema_loops import find_loop
from appliance.gateway.api.text_patterns import MAX_LEAST, PatternRefused, literal_beginning, written_pattern
from appliance.gateway.api.written_schema import ANNOTATIONS, BY_NAME, LISTS, SINGLE, as_written, is_of_type
from appliance.gateway.errors import BadRequest

PLAIN = frozenset(
    (
        *("type", "required", "enum", "const", "pattern", "format", "minLength", "maxLength", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "minProperties", "maxProperties", "$ref"),
        "multipleOf",
    )
)
FORMATS = frozenset(
    (
        *("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference"),
        *("uri-template", "uuid"),
    )
)
TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_HINTS = {
    "oneOf": "use anyOf",
    "uniqueItems": "items may repeat",
    "unevaluatedProperties": "use additionalProperties",
}
_ALONE = {
    "$ref": frozenset(("$defs", "definitions")),
    "anyOf": frozenset(("$defs", "definitions")),
    "allOf": frozenset(("$defs",)),
    "enum": frozenset(("type", "const", "$defs", "definitions")),
    "const": frozenset(("type", "enum", "$defs", "definitions")),
    "propertyNames": frozenset(
        ("type", "additionalProperties", "minProperties", "maxProperties", "$defs", "definitions")
    ),
}
"""What decides alone, and what may stand beside it: the compiler would pass over anything else there."""
_MAX_INTEGER = (1 << 63) - 1


def constrained(schema: Any, where: str) -> Any:
    """The schema in the compiler's words, if output can be held to all of it. Its depth and size are the body's.

    Raises: BadRequest, naming the place.
    """
    _verify(schema, where)
    if (place := find_loop(schema, where)) is not None:
        raise _refused(place, "it refers to itself without an end, so nothing could follow it")
    return as_written(schema)


def _verify(schema: Any, where: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refused(where, f"expected a JSON Schema, got {str(schema)[:32]!r}")
    _verify_keywords(schema, where)
    _verify_values(schema, where)
    _verify_text(schema, where)
    for key in BY_NAME:
        members = schema.get(key, {})
        if not isinstance(members, dict):
            raise _refused(f"{where}.{key}", "expected an object of schemas")
        for name, member in members.items():
            _verify(member, f"{where}.{key}.{name[:64]}")
    _verify_names(schema, where)
    for key in LISTS:
        members = schema.get(key, [])
        if not isinstance(members, list):
            raise _refused(f"{where}.{key}", "expected a list of schemas")
        for index, member in enumerate(members):
            _verify(member, f"{where}.{key}[{index}]")
    for key in SINGLE:
        if key in schema:
            _verify(schema[key], f"{where}.{key}")


def _verify_keywords(schema: dict[str, Any], where: str) -> None:
    known = {*BY_NAME, *LISTS, *SINGLE, *PLAIN, *ANNOTATIONS}
    for key in schema:
        if key not in known:
            if key == "uniqueItems" and schema[key] is False:
                continue
            hint = f"; {_HINTS[key]}" if key in _HINTS else ""
            raise _refused(f"{where}.{key[:64]}", f"output cannot be held to this keyword{hint}")
    for key, companions in _ALONE.items():
        others = set(schema) - companions - ANNOTATIONS - {key}
        if key in schema and others:
            raise _refused(where, f"beside {key} output cannot be held to {', '.join(sorted(others))[:64]}")
    if len(schema.get("allOf", ())) > 1:
        raise _refused(f"{where}.allOf", "output can be held to one schema of allOf only")
    if "propertyNames" in schema and schema.get("additionalProperties") is False:
        raise _refused(where, "beside propertyNames output cannot be held to additionalProperties: false")
    if "multipleOf" in schema and schema.get("type") != "integer":
        raise _refused(f"{where}.multipleOf", "output can be held to it for the type integer only")
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _refused(f"{where}.$ref", "only references within the schema, which begin with #, are followed")


def _verify_values(schema: dict[str, Any], where: str) -> None:
    """Types, and the values of `enum` and `const`: some must be of the type."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not types or not all(isinstance(one, str) and one in TYPES for one in types):
            raise _refused(f"{where}.type", f"expected one of {', '.join(sorted(TYPES))}, or several")
    for key in ("enum", "const"):
        if key not in schema:
            continue
        values = schema[key] if key == "enum" else [schema[key]]
        if not isinstance(values, list) or not any(is_of_type(value, schema.get("type")) for value in values):
            raise _refused(f"{where}.{key}", "expected values, one of the type at least")
        if _is_beyond_integers(values):
            raise _refused(f"{where}.{key}", "output can be held to integers of 64 bits only")


def _is_beyond_integers(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(_is_beyond_integers(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -_MAX_INTEGER <= value <= _MAX_INTEGER


def _verify_text(schema: dict[str, Any], where: str) -> None:
    lengths = [key for key in ("minLength", "maxLength") if key in schema]
    for key in lengths:
        if type(schema[key]) is not int or schema[key] < 0:
            raise _refused(f"{where}.{key}", "expected a number of characters")
    if schema.get("minLength", 0) > MAX_LEAST:
        raise _refused(f"{where}.minLength", f"output can be held to a least length of {MAX_LEAST} characters at most")
    if schema.get("minLength", 0) > schema.get("maxLength", MAX_LEAST):
        raise _refused(f"{where}.minLength", "it is more than maxLength, so no text would follow it")
    if "pattern" in schema:
        if lengths or "format" in schema:
            raise _refused(f"{where}.pattern", "beside a pattern output cannot be held to lengths or formats")
        _verify_pattern(schema["pattern"], f"{where}.pattern")
    if "format" in schema:
        may_be_empty = schema["format"] in ("uri-reference", "uri-template")
        if lengths and (may_be_empty or lengths != ["minLength"] or schema["minLength"] > 1):
            raise _refused(f"{where}.format", "beside a format output cannot be held to lengths")
        if schema["format"] not in FORMATS:
            raise _refused(f"{where}.format", f"known are {', '.join(sorted(FORMATS))}")


def _verify_pattern(pattern: Any, where: str) -> None:
    if not isinstance(pattern, str):
        raise _refused(where, "expected a regular expression")
    try:
        written_pattern(pattern)
    except PatternRefused as refused:
        message = (
            f"it needs {str(refused)[:32]}, and no quotation mark, backslash, control character or half of a surrogate "
            "pair can be asked for"
        )
        raise _refused(where, message) from None


def _verify_names(schema: dict[str, Any], where: str) -> None:
    """Of properties: those that must come are there, and no pattern says more of one that is named."""
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise _refused(f"{where}.required", "expected a list of names")
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    absent = [name for name in required if name not in named]
    if absent and (patterns or schema.get("additionalProperties") is False):
        raise _refused(f"{where}.required", f"{absent[0][:64]!r} is not among the properties")
    for pattern in patterns:
        place = f"{where}.patternProperties"
        _verify_pattern(pattern, place)
        begin = literal_beginning(pattern)
        if len(patterns) > 1 or any(not begin or name.startswith(begin) for name in named):
            raise _refused(place, "of several schemas that a name may have to follow output is held to one only")


def _refused(where: str, reason: str) -> BadRequest:
    return BadRequest("unsupported_schema", f"{where}: {reason}", parameter=where)
