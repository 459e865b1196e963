"""Tools that a chat request describes: is each description one, and is its schema a JSON Schema?

Only the structure is checked, and only of the keywords that shape a value (JSON Schema 2020-12): enough to tell a client at
once, and where, that a schema is not one. Other keywords pass through to the model unread.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from appliance.gateway.api.constrained_schema import constrained
from appliance.gateway.errors import BadRequest
from appliance.gateway.tools.structure import ANY_OBJECT, CallableTool

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_LISTS_OF_NAMES = ("required",)


class Function(Struct, forbid_unknown_fields=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True):
    """One entry of `tools`."""

    function: Function
    type: Literal["function"] = "function"

    def described(self) -> dict[str, Any]:
        """As chat templates expect it: what the client said, and nothing that it did not."""
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        if self.function.parameters is not None:
            function["parameters"] = self.function.parameters
        return {"type": "function", "function": function}


def verify_tools(tools: Sequence[Tool], max_tools: int) -> None:
    """Check number, names and schemas.

    Raises: BadRequest, naming the place.
    """
    if len(tools) > max_tools:
        raise BadRequest(
            "too_many_tools", f"tools: {len(tools)} tools, at most {max_tools} are taken", parameter="tools"
        )
    names: set[str] = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function"
        if tool.function.name in names:
            raise BadRequest(
                "invalid_tool", f"{where}.name: {tool.function.name} is named twice", parameter=f"{where}.name"
            )
        names.add(tool.function.name)
        schema = tool.function.parameters
        if schema is None:
            continue
        if not isinstance(schema, dict) or schema.get("type", "object") != "object":
            raise _not_a_schema(f"{where}.parameters", 'a JSON Schema of type "object"', schema)
        _verify_schema(schema, f"{where}.parameters")
        if tool.function.strict:
            constrained(schema, f"{where}.parameters")


def callable_tools(tools: Sequence[Tool]) -> list[CallableTool]:
    """The tools with the schemas that calls can be held to: a strict tool's own, and another's if all of it can be."""
    return [CallableTool(tool.function.name, _held_schema(tool.function)) for tool in tools]


def _held_schema(function: Function) -> dict[str, Any]:
    schema: dict[str, Any] | None = function.parameters
    if not schema:
        # A tool that names no parameters takes none.
        return {"type": "object", "properties": {}, "additionalProperties": False}
    try:
        held: dict[str, Any] = constrained({"type": "object"} | schema, "")
    except BadRequest:
        return ANY_OBJECT
    return held


def _verify_schema(schema: Any, where: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _not_a_schema(where, "a JSON Schema (an object)", schema)
    _verify_type(schema, where)
    for key in _SCHEMAS_BY_NAME:
        members = schema.get(key, {})
        if not isinstance(members, dict):
            raise _not_a_schema(f"{where}.{key}", "an object of schemas", members)
        for name, member in members.items():
            _verify_schema(member, f"{where}.{key}.{name[:64]}")
    for key in _LISTS_OF_SCHEMAS:
        for index, member in enumerate(_list(schema, key, where, "a list of schemas")):
            _verify_schema(member, f"{where}.{key}[{index}]")
    for key in _SINGLE_SCHEMAS:
        if key in schema:
            _verify_schema(schema[key], f"{where}.{key}")
    for key in _LISTS_OF_NAMES:
        for index, name in enumerate(_list(schema, key, where, "a list of names")):
            if not isinstance(name, str):
                raise _not_a_schema(f"{where}.{key}[{index}]", "a name", name)
    _list(schema, "enum", where, "a list of values")


def _verify_type(schema: dict[str, Any], where: str) -> None:
    if "type" not in schema:
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not kinds or not all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
        raise _not_a_schema(f"{where}.type", f"one of {', '.join(sorted(_TYPES))}", schema["type"])


def _list(schema: dict[str, Any], key: str, where: str, expected: str) -> list[Any]:
    value = schema.get(key, [])
    if not isinstance(value, list):
        raise _not_a_schema(f"{where}.{key}", expected, value)
    return value


def _not_a_schema(where: str, expected: str, got: Any) -> BadRequest:
    shown = repr(got)
    shown = shown if len(shown) <= 48 else shown[:48] + "…"
    return BadRequest("invalid_tool_schema", f"{where}: expected {expected}, got {shown}", parameter=where)
