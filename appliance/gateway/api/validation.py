"""A request against the model that it asks: lengths, ids, and the model's own defaults. The end of step (3)."""

import secrets
from collections.abc import Sequence
from operator import attrgetter
from typing import TypeVar

from appliance.gateway.api.fields import SamplingFields
from appliance.gateway.errors import BadRequest
from appliance.gateway.models import ServedModel
from appliance.messages.engine import EngineStatus, ModelFacts
from runtime.identifiers import PAGE_SIZE
from runtime.request import MAX_TOKENS, SamplingParams

Number = TypeVar("Number", int, float)
_MAX_SAFE_INTEGER = (1 << 53) - 1
_FRACTIONS = ("min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_SELDOM = (*_FRACTIONS, "min_tokens", "logprobs", "prompt_logprobs")
"""Parameters that an intent names where they are not off."""
_get_seldom = attrgetter(*_SELDOM)
_SELDOM_OFF = _get_seldom(SamplingParams())
MAX_PROMPT_LOGPROBS = 250_000
"""Of one prompt, over all its tokens: they leave the engine in one message, which holds 16 MiB."""


def verify_prompt(token_ids: Sequence[int], facts: ModelFacts, parameter: str) -> None:
    """Check one prompt's ids and length.

    Raises: BadRequest.
    """
    if not token_ids:
        raise BadRequest("empty_prompt", f"{parameter} has no tokens", parameter=parameter)
    if len(token_ids) >= facts.context_length:
        raise BadRequest(
            "context_length_exceeded",
            f"{parameter} has {len(token_ids)} tokens: {_context(facts)}",
            parameter=parameter,
        )
    worst = max(token_ids)
    if worst >= facts.vocab_size:
        place = list(token_ids).index(worst)
        raise BadRequest(
            "token_out_of_range",
            f"{parameter}[{place}]: token id {worst}; the vocabulary of {facts.name} ends at {facts.vocab_size - 1}",
            parameter=parameter,
        )


def _context(facts: ModelFacts) -> str:
    """In OpenAI's words, by which LiteLLM and others know the error."""
    return f"this model's maximum context length is {facts.context_length} tokens, the answer included"


def verify_prompt_logprobs(longest_prompt: int, top: int, parameter: str) -> None:
    """Check that the logprobs of the longest prompt fit into one message: each token's own and its `top` (-1: none at all).

    Raises: BadRequest.
    """
    if longest_prompt * (top + 1) > MAX_PROMPT_LOGPROBS:
        raise BadRequest(
            "invalid_parameter",
            f"{parameter}: {top} for each of {longest_prompt} prompt tokens, and their own, are more than the"
            f" {MAX_PROMPT_LOGPROBS} logprobs that one prompt may ask for",
            parameter=parameter,
        )


def resolve_max_tokens(
    asked: int | None, parameter: str, longest_prompt: int, n: int, facts: ModelFacts, status: EngineStatus | None
) -> int:
    """Output tokens of each choice: as asked if they fit, otherwise refused; by default all that fit.

    Raises: BadRequest.
    """
    room = facts.context_length - longest_prompt
    if asked is None:
        if status is not None and status.num_pages:
            # Never more by default than the engine's memory could hold for this request alone.
            room = min(room, max(1, (status.num_pages - 1) * PAGE_SIZE // n - longest_prompt))
        return min(room, MAX_TOKENS)
    if asked > room:
        raise BadRequest(
            "context_length_exceeded",
            f"the prompt's {longest_prompt} tokens and {parameter} of {asked} are too many: {_context(facts)}",
            parameter=parameter,
        )
    return asked


def build_sampling(
    fields: SamplingFields,
    model: ServedModel,
    facts: ModelFacts,
    *,
    max_tokens: int,
    logprobs: int = -1,
    prompt_logprobs: int = -1,
) -> SamplingParams:
    """The sampling parameters, the model's own defaults filled in and the seed set.

    Raises: BadRequest.
    """
    if fields.min_tokens > max_tokens:
        raise BadRequest(
            "invalid_parameter",
            f"min_tokens is {fields.min_tokens}, above the limit of {max_tokens} tokens",
            parameter="min_tokens",
        )
    verify_ids(fields.stop_token_ids, facts, "stop_token_ids")
    defaults = model.defaults
    seed = secrets.randbits(53) if fields.seed is None else fields.seed & ((1 << 63) - 1)
    return SamplingParams(
        temperature=_first(fields.temperature, defaults.temperature, 1.0),
        top_p=_first(fields.top_p, defaults.top_p, 1.0),
        top_k=max(0, _first(fields.top_k, defaults.top_k, 0)),
        min_p=_first(fields.min_p, defaults.min_p, 0.0),
        frequency_penalty=fields.frequency_penalty,
        presence_penalty=fields.presence_penalty,
        repetition_penalty=_first(fields.repetition_penalty, defaults.repetition_penalty, 1.0),
        logit_bias=_parse_logit_bias(fields.logit_bias, facts),
        seed=seed,
        max_tokens=max_tokens,
        min_tokens=fields.min_tokens,
        ignore_eos=fields.ignore_eos,
        stop_token_ids=tuple(dict.fromkeys(fields.stop_token_ids)),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def audit_parameters(
    sampling: SamplingParams, *, n: int, num_stops: int, stream: bool, user: str = ""
) -> dict[str, str | int]:
    """What of a request its intent names: what the answer depends on. Fractions are text, as records hold no floats."""
    parameters: dict[str, str | int] = {
        "max_tokens": sampling.max_tokens,
        "n": n,
        "seed": sampling.seed if sampling.seed <= _MAX_SAFE_INTEGER else str(sampling.seed),
        "stream": int(stream),
        "temperature": repr(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": repr(sampling.top_p),
    }
    if (given := _get_seldom(sampling)) != _SELDOM_OFF:
        for name, value, off in zip(_SELDOM, given, _SELDOM_OFF, strict=True):
            if value != off:
                parameters[name] = repr(value) if name in _FRACTIONS else value
    if num_stops:
        parameters["num_stop"] = num_stops
    if sampling.logit_bias:
        parameters["num_logit_bias"] = len(sampling.logit_bias)
    if sampling.ignore_eos:
        parameters["ignore_eos"] = 1
    if user:
        parameters["user"] = user
    return parameters


def verify_priority(priority: int, highest: int) -> None:
    """Clients may step back, and forward only as far as the operator lets them. Raises: BadRequest."""
    if priority > highest:
        raise BadRequest(
            "invalid_parameter",
            f"priority: {priority} is above {highest}, the highest that clients may ask for",
            parameter="priority",
        )


def _first(asked: Number | None, default: Number | None, otherwise: Number) -> Number:
    return asked if asked is not None else default if default is not None else otherwise


def verify_ids(token_ids: Sequence[int], facts: ModelFacts, parameter: str) -> None:
    """Check that ids are in the vocabulary. Raises: BadRequest."""
    for place, token_id in enumerate(token_ids):
        if token_id >= facts.vocab_size:
            raise BadRequest(
                "token_out_of_range",
                f"{parameter}[{place}]: token id {token_id}; the vocabulary of {facts.name} ends at {facts.vocab_size - 1}",
                parameter=parameter,
            )


def _parse_logit_bias(bias: dict[str, float], facts: ModelFacts) -> dict[int, float]:
    parsed: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 11 and int(key) < facts.vocab_size):
            raise BadRequest(
                "token_out_of_range",
                f"logit_bias: {key[:32]!r} is no token id; the vocabulary of {facts.name} ends at {facts.vocab_size - 1}",
                parameter="logit_bias",
            )
        parsed[int(key)] = value
    return parsed
