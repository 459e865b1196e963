"""Results of tools in training: in the forms that clients send, and told as they stand."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random

from appliance.demo.corpus.example import Message
from appliance.demo.corpus.results import SAYS
from appliance.demo.corpus.tools import tool_example


def conversations(count: int) -> Iterator[tuple[Message, ...]]:
    """Conversations with tools, without their system messages."""
    for seed in range(count):
        example = tool_example(Random(seed))
        yield tuple(message for message in example.messages if message.role != "system")


def told_results(count: int) -> Iterator[tuple[str, str, str]]:
    """What was said before a result, the result, and what is told; where two calls are told together, neither."""
    for messages in conversations(count):
        for place, message in enumerate(messages[:-1]):
            told = messages[place + 1].content
            if message.role == "tool" and place < 4 and not told.startswith("<tool_call>"):
                yield "\n".join(one.content for one in messages[:place]), message.content, told


def is_object(text: str) -> bool:
    """Whether a text is an object in JSON, perhaps the one item of a list."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found[0] if isinstance(found, list) and found else found, dict)


def test_every_number_that_is_told_was_returned_or_asked_for() -> None:
    """No figure is learnt that the model cannot read."""
    for before, result, told in told_results(3000):
        known = set(re.findall(r"\d+", before + result))
        assert set(re.findall(r"\d+", told)) <= known, (result, told)


def test_words_that_no_report_fits_are_repeated() -> None:
    """What follows "The tool says" stands in the result, letter for letter."""
    said = [(result, told) for _, result, told in told_results(3000) if told.startswith(SAYS)]
    assert len(said) > 50
    assert all(told.removeprefix(SAYS).rstrip(".") in result for result, told in said)


def test_results_come_in_the_forms_that_clients_send() -> None:
    """Objects in about half of the cases; words, lines, strings, lists and content parts, too."""
    results = [result for _, result, _ in told_results(8000)]
    share = sum(map(is_object, results)) / len(results)
    assert 0.4 < share < 0.7
    forms = {
        "words": r"[a-z ]+, -?[\d.]+ ?(C|°C|degrees)?",
        "lines": r"[\w ]+: .+\n[\w ]+: .+",
        "string": r'"[^"]+"',
        "list": r'\["[^"]+"\]',
        "parts": r'\[\{"type": "text", "text": ".+"\}\]',
        "number": r"\d+",
        "sentence": r"[A-Z][a-z]+ [^.:=]+\.",
        "error": r"(?i)error: .+",
    }
    missing = [name for name, form in forms.items() if not any(re.fullmatch(form, result) for result in results)]
    assert missing == []


def test_a_result_follows_a_call_and_is_told_or_followed_by_another_call() -> None:
    """The turns of a loop come in the order in which clients send them, and some loops have two calls."""
    loops = list(conversations(3000))
    orders = {tuple(message.role[0] for message in messages) for messages in loops}
    assert orders <= {tuple(order) for order in ("ua", "uata", "uataua", "uatauata", "uatata")}
    assert {tuple("uatauata"), tuple("uatata")} <= orders
    for messages in loops:
        for before, message in pairwise(messages):
            if message.role == "tool":
                assert before.content.startswith("<tool_call>")
