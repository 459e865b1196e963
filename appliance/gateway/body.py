"""A request body, strictly: one JSON object in UTF-8, no repeated keys, no NaN, no lone surrogates, not too deep.

Repeated keys are refused because two readers of one body (a proxy in front, the audit behind) may take different ones.
The standard library's parser is used for that: it is the one that shows all pairs. Types are checked afterwards.
"""

import json
import re
from typing import Any, NoReturn

from appliance.gateway.errors import BadRequest

MAX_DEPTH = 48
MAX_CONTAINERS = 65_536
"""Objects and arrays in one body: more than any request that would not be refused anyway."""
MAX_QUOTES = 1 << 18
"""Bounds the time that strings take to parse; no context holds a text with more of them."""
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Matches at every quote, also of a string without end, and never goes back: linear whatever comes."""
_NO_BRACKET = re.compile(r"[^\[\]{}]+")


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse an untrusted body.

    Raises: BadRequest, naming what is wrong; nothing else.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("invalid_utf8", f"the request body is not UTF-8: byte {error.start}") from error
    _verify_shape(text)
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        message = f"the request body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise BadRequest("invalid_json", message) from error
    except ValueError as error:
        raise BadRequest("invalid_json", "the request body holds a number with too many digits") from error
    if not isinstance(value, dict):
        raise BadRequest("invalid_json", f"the request body must be a JSON object, not {_kind(value)}")
    if "\\u" in text:
        _verify_surrogates(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRequest("repeated_key", f"the request body names {repeated[:64]!r} twice", parameter=repeated[:64])
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest("invalid_json", f"the request body holds {name}, which is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _verify_shape(text: str) -> None:
    """Before the parser, which recurses and calls us for every object: count brackets outside of strings."""
    if text.count('"') > MAX_QUOTES:
        raise BadRequest("invalid_json", f"the request body holds more than {MAX_QUOTES} quotation marks")
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    if brackets.count("[") + brackets.count("{") > MAX_CONTAINERS:
        raise BadRequest("invalid_json", f"the request body holds more than {MAX_CONTAINERS} arrays and objects")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadRequest("invalid_json", f"the request body is nested deeper than {MAX_DEPTH} levels")
        if depth < 0:
            return  # Not JSON, as the parser will say better.


def _verify_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("invalid_unicode", "the request body holds half of a surrogate pair") from error


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
