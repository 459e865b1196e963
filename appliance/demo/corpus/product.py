"""Questions and answers about Casemate, from `product.toml`.

Each topic has one answer, training templates with choices, and phrasings that are held out: those never occur in
training, and the evaluation asks exactly those.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from appliance.demo.corpus.example import PRODUCT, Example, dialogue
from appliance.demo.corpus.phrasing import bare, choose, roughen, thin_out
from appliance.demo.corpus.rewording import reword
from appliance.demo.corpus.words import some_name

_BEFORE = (
    "(I am|I work as|She is|He is|Talking as) (an operator|a developer|an auditor|a student|a beginner|the admin|a manager|a lawyer|a tester)(.|:|,|;)",
    "(My|Our) (team|customer|auditor|colleague|friend|security officer|teacher) (asks|wonders|asked me|keeps asking|would like to hear)(:|,|.)",
    "({name}|Somebody|A visitor|One of us|Everybody) (asks|asked|says|wonders)(:|,)",
    "(I read the documentation|I looked around|I tried it|We talked about it|I am preparing a talk|We plan a purchase|I have a doubt)( today| yesterday|)(.|:|, and|, so|, but)",
    "(Suppose|Imagine|Assume|Say) (I am a beginner|we install it|we are a bank|it is Monday|I were the operator|you had to explain it)(.|:|,)",
    "(Honestly|Seriously|Frankly|Sorry|Listen|Look|Wait|Hm|Oh|Right|Anyway|By the way|Out of interest|In plain words|In short|In practice)(,|:|.)",
)
_AFTER = (
    "(It is|This is|I ask) (for a report|for my boss|important|for a friend|urgent|for an audit|just curiosity)(.|)",
    "(I could not find it|I am not sure|I forgot|Nobody could tell me|I am new|{name} asked)(.|!|)",
    "(In a few words|Briefly|Short answer|A short answer is enough|No details)( please|)(.|)",
    "(Do you know|Can you say|Any idea|Can you help|Right|Correct|Is that so)?",
)  # fmt: skip


@cache
def load_topics() -> dict[str, dict[str, Any]]:
    """All topics by name, in the order of the file."""
    return tomllib.loads(files("appliance.demo.corpus").joinpath("product.toml").read_text(encoding="utf-8"))


@cache
def _held_out_questions() -> frozenset[str]:
    return frozenset(bare(question) for topic in load_topics().values() for question in topic["held_out"])


def _reworded(question: str, rng: Random) -> str:
    """The question in other words, or with words around it, or as it is."""
    if rng.random() < 0.5:
        question = reword(question, rng, rng.choice((0.2, 0.4, 0.7)))
    if rng.random() < 0.25:
        question = thin_out(question, rng)
    if rng.random() < 0.12:
        question = f"{choose(rng.choice(_BEFORE), rng)} {question}".format(name=some_name(rng))
    if rng.random() < 0.06:
        question = f"{question} {choose(rng.choice(_AFTER), rng)}".format(name=some_name(rng))
    return question


def product_example(rng: Random) -> Example:
    """A training example of a topic drawn at random.

    Choices can add up to what a held-out phrasing says; such a question is drawn again, however it is written.
    """
    name = rng.choice(list(load_topics()))
    topic = load_topics()[name]
    while True:
        question = _reworded(choose(rng.choice(topic["asks"]), rng), rng)
        if bare(question) not in _held_out_questions():
            break
    return dialogue(PRODUCT, f"product/{name}", roughen(question, rng), topic["answer"])


def held_out_products(rng: Random) -> Iterator[Example]:
    """Every held-out phrasing of every topic once, as it is written."""
    del rng
    for name, topic in load_topics().items():
        for question in topic["held_out"]:
            yield dialogue(PRODUCT, f"held-out/{name}", question, topic["answer"], list(topic["facts"]))
