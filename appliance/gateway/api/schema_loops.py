"""References that lead round without an end: `{"$ref": "#"}`, or two names that stand for each other.

Nothing can follow such a schema. Where it is that of a whole answer the compiler says so; below a property that may be left out
it would not, and a model that chose the property wrote white space until its limit. A tree that refers to itself from inside an
object or a list is none: something is written on the way.

Every schema that is no more than another's name, or a choice, leads on to others; it has an end if one of those does.
"""

from typing import Any
from urllib.parse import unquote

from appliance.gateway.api.written_schema import BY_NAME, LISTS, SINGLE

_DEFINITIONS = ("$defs", "definitions")


def find_loop(root: Any, where: str) -> str | None:
    """The place of a schema that is used and has no end; None if there is none.

    Args:
        root: whose members are schemas where schemas stand (`constrained_schema` has looked at them).
    """
    places: dict[int, tuple[Any, str]] = {}
    waiting = [(root, where)]
    while waiting:
        schema, place = waiting.pop()
        if id(schema) not in places and isinstance(schema, dict):
            places[id(schema)] = schema, place
            waiting += _members_of(schema, place)
            waiting += [(target, f"{place}.$ref") for target in _referred_to(schema, root)]
    leading = {key: _ways_on(schema, root) for key, (schema, _) in places.items()}
    ended = {key for key, ways in leading.items() if ways is None}
    before: dict[int, list[int]] = {}
    for key, ways in leading.items():
        for target in ways or ():
            before.setdefault(id(target), []).append(key)
            if not isinstance(target, dict):
                ended.add(id(target))
    fresh = list(ended)
    while fresh:
        found = [key for key in before.get(fresh.pop(), ()) if key not in ended]
        ended.update(found)
        fresh += found
    return min((place for key, (_, place) in places.items() if key not in ended), default=None)


def _members_of(schema: dict[str, Any], place: str) -> list[tuple[Any, str]]:
    """The schemas in one, but for definitions, which are nothing until they are referred to."""
    found = [
        (member, f"{place}.{key}.{name[:64]}")
        for key in BY_NAME
        if key not in _DEFINITIONS
        for name, member in schema.get(key, {}).items()
    ]
    found += [(member, f"{place}.{key}[{index}]") for key in LISTS for index, member in enumerate(schema.get(key, ()))]
    return found + [(schema[key], f"{place}.{key}") for key in SINGLE if key in schema]


def _ways_on(schema: dict[str, Any], root: Any) -> list[Any] | None:
    """What a schema may stand for without a character of its own; None for one that writes something itself."""
    if "$ref" in schema:
        # The compiler says of a reference that leads nowhere.
        return _referred_to(schema, root) or None
    if "anyOf" in schema or "allOf" in schema:
        return [*schema.get("anyOf", ()), *schema.get("allOf", ())] or None
    return None


def _referred_to(schema: dict[str, Any], root: Any) -> list[Any]:
    """Where its reference leads (RFC 6901 section 6); empty without one, or if that is nowhere."""
    reference = schema.get("$ref")
    if reference is None:
        return []
    found = root
    for step in unquote(reference.removeprefix("#")).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return []
    return [found] if isinstance(found, dict | bool) else []
