"""Strict parsing of untrusted JSON objects.

Python's parser takes the last of two members of the same name; another parser takes the first. Where a signature covers
the bytes and two readers may differ, that is an attack (RFC 8725 section 2.6), so a duplicate is refused at every level. NaN and
Infinity are not JSON (RFC 8259 section 6) and are refused as well, and so is half a surrogate pair (section 8.2), which is no
text: whoever encoded it later would fail.

Sizes are the caller's: bound the bytes before the call.
"""

import json
import re
from typing import Any, NoReturn

from security.errors import MalformedDocument


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedDocument(f"{name} is not JSON")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedDocument("a member name occurs twice")
    return members


_MAY_BE_HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""Only an escape can bring one: the bytes are UTF-8."""
_decoder = json.JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_refuse_constant)


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Parse one JSON object in UTF-8, without a byte order mark.

    Raises: MalformedDocument for whatever is refused; never ValueError or RecursionError.
    """
    try:
        document = _decoder.decode(data.decode("utf-8"))
        if _MAY_BE_HALF_A_PAIR.search(data):
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(f"not JSON: {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise MalformedDocument("not a JSON object")
    return document
