"""Patterns of strings in JSON: those that the compiler holds to, and those that stand for lengths and formats.

The compiler reads a pattern over the characters that a string in JSON shows as themselves, and finds no others. Where a pattern
matches none of those, or is not written in ASCII, it reads it over all characters instead, and the output would be no JSON. So
other characters are written as escapes here, and what needs quotation marks, backslashes or control characters is refused. A group
that may be left out it takes for one of which any end may stand alone; one with an empty alternative it reads as it should.
Sources: ECMA-262, section 22.2.1; RFC 3339, section 5.6; RFC 2673, section 3.2; RFC 5321, section 4.1.2.
"""

import re
from collections.abc import Callable

MAX_LEAST = 128
"""Least numbers of characters up to which the compiler makes them states; above, a mask of them takes a tenth of a second."""
MAX_MOST = (1 << 31) - 1
"""Beyond this the compiler does not count, and no answer gets."""

_TOKEN = re.compile(
    r"\\c[A-Za-z]|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\.|.", re.DOTALL
)  # fmt: skip
_CODE = re.compile(r"\\(?:x|u)\{?([0-9A-Fa-f]+)\}?")
_UNSHOWN_ESCAPES = frozenset((r"\n", r"\r", r"\t", r"\f", r"\v", r"\0", r"\\", r"\""))


class PatternRefused(ValueError):
    """Needs what is no character, or one that no string in JSON shows as itself."""


def written_pattern(pattern: str) -> str:
    """The same pattern in those words. Raises: PatternRefused."""
    tokens = [_in_ascii(token) for token in _whole_tokens(pattern)]
    place = 0
    while place < len(tokens):
        if tokens[place] == "[":
            place = _end_of_class(tokens, place, _is_unshown)
        elif _is_unshown(tokens[place]):
            raise PatternRefused(tokens[place])
        elif tokens[place : place + 2] == [")", "?"]:
            tokens[place : place + 2] = ["|", ")"]
        place += 1
    return "".join(tokens)


def written_expression(pattern: str) -> str:
    """An expression for text that is no JSON, with pairs of surrogates as the characters that they are.

    Raises: PatternRefused for what else is none: the compiler would take it for bytes that are no UTF-8.
    """
    tokens = _whole_tokens(pattern)
    place = 0
    while place < len(tokens):
        if tokens[place] == "[":
            place = _end_of_class(tokens, place, _is_no_character)
        elif _is_no_character(tokens[place]):
            raise PatternRefused(tokens[place])
        place += 1
    return "".join(tokens)


def literal_beginning(pattern: str) -> str:
    """What all that a pattern matches begins with, as far as it is letters, digits, hyphens or underscores."""
    found = re.match(r"\^([A-Za-z0-9_-]+)([?*{]?)", pattern)
    if found is None or "|" in pattern:
        return ""
    return found.group(1)[:-1] if found.group(2) else found.group(1)


def pattern_of_one(least: int) -> str:
    """One character, or none if there may be."""
    return rf"^[\s\S]{{{least},1}}$"


def _whole_tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    for token in _TOKEN.findall(pattern):
        high, low = _code(tokens[-1]) if tokens else -1, _code(token)
        if 0xD800 <= high < 0xDC00 <= low < 0xE000:
            tokens[-1] = f"\\u{{{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):x}}}"
        else:
            tokens.append(token)
    return tokens


def _code(token: str) -> int:
    """Of the character that an escape gives by its number; -1 for whatever is none."""
    found = _CODE.fullmatch(token)
    return -1 if found is None else int(found.group(1), 16)


def _is_no_character(token: str) -> bool:
    code = _code(token)
    return 0xD800 <= code < 0xE000 or code > 0x10FFFF


def _in_ascii(token: str) -> str:
    last = token[-1]
    if last.isascii():
        return token
    return f"\\u{ord(last):04x}" if ord(last) < 1 << 16 else f"\\u{{{ord(last):x}}}"


def _is_unshown(part: str) -> bool:
    code = _code(part)
    if code >= 0:
        return code < 0x20 or code in (0x22, 0x5C) or _is_no_character(part)
    return part in _UNSHOWN_ESCAPES or part == '"' or part < " " or part.startswith("\\c")


def _end_of_class(tokens: list[str], begin: int, is_unshown: Callable[[str], bool]) -> int:
    """Of one that holds something that may be shown, or everything else than what it names. Raises: PatternRefused."""
    end = next((place for place in range(begin + 1, len(tokens)) if tokens[place] == "]"), None)
    if end is None:
        return len(tokens)  # No pattern, as the compiler will say.
    inner = tokens[begin + 1 : end]
    ranges = [place for place in range(1, len(inner) - 1) if inner[place] == "-"]
    shown = [place for place, token in enumerate(inner) if place not in ranges and not is_unshown(token)]
    if not shown or inner == ["^"]:
        raise PatternRefused("".join(tokens[begin : end + 1]))
    return end


def _any_of(*patterns: str) -> str:
    return f"({'|'.join(patterns)})"


_LEAP_YEAR = _any_of(
    r"[0-9][0-9]" + _any_of("0[48]", "[2468][048]", "[13579][26]"),
    _any_of("0[48]", "[2468][048]", "[13579][26]") + "00",
)
_YEAR = _any_of("[1-9][0-9]{3}", "0[1-9][0-9]{2}", "00[1-9][0-9]", "000[1-9]")
_DATE = _any_of(
    _YEAR
    + "-"
    + _any_of(
        _any_of("0[13578]", "1[02]") + "-" + _any_of("0[1-9]", "[12][0-9]", "3[01]"),
        _any_of("0[469]", "11") + "-" + _any_of("0[1-9]", "[12][0-9]", "30"),
        "02-" + _any_of("0[1-9]", "1[0-9]", "2[0-8]"),
    ),
    _LEAP_YEAR + "-02-29",
)
_HOUR = _any_of("[01][0-9]", "2[0-3]")
_TIME = rf"{_HOUR}:[0-5][0-9]:[0-5][0-9](\.[0-9]{{1,6}}|)" + _any_of("Z", f"[+-]{_HOUR}:[0-5][0-9]")
_BYTE = _any_of("[0-9]", "[1-9][0-9]", "1[0-9]{2}", "2[0-4][0-9]", "25[0-5]")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9]|)"

FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "ipv4": rf"^{_BYTE}(\.{_BYTE}){{3}}$",
    "email": rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})+$",
}
"""Formats that the compiler would hold only roughly: it knows no lengths of months, takes leading zeros, leap seconds, and escapes
that JSON has not."""
