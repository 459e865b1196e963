"""Prompts of a body: text, token ids, or a list of either, and nothing else."""

from typing import Any

import pytest

from appliance.gateway.api.completion_request import parse_prompts
from appliance.gateway.errors import BadRequest


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("text", ["text"]),
        ([0, (1 << 31) - 1], [[0, (1 << 31) - 1]]),
        (["one", [1, 2], ""], ["one", [1, 2], ""]),
        ([[7] * 20_000], [[7] * 20_000]),
    ],
)
def test_prompts_come_through(given: Any, prompts: list[Any]) -> None:
    """In their order, ids as they are."""
    assert parse_prompts(given, max_prompts=3) == prompts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, True], "prompt[1]: expected a token id, got 'True'"),
        ([1, 2.0], "prompt[1]: expected a token id, got '2.0'"),
        ([1, "2"], "prompt[1]: expected a token id, got '2'"),
        ([1, None], "prompt[1]: expected a token id, got 'None'"),
        ([1, [2]], "prompt[1]: expected a token id, got '[2]'"),
        ([1, {"a": 2}], "prompt[1]: expected a token id, got \"{'a': 2}\""),
        ([-1], "prompt[0]: expected a token id, got '-1'"),
        ([5, 1 << 31, -1], "prompt[1]: expected a token id, got '2147483648'"),
        ([1 << 80], "prompt[0]: expected a token id, got '1208925819614629174706176'"),
        ([[1], [2, False]], "prompt[1][1]: expected a token id, got 'False'"),
        ([[[1]]], "prompt[0][0]: expected a token id, got '[1]'"),
        ([True, 1], "prompt[0]: expected text or a list of token ids"),
        (["text", 1], "prompt[1]: expected text or a list of token ids"),
        ([], "prompt: the list is empty"),
        (["a", "b", "c", "d"], "prompt: 4 prompts, at most 3 are taken"),
        ([7] * ((1 << 20) + 1), "prompt: 1048577 token ids"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_place(given: Any, message: str) -> None:
    """The first that is wrong is named, with what came."""
    with pytest.raises(BadRequest) as caught:
        parse_prompts(given, max_prompts=3)
    assert str(caught.value) == message
