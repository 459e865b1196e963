"""What an intent names of a request's parameters: all that an answer depends on, and nothing that is off."""

import msgspec
import pytest

from appliance.gateway.api.validation import audit_parameters
from runtime.request import SamplingParams

PLAIN = {"max_tokens": 16, "n": 1, "seed": 7, "stream": 0, "temperature": "1.0", "top_k": 0, "top_p": "1.0"}


def test_what_is_off_is_not_named() -> None:
    """Nearly all requests: seven members."""
    assert audit_parameters(SamplingParams(seed=7), n=1, num_stops=0, stream=False) == PLAIN


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("min_p", 0.25, "0.25"),
        ("frequency_penalty", -0.5, "-0.5"),
        ("presence_penalty", 2.0, "2.0"),
        ("repetition_penalty", 1.1, "1.1"),
        ("min_tokens", 3, 3),
        ("logprobs", 0, 0),
        ("prompt_logprobs", 5, 5),
    ],
)
def test_what_is_on_is_named_alone(name: str, value: float, named: str | int) -> None:
    """Fractions are text, as records hold no floats; counts are numbers."""
    sampling = msgspec.structs.replace(SamplingParams(seed=7), **{name: value})
    assert audit_parameters(sampling, n=1, num_stops=0, stream=False) == PLAIN | {name: named}


def test_what_has_no_value_of_its_own_is_counted() -> None:
    """Stop strings and biases may hold words of the prompt: the record has their number."""
    sampling = SamplingParams(seed=1 << 60, logit_bias={1: 1.0, 2: -1.0}, ignore_eos=True)
    named = audit_parameters(sampling, n=2, num_stops=3, stream=True, user="u")
    expected = {"num_stop": 3, "num_logit_bias": 2, "ignore_eos": 1, "user": "u", "n": 2, "stream": 1}
    assert named == PLAIN | expected | {"seed": str(1 << 60)}
