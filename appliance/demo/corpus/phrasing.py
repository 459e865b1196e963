"""The many ways to say the same: choices inside a template, and the sloppiness of people who type.

`choose` draws one reading of a template with choices `(a|b|)`; `roughen` adds polite prefixes, drops capitals and
question marks and mistypes, so that a user's free phrasing still finds its topic.
"""

import re
from collections.abc import Collection, Iterable
from random import Random
from typing import Any

from appliance.demo.corpus.words import made_up

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

_FILLERS = re.findall(
    r"\w+",
    "please really exactly maybe actually just then here now again still there well also always today usually briefly "
    "simply right the a an of for to in on with by from at and or but if when where how which who why that this it is "
    "are was be has have had do does did can could should would will must may my our your their me us you them I we "
    "they tell show give explain say know think want need like see find help understand wonder hear read ask",
)


def choose(template: str, rng: Random, *, keep_lines: bool = False) -> str:
    """Replace every `(a|b|)` by one of its alternatives, innermost first; `\\[` and `\\]` stand for brackets.

    Runs of blanks become one; line ends as well, unless `keep_lines`.
    """
    while (match := _CHOICE.search(template)) is not None:
        alternatives = match.group(1).split("|")
        template = template[: match.start()] + rng.choice(alternatives) + template[match.end() :]
    text = template.replace("\\[", "[").replace("\\]", "]")
    text = re.sub(" +", " ", text).strip(" ") if keep_lines else " ".join(text.split())
    return re.sub(r" ([.?!,])", r"\1", text)


def choose_with(template: str, fields: Collection[str], rng: Random) -> str:
    """`choose`, again and again until no `{field}` that the template names has been lost with an alternative."""
    named = ["{" + field + "}" for field in fields if "{" + field + "}" in template]
    text = choose(template, rng)
    while not all(field in text for field in named):
        text = choose(template, rng)
    return text


def capitalize(text: str, values: Iterable[Any]) -> str:
    """A capital at the beginning, unless a value stands there, which is to be copied as it is."""
    return text if any(text.startswith(str(value)) for value in values) else text[0].upper() + text[1:]


def bare(text: str) -> str:
    """The words of a text in lower case, without punctuation: two texts that say the same words are the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def some_filler(rng: Random) -> str:
    """A little word or a made-up one."""
    return rng.choice(_FILLERS) if rng.random() < 0.6 else made_up(rng).lower()


def some_remark(rng: Random) -> str:
    """A short sentence of words that mean nothing here, with a capital: a capital alone makes no name."""
    spoken = " ".join(some_filler(rng) for _ in range(rng.randint(1, 6)))
    return spoken[0].upper() + spoken[1:] + rng.choice((".", ".", ".", "!", "?", ":"))


def babble(text: str, rng: Random) -> str:
    """Add one to three words that do not matter, half of them made up; places of values stay whole.

    A model that has met only the templates' own words takes every other word for a sign of something.
    """
    spoken = text.split(" ")
    for _ in range(rng.choice((1, 1, 2, 3))):
        spoken.insert(rng.randint(0, len(spoken)), some_filler(rng))
    return " ".join(spoken)


def thin_out(text: str, rng: Random) -> str:
    """Drop some little words, and sometimes add others, as people do who type keywords or think aloud.

    Words of five letters and more carry the topic and stay, and so do the places of values.
    """
    kept = " ".join(word for word in text.split() if len(word) >= 5 or "{" in word or rng.random() > 0.35)
    return babble(kept or text, rng) if rng.random() < 0.5 else kept or text


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
