"""Questions and answers about Casemate, from `product.toml`.

Each topic has one answer, training templates with choices, and phrasings that are held out: those never occur in
training, and the evaluation asks exactly those. Topics that explain a term are also asked for in general forms.
"""

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from appliance.demo.corpus.example import PRODUCT, Example, dialogue
from appliance.demo.corpus.phrasing import bare, choose, roughen, thin_out


@cache
def load_topics() -> dict[str, dict[str, Any]]:
    """All topics by name, in the order of the file."""
    return tomllib.loads(files("appliance.demo.corpus").joinpath("product.toml").read_text(encoding="utf-8"))


@cache
def _held_out_questions() -> frozenset[str]:
    return frozenset(bare(question) for topic in load_topics().values() for question in topic["held_out"])


def product_example(rng: Random) -> Example:
    """A training example of a topic drawn at random.

    Choices can add up to what a held-out phrasing says; such a question is drawn again, however it is written.
    """
    name = rng.choice(list(load_topics()))
    topic = load_topics()[name]
    while True:
        question = choose(rng.choice(topic["asks"]), rng)
        if bare(question) not in _held_out_questions():
            break
    if rng.random() < 0.25:
        question = thin_out(question, rng)
    return dialogue(PRODUCT, f"product/{name}", roughen(question, rng), topic["answer"])


def held_out_products(rng: Random) -> Iterator[Example]:
    """Every held-out phrasing of every topic once, as it is written."""
    del rng
    for name, topic in load_topics().items():
        for question in topic["held_out"]:
            yield dialogue(PRODUCT, f"held-out/{name}", question, topic["answer"], list(topic["facts"]))
