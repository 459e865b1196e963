"""What a chat request calls its parameters, in the words of the APIs that are translated into one: refusals name what was sent."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from appliance.gateway.errors import BadRequest

_LEADING = re.compile(r"[a-z_]+(?:\.[\w$]+|\[\d+\])*")
_TOOL = re.compile(r"tools\[(\d+)\](?:\.function)?(\.parameters)?")


@contextmanager
def named_as(names: Mapping[str, str], tools: Sequence[str], schema: str) -> Iterator[None]:
    """Let a chat request's refusal speak of another API's parameters.

    Args:
        names: by chat's names, longer ones before those that they begin with; what is none of them is called alike.
        tools: where each of the chat request's tools stands in the other's body.
        schema: what a tool's parameters are called there.
    """
    try:
        yield
    except BadRequest as refused:
        parameter, message = refused.parameter, str(refused)
        if parameter is None:
            raise

        def rename(place: str) -> str:
            if (tool := _TOOL.match(place)) is not None and int(tool[1]) < len(tools):
                return f"{tools[int(tool[1])]}{'.' + schema if tool[2] else ''}{place[tool.end() :]}"
            for name, theirs in names.items():
                if place == name or place.startswith((f"{name}.", f"{name}[")):
                    return theirs + place[len(name) :]
            return place

        renamed = rename(parameter)
        if parameter in message:
            message = message.replace(parameter, renamed, 1)
        elif (leading := _LEADING.match(message)) is not None:
            message = rename(leading[0]) + message[leading.end() :]
        told = BadRequest(refused.code, message, parameter=renamed)
        told.headers = refused.headers
        raise told from refused
