"""A query string, as strictly as a body: every parameter is known and given once, or refused by name.

Lists come as OpenAI's SDK writes them, `include[]=a&include[]=b`, or as their own document does, `include=a&include=b`.
"""

from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec.inspect import ListType, StructType, type_info

from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.errors import BadRequest

Parsed = TypeVar("Parsed", bound=msgspec.Struct)
MAX_PARAMETERS = 32


def parse_query(query: bytes, into: type[Parsed]) -> Parsed:
    """Check the query of a route that takes one.

    Raises: BadRequest, naming the parameter.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise BadRequest("invalid_parameter", "the query is not at most 32 parameters in UTF-8") from error
    lists = _list_names(into)
    given: dict[str, str | list[str]] = {}
    for written, value in pairs:
        name = written.removesuffix("[]") if written.removesuffix("[]") in lists else written
        if name in lists:
            values = given.setdefault(name, [])
            assert isinstance(values, list)
            values.append(value)
        elif name in given:
            raise BadRequest("invalid_parameter", f"{name[:64]}: given twice in the query", parameter=name[:64])
        else:
            given[name] = value
    return parse_parameters(given, into, strict=False)


def _list_names(into: type[msgspec.Struct]) -> set[str]:
    kind = type_info(into)
    assert isinstance(kind, StructType)
    return {member.name for member in kind.fields if isinstance(member.type, ListType)}
