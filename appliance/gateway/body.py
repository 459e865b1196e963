"""A request body, strictly: one JSON object in UTF-8, no repeated keys, no NaN, no lone surrogates, not too deep.

Repeated keys are refused because two readers of one body (a proxy in front, the audit behind) may take different ones. The quick
parser takes the last one without a word, but then its objects have fewer members than there are colons outside of strings. What it
does not take, or takes so, goes to the standard library's parser, which shows all pairs and says what is wrong where. Types are
checked afterwards.
"""

import json
from typing import Any, NoReturn

import msgspec

from appliance.gateway.errors import BadRequest

MAX_DEPTH = 48
MAX_CONTAINERS = 65_536
"""Objects and arrays in one body: more than any request that would not be refused anyway."""
MAX_QUOTES = 1 << 18
"""Bounds the time that strings take to parse; no context holds a text with more of them."""
MAX_QUICK_EXPONENTS = 256
"""Of a body that goes to the quick parser: it takes up to 10 µs for a number like 1e23, where the other takes a tenth of one."""
_USUAL_DEPTH = 8
_CONTAINERS = (dict, list)
_NOT_IN_OUTLINE = bytes(set(range(256)) - set(b'[]{}:eE"'))
_SQUARE = bytes.maketrans(b"{}", b"[]")


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse an untrusted body.

    Raises: BadRequest, naming what is wrong; nothing else.
    """
    outline = _outline(body)
    num_containers = outline.count(b"[") + outline.count(b"{")
    if num_containers > MAX_CONTAINERS:
        raise BadRequest("invalid_json", f"the request body holds more than {MAX_CONTAINERS} arrays and objects")
    _verify_depth(outline)  # Before any parser, as they recurse.
    if outline.count(b"e") + outline.count(b"E") > MAX_QUICK_EXPONENTS:
        return _parse_slowly(body)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return _parse_slowly(body)
    if not isinstance(value, dict) or _num_members(value, num_containers) != outline.count(b":"):
        return _parse_slowly(body)
    return value


def _parse_slowly(body: bytes) -> dict[str, Any]:
    """What the quick parser did not take; most of it is refused."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("invalid_utf8", f"the request body is not UTF-8: byte {error.start}") from error
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


def _outline(body: bytes) -> bytes:
    """The brackets, colons and letters e outside of strings, as far as the body is JSON."""
    num_escaped = 0
    if b"\\" in body:
        unpaired = body.replace(b"\\\\", b"")
        body = unpaired.replace(b'\\"', b"")
        num_escaped = (len(unpaired) - len(body)) // 2
    marks = body.translate(None, _NOT_IN_OUTLINE)
    if num_escaped + marks.count(b'"') > MAX_QUOTES:
        raise BadRequest("invalid_json", f"the request body holds more than {MAX_QUOTES} quotation marks")
    # Two quotes with nothing between them leave what comes behind them inside or outside of strings, as it was.
    return b"".join(marks.replace(b'""', b"").split(b'"')[::2])


def _verify_depth(outline: bytes) -> None:
    brackets = outline.translate(_SQUARE, b":eE")
    for _ in range(_USUAL_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # The innermost level.
        if not brackets:
            return
    depth = 0
    for bracket in outline.translate(_SQUARE, b":eE"):
        depth += 1 if bracket == ord("[") else -1
        if depth > MAX_DEPTH:
            raise BadRequest("invalid_json", f"the request body is nested deeper than {MAX_DEPTH} levels")
        if depth < 0:
            return  # Not JSON, as the parser will say better.


def _num_members(value: dict[str, Any], num_containers: int) -> int:
    """Of all objects in it. When all containers are found, what is in the last of them is not looked at: they are long."""
    found: list[Any] = [value]
    for container in found:
        if len(found) == num_containers:
            break
        inner = container.values() if type(container) is dict else container
        found += [one for one in inner if type(one) in _CONTAINERS]
    return sum(len(one) for one in found if type(one) is dict)


def _verify_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("invalid_unicode", "the request body holds half of a surrogate pair") from error


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
