"""Bounds of a grammar in words that cost nothing: lengths of text, counted characters, and white space of JSON.

xgrammar keeps a mask of the whole vocabulary for every state. A bound that is written as states has one for every character, some
fifty kilobytes each, and beyond 128 it tries the vocabulary token by token, a tenth of a second a step. A rule's budget of
characters (`max_chars`, code points as JSON Schema counts them) is exact where the rule may end at any character from its least
number on, as all rules written here may: then it is one state with a counter. So a grammar is printed, its bounds are written as
budgets, and it is compiled from that text. Least numbers stay states.

A rule's `temperature` is a number that a matcher tells while the rule is being followed, and nothing else is done with it here: it
tells `matching` in which kind of text it is. That of bounded text is its bound, that of white space a number no bound has.
Source: xgrammar's documentation, EBNF Grammar, rule options.
"""

import re

MARKED, UNMARKED = b"+", b"-"
"""Stand before a grammar: whether its rules have the marks of this module."""
MAX_WHITESPACE = 16
"""What a structure allows between two tokens of JSON; `matching` holds it to about that."""
WHITESPACE_MARK = 0.5
LARGEST_MARK = 1 << 24
"""Up to this a float of 32 bits, which is what tells it, holds every integer."""
MAX_LEAST = 128
"""Least numbers up to which xgrammar makes states; above, it tries token by token."""
MOST_CHARS = (1 << 31) - 1
"""The largest budget there is."""
MANY_RULES = 12
MAX_UNROLLED = 32
"""Bounds of counted characters up to which states are cheaper."""

_CHARACTER = re.compile(
    r'^([\w.-]+) ::= \(\((\[(?:\\.|[^\]\\])*\]|"(?:[^"\\]|\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[^xuU]))")\)\)$'
)
_REPEATED = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|([\w.-]+)\{(\d+), (-1|\d+)\}')
_PATTERN = re.compile(
    r'^([\w.-]+) ::= Regex\("\^?(\.|\\\\[dws]|\[(?:\\\\.|[^\]\\"])+\])\{(\d+),(\d+)\}\$?", json_string=true\)$'
)
_WHITESPACE = re.compile(r"whitespace(_\d+)*")
_TEXT_NAME, _TEXT_CHARACTER = "_characters", r"[^\"\\\r\n]"
"""What xgrammar writes lengths of text with: it would let raw control characters in."""
_CODE_POINT = r"[ !#-\[\]-\ud7ff\ue000-\U0010ffff]"


def with_budgets(grammar: str) -> str:
    """A grammar as xgrammar prints it, one rule a line, with its bounds as budgets.

    Its rules MUST have xgrammar's names: a client's own might have that of white space.
    """
    lines = grammar.splitlines()
    characters = {found[1]: found[2] for found in map(_CHARACTER.match, lines) if found}
    added: dict[str, str] = {}

    def repeated(part: re.Match[str]) -> str:
        if part[1] not in characters:
            return part[0]
        name, character, least, most = part[1], characters[part[1]], int(part[2]), int(part[3])
        if character == _TEXT_CHARACTER and name.endswith(_TEXT_NAME):
            return _text(added, least, most)
        if (least, most) == (0, MAX_WHITESPACE) and _WHITESPACE.fullmatch(name):
            added["bounds.space"] = f"[temperature={WHITESPACE_MARK}] ::= {character}*"
            return "bounds.space"
        if most <= MAX_UNROLLED or least == most or least > MAX_LEAST:
            return part[0]
        rule = f"bounds.{name}_{least}_{most}"
        added[rule] = f"[max_chars={most}] ::= {f'{character}{{{least}}} ' if least else ''}{character}*"
        return rule

    written = [
        _PATTERN.sub(_counted, line) if _PATTERN.match(line) else _REPEATED.sub(repeated, line) for line in lines
    ]
    if len(added) > MANY_RULES and "bounds.text_0" in added:
        # A rule with a budget is not copied into those that name it: smaller, and a step costs 2 ms where it was 0.7.
        added["bounds.text_0"] = f"[max_chars={MOST_CHARS}] ::= {_CODE_POINT}*"
    return "\n".join([*written, *(name + rule for name, rule in added.items())]) + "\n"


def _text(added: dict[str, str], least: int, most: int) -> str:
    """The rule of a text of so many characters, as a string of JSON shows them; most -1: as many as there are.

    Those of one least number share their states, but those that may be empty only where they are many.
    """
    body = f"bounds.text_{least}"
    # Characters one by one are a fifth as expressions; there xgrammar also takes longer ways to write one, which are no UTF-8.
    added[body] = f' ::= Regex("^[\\\\s\\\\S]{{{least},}}$", json_string=true)' if least else f" ::= {_CODE_POINT}*"
    if most < 0:
        return body
    rule = f"{body}_{most}"
    mark = f", temperature={most}" if most <= LARGEST_MARK else ""
    added[rule] = f"[max_chars={most}{mark}] ::= {body}"
    return rule


def _counted(pattern: re.Match[str]) -> str:
    """A pattern of one class that repeats."""
    name, character, least, most = pattern[1], pattern[2], int(pattern[3]), int(pattern[4])
    if most <= MAX_UNROLLED or least >= most or least > MAX_LEAST:
        return pattern[0]
    return f'{name}[max_chars={most}] ::= Regex("^{character}{{{least},}}$", json_string=true)'
