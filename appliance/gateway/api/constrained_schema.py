"""JSON Schemas that output is held to: only of keywords that really hold it; any other is refused by name.

The compiler passes over keywords that it does not know without a word, and then an answer would not be what was asked. So what it
honours is listed here, and a test holds the list against it. A schema that is only told to a model (`tool_schemas`) may say more.
"""

from typing import Any

from appliance.gateway.errors import BadRequest

ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly")
)
"""Say something to readers, and nothing about values."""
BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "propertyNames")
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
        *("uri-template", "uuid", "json-pointer", "relative-json-pointer"),
    )
)
_HINTS = {
    "oneOf": "use anyOf",
    "uniqueItems": "items may repeat",
    "unevaluatedProperties": "use additionalProperties",
}
_ALONE = {
    "$ref": frozenset(("$defs", "definitions")),
    "anyOf": frozenset(("$defs", "definitions")),
    "allOf": frozenset(("$defs",)),
}
"""What decides alone, and what may stand beside it: the compiler would pass over anything else there."""


def verify_constrained(schema: Any, where: str) -> None:
    """Check that a schema can be held to, all of it. Its depth and size are the body's.

    Raises: BadRequest, naming the place.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refused(where, f"expected a JSON Schema, got {str(schema)[:32]!r}")
    _verify_keywords(schema, where)
    for key in BY_NAME:
        members = schema.get(key, {})
        if not isinstance(members, dict):
            raise _refused(f"{where}.{key}", "expected an object of schemas")
        for name, member in members.items():
            verify_constrained(member, f"{where}.{key}.{name[:64]}")
    for key in LISTS:
        members = schema.get(key, [])
        if not isinstance(members, list):
            raise _refused(f"{where}.{key}", "expected a list of schemas")
        for index, member in enumerate(members):
            verify_constrained(member, f"{where}.{key}[{index}]")
    for key in SINGLE:
        if key in schema:
            verify_constrained(schema[key], f"{where}.{key}")


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
    if "multipleOf" in schema and schema.get("type") != "integer":
        raise _refused(f"{where}.multipleOf", "output can be held to it for the type integer only")
    if "pattern" in schema and ("minLength" in schema or "maxLength" in schema or "format" in schema):
        raise _refused(f"{where}.pattern", "beside a pattern output cannot be held to lengths or formats")
    if "format" in schema and schema["format"] not in FORMATS:
        raise _refused(f"{where}.format", f"known are {', '.join(sorted(FORMATS))}")
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise _refused(f"{where}.$ref", "only references within the schema, which begin with #, are followed")


def _refused(where: str, reason: str) -> BadRequest:
    return BadRequest("unsupported_schema", f"{where}: {reason}", parameter=where)
