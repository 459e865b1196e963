"""The rules by which an answer counts as right."""

import pytest

from appliance.demo.corpus.example import Example
from appliance.demo.evaluate import Answered, format_table, is_sufficient, measure
from appliance.demo.scoring import is_right

CALL = '<tool_call>{"name": "add", "arguments": {"a": 3, "b": 4}}</tool_call>'
WANTED = {"name": "add", "arguments": {"a": 3, "b": 4}}


@pytest.mark.parametrize(
    ("kind", "expected", "answer", "right"),
    [
        ("product", ["10 minutes"], "It is valid for 10 minutes.", True),
        ("product", ["10 minutes", "authority"], "It is valid for 10 minutes.", False),
        ("arithmetic", 12, "5 + 7 = 12. The answer is 12.", True),
        ("arithmetic", 12, "5 + 7 = 12. The answer is 13.", False),
        ("arithmetic", 12, "12", False),
        ("arithmetic", 12, "The answer is 12. The answer is 13.", False),
        ("extraction", {"a": 1, "b": "x"}, '{"b": "x", "a": 1}', True),
        ("extraction", {"a": 1}, '{"a": "1"}', False),
        ("extraction", {"a": 1}, '{"a": 1, "b": 2}', False),
        ("extraction", {"a": 1}, 'Here: {"a": 1}', False),
        ("extraction", {"a": 1}, '{"a": true}', False),
        ("extraction", {"a": 1}, '{"a": 1', False),
        ("tool", WANTED, CALL, True),
        ("tool", WANTED, CALL.replace("4", "5"), False),
        ("tool", WANTED, CALL.replace("add", "sub"), False),
        ("tool", WANTED, CALL + " and more", False),
        ("tool", WANTED, "7", False),
        ("result", ["21", "sunny"], "The weather in Rome is sunny, with 21 degrees.", True),
        ("result", ["21", "sunny"], "The weather in Rome is sunny.", False),
        ("result", ["21"], "In Rome it is 21" + "21" * 60, False),
        ("result", ["4"], CALL, False),
    ],
)
def test_answers_are_judged_strictly(kind: str, expected: object, answer: str, right: bool) -> None:
    """Nearly right is wrong."""
    assert is_right(Example(kind, "test", expected=expected), answer) is right


def test_one_kind_that_falls_short_fails_the_whole() -> None:
    """Each kind must reach its own bar."""
    good = {kind: {"right": 95, "cases": 100} for kind in ("product", "extraction", "tool", "arithmetic")}
    assert is_sufficient(good)
    assert not is_sufficient({**good, "tool": {"right": 89, "cases": 100}})
    assert "| tool | 95 | 100 | 95.0 % | 90 % |" in format_table(good)


def test_a_kind_without_a_bar_is_counted_and_decides_nothing() -> None:
    """Told results stand in the table below the kinds that have a bar."""
    told = Answered(Example("result", "test", expected=["21"]), "no idea", False)
    figures = measure([told])
    assert figures["result"] == {"right": 0, "cases": 1}
    assert format_table(figures).endswith("| result | 0 | 1 | 0.0 % | – |")
    assert is_sufficient(figures)
