"""The many ways to say the same: choices inside a template, and the sloppiness of people who type.

`choose` draws one reading of a template with choices `(a|b|)`; `roughen` adds polite prefixes, drops capitals and
question marks and mistypes, so that a user's free phrasing still finds its topic.
"""

import re
from random import Random

_CHOICE = re.compile(r"(?<!\\)\(([^()]*)\)")
_PREFIXES = (
    "Please tell me: ",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Please: ",
    "Quick question: ",
    "Could you tell me: ",
    "Can you help me? ",
    "I have a question. ",
    "One question: ",
    "Excuse me, ",
    "Hi! ",
    "Okay, ",
    "And ",
    "So, ",
)
_SUFFIXES = (
    " Please explain.",
    " Thanks.",
    " Thank you!",
    " Please.",
    " Be brief.",
    " I am curious.",
    " Just wondering.",
)


def choose(template: str, rng: Random) -> str:
    """Replace every `(a|b|)` by one of its alternatives, innermost first; `\\[` and `\\]` stand for brackets."""
    while (match := _CHOICE.search(template)) is not None:
        alternatives = match.group(1).split("|")
        template = template[: match.start()] + rng.choice(alternatives) + template[match.end() :]
    text = " ".join(template.replace("\\[", "[").replace("\\]", "]").split())
    return re.sub(r" ([.?!,])", r"\1", text)


def mistype(text: str, rng: Random) -> str:
    """Swap, drop or double one letter inside a word."""
    places = [i for i in range(1, len(text) - 2) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    return text[: at + 1] + text[at:]


def roughen(text: str, rng: Random) -> str:
    """Return `text` as a person might type it; about half the time unchanged."""
    if rng.random() < 0.45:
        return text
    if rng.random() < 0.35:
        text = rng.choice(_PREFIXES) + (text if rng.random() < 0.6 else text[0].lower() + text[1:])
    if rng.random() < 0.12:
        text += rng.choice(_SUFFIXES)
    if rng.random() < 0.35:
        text = text.lower()
    if rng.random() < 0.3:
        text = text.rstrip("?.!")
    if rng.random() < 0.15:
        text = mistype(text, rng)
    return text
