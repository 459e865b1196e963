"""What the engine refuses at the door, each with a code, a parameter and a message that has the numbers."""

import array
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.errors import RequestRejected
from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.limits import RequestLimits

LIMITS = RequestLimits(vocab_size=100, context_length=64, num_usable_pages=3, max_running_requests=4)


def request(prompt: Sequence[int], n: int = 1, **sampling: Any) -> GenerationRequest:
    return GenerationRequest(request_id=1, prompt=prompt, n=n, sampling=SamplingParams(**sampling))


@pytest.mark.parametrize(
    ("asked", "code", "parameter", "words"),
    [
        (request([]), "empty_prompt", "prompt", "no tokens"),
        (request([1] * 64), "context_length_exceeded", "prompt", "64 tokens"),
        (request([1] * 30, max_tokens=35), "context_length_exceeded", "max_tokens", "30 tokens and max_tokens of 35"),
        (request([1] * 30, max_tokens=20), "kv_capacity_exceeded", "max_tokens", "need 4 pages"),
        (request([5, 100]), "token_out_of_range", "prompt", "id 100 at place 1"),
        (request([-1]), "token_out_of_range", "prompt", "id -1"),
        (request(array.array("I", [5, 99, 100])), "token_out_of_range", "prompt", "id 100 at place 2"),
        (request(array.array("I", [5, (1 << 32) - 1])), "token_out_of_range", "prompt", "id 4294967295 at place 1"),
        (request([1 << 80]), "token_out_of_range", "prompt", "not a list of ids"),
        (request([1], stop_token_ids=(100,)), "token_out_of_range", "stop_token_ids", "ends at 99"),
        (request([1], logit_bias={200: 1.0}), "token_out_of_range", "logit_bias", "id 200"),
        (request([1], min_tokens=9, max_tokens=8), "min_tokens_above_max_tokens", "min_tokens", "9"),
        (request([1], n=5), "too_many_choices", "n", "at most 4"),
    ],
)
def test_impossible_request_is_refused_with_its_reason(
    asked: GenerationRequest, code: str, parameter: str, words: str
) -> None:
    """Code and parameter are for programs, the message names what was asked and what is possible."""
    with pytest.raises(RequestRejected, match=words) as caught:
        LIMITS.verify(asked)
    assert (caught.value.code, caught.value.parameter) == (code, parameter)


def test_request_that_just_fits_is_accepted() -> None:
    """48 places hold 49 tokens, as the last one's keys and values are never needed."""
    LIMITS.verify(request([99] * 30, n=4, max_tokens=19))
    with pytest.raises(RequestRejected):
        LIMITS.verify(request([99] * 30, max_tokens=20))
