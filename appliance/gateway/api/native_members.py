"""What SGLang's tools say at `/generate` beside what can be asked for here: their defaults, and one value for each prompt.

Its frontend language sends every sampling parameter there is, most at a default that asks for nothing: such a value is taken, any
other refused by name. Where SGLang takes a list with one value for each prompt, all must be the same here.
Source: SGLang 0.5.23, `GenerateReqInput` and `SamplingParams`.
"""

import json
from collections.abc import Mapping
from typing import Any

from appliance.gateway.errors import BadRequest

Inert = Mapping[str, tuple[Any, ...]]
"""The values of members that ask for nothing."""

REQUEST_INERT: Inert = {
    "log_metrics": (True,),
    "modalities": (["text"],),
    "routed_experts_start_len": (0,),
    **dict.fromkeys(
        (
            *("background", "no_logs", "require_reasoning", "return_bytes", "return_entropy", "return_hidden_states"),
            *("return_indexer_topk", "return_prompt_token_ids", "return_routed_experts", "return_sampling_mask"),
            *(
                "return_flat_raw_top_logprobs",
                "return_flat_raw_output_top_logprobs",
                "return_flat_raw_top_logprobs_b64",
            ),
            "use_audio_in_video",
        ),
        (False,),
    ),
}
"""`no_logs`: every request is recorded, and no record holds its text."""
SAMPLING_INERT: Inert = {"stop_regex": ([], ""), "stream_interval": (1,)}
_FOR_EACH = ("sampling_params", "return_logprob", "logprob_start_len", "top_logprobs_num")


def without_inert(members: Mapping[str, Any], inert: Inert, where: str = "") -> dict[str, Any]:
    """The members that ask for something. Raises: BadRequest for a value that asks for what is not here."""
    left: dict[str, Any] = {}
    for name, value in members.items():
        allowed = inert.get(name)
        if allowed is None or value is None:
            left[name] = value
        elif not any(type(one) is type(value) and one == value for one in allowed):
            place = where + name
            message = f"{place}: only {json.dumps(allowed[0])} is supported"
            raise BadRequest("unsupported_parameter", message, parameter=place)
    return left


def with_one_for_all(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body, in which what is said of each prompt is said once. Raises: BadRequest where it differs."""
    num_prompts = _num_prompts(body)
    said = dict(body)
    for name in _FOR_EACH:
        values = said.get(name)
        if num_prompts is None or not isinstance(values, list):
            continue
        if len(values) != num_prompts:
            message = f"{name}: expected one for all prompts, or one for each of {num_prompts}, got {len(values)}"
            raise BadRequest("invalid_parameter", message, parameter=name)
        if any(type(value) is not type(values[0]) or value != values[0] for value in values):
            message = f"{name}: the same holds for all prompts of a request: ask apart where it differs"
            raise BadRequest("unsupported_parameter", message, parameter=name)
        said[name] = values[0] if values else None
    return said


def _num_prompts(body: Mapping[str, Any]) -> int | None:
    """None where one prompt is given, and not a list of them."""
    given = body.get("text") if body.get("input_ids") is None else body.get("input_ids")
    return len(given) if isinstance(given, list) and not (given and type(given[0]) is int) else None
