"""What an answer must look like: `response_format`, `regex`, `ebnf`, and the tools that must be called, as one structure.

It is compiled in step (3), before anything is reserved or recorded, so a structure that cannot be followed is the client's
error and nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from appliance.gateway.api.constrained_schema import constrained
from appliance.gateway.api.fields import SamplingFields
from appliance.gateway.api.parameters import parse_members
from appliance.gateway.api.text_patterns import PatternRefused, written_expression
from appliance.gateway.errors import BadRequest
from appliance.gateway.models import ServedModel
from appliance.gateway.tools.structure import (
    ANY_OBJECT,
    CallableTool,
    Format,
    after_reasoning,
    json_format,
    optional_calls,
    required_calls,
)


class JsonSchemaFormat(Struct, forbid_unknown_fields=True):
    """`response_format.json_schema`. With `strict` or without, output is held to the schema."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Structure:
    """A format that output is held to, and the parameter that asked for it."""

    format: Format
    parameter: str

    def encode(self) -> str:
        """For the compiler, and the same text for the same structure."""
        return json.dumps({"type": "structural_tag", "format": self.format}, separators=(",", ":"), ensure_ascii=False)


def parse_response_format(body: dict[str, Any]) -> Structure | None:
    """The structure that `response_format` asks for; None for text. Raises: BadRequest."""
    if not body:
        return None
    asked, where = parse_members(body, ResponseFormat, "response_format"), "response_format.json_schema"
    if (asked.json_schema is None) is (asked.type == "json_schema"):
        code = "missing_parameter" if asked.json_schema is None else "invalid_parameter"
        raise BadRequest(code, f"{where} goes with the type json_schema, and only with it", parameter=where)
    if asked.json_schema is None:
        return None if asked.type == "text" else Structure(json_format(ANY_OBJECT), "response_format")
    schema = parse_members(asked.json_schema, JsonSchemaFormat, where).schema
    return Structure(json_format(constrained(schema, f"{where}.schema")), "response_format")


def parse_patterns(
    regex: str | None, ebnf: str | None, json_schema: str | None = None, place: str = ""
) -> Structure | None:
    """The structure that SGLang's parameters ask for; at most one of them may. Raises: BadRequest."""
    if regex is None and ebnf is None and json_schema is None:
        return None
    given = {"regex": regex, "ebnf": ebnf, "json_schema": json_schema}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise BadRequest("invalid_parameter", f"give one of {', '.join(named)}", parameter=place + named[1])
    if regex is not None:
        return Structure({"type": "regex", "pattern": _expression(regex, place + "regex")}, place + "regex")
    if ebnf is not None:
        return Structure({"type": "grammar", "grammar": ebnf}, place + "ebnf")
    assert json_schema is not None
    return _parse_schema_text(json_schema, place + "json_schema")


def only_one(first: Structure | None, second: Structure | None) -> Structure | None:
    """Whichever is there. Raises: BadRequest if both are."""
    if first is not None and second is not None:
        message = f"give either {first.parameter} or {second.parameter}"
        raise BadRequest("invalid_parameter", message, parameter=second.parameter)
    return first or second


def hold_to_tools(
    model: ServedModel,
    answer: Structure | None,
    tools: Sequence[CallableTool],
    *,
    must_call: bool,
    is_strict: bool,
    parallel: bool,
    parameter: str,
) -> Structure | None:
    """The structure of an answer that may, or must, call tools.

    Args:
        answer: what an answer without calls must look like.
        must_call: some tool is required.
        is_strict: calls, if there are any, follow their schemas.
        parameter: what asks for the structure of calls.
    Raises: BadRequest if the model's form of calls has no structure.
    """
    if not tools or not (must_call or is_strict or answer is not None):
        return answer
    if must_call or answer is not None:
        calls = required_calls(model.forms, tools, parallel=parallel)
    else:
        calls = optional_calls(model.forms, tools, parallel=parallel)
    if calls is None:
        message = (
            f"{parameter}: the form in which {model.name} writes calls ({model.forms.calls}) cannot be constrained"
        )
        raise BadRequest("unsupported_parameter", message, parameter=parameter)
    if must_call or answer is None:
        return Structure(calls, parameter)
    return Structure({"type": "or", "elements": [calls, answer.format]}, answer.parameter)


def hold_after_reasoning(model: ServedModel, structure: Structure, *, is_open: bool) -> Structure:
    """Reasoning is free; what follows it is held."""
    return Structure(after_reasoning(model.forms, structure.format, is_open=is_open), structure.parameter)


def verify_sampling(sampling: SamplingFields, structure: Structure) -> None:
    """A grammar says by itself when an answer may end. Raises: BadRequest."""
    for name in ("ignore_eos", "min_tokens"):
        if getattr(sampling, name):
            message = f"{name} cannot go with {structure.parameter}, which says when the answer may end"
            raise BadRequest("invalid_parameter", message, parameter=name)


def _expression(regex: str, where: str) -> str:
    try:
        return written_expression(regex)
    except PatternRefused as refused:
        message = f"{where}: {str(refused)[:32]} is no character"
        raise BadRequest("invalid_grammar", message, parameter=where) from None


def _parse_schema_text(text: str, where: str) -> Structure:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("invalid_parameter", f"{where}: expected a JSON Schema as text", parameter=where) from None
    return Structure(json_format(constrained(schema, where)), where)
