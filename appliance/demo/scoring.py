"""Is an answer right? One strict rule for each kind.

Product: every key fact stands in the answer, letter for letter. Arithmetic: the number after "The answer is" is the right
one. Extraction: the whole answer is one JSON object, equal to the expected one. Tool: the whole answer is one call whose
name and arguments are equal. Result: one line that is no call and not long holds every value, letter for letter.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from appliance.demo.corpus.example import ARITHMETIC, EXTRACTION, PRODUCT, RESULT, TOOL, Example

_FINAL_NUMBER = re.compile(r"The answer is (-?\d+)\.\s*\Z")
_SENTENCE = 80
_CALL = re.compile(r"\s*<tool_call>(.*)</tool_call>\s*", re.DOTALL)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _same(found: Any, expected: Any) -> bool:
    """Equal values of equal types: 3 is not 3.0 and not true."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _has_facts(answer: str, facts: list[str]) -> bool:
    return all(fact in answer for fact in facts)


def _ends_with_number(answer: str, number: int) -> bool:
    found = _FINAL_NUMBER.search(answer)
    return found is not None and int(found.group(1)) == number


def _is_object(answer: str, expected: dict[str, Any]) -> bool:
    return _same(_parse(answer), expected)


def _is_call(answer: str, expected: dict[str, Any]) -> bool:
    call = _CALL.fullmatch(answer)
    return call is not None and _same(_parse(call.group(1)), expected)


def _tells(answer: str, facts: list[str]) -> bool:
    """An answer that runs on holds any value sooner or later, so it may be three times as long as what is told, and a sentence."""
    most = _SENTENCE + 3 * sum(map(len, facts))
    return _has_facts(answer, facts) and len(answer) <= most and "\n" not in answer and "<tool_call>" not in answer


_RULES: dict[str, Callable[[str, Any], bool]] = {
    PRODUCT: _has_facts,
    ARITHMETIC: _ends_with_number,
    EXTRACTION: _is_object,
    TOOL: _is_call,
    RESULT: _tells,
}


def is_right(example: Example, answer: str) -> bool:
    """Whether `answer` is right for a held-out example."""
    return _RULES[example.kind](answer, example.expected)
