"""Strictness: every parameter is known, or refused by name with the nearest one that is.

Null means "as if absent", as in OpenAI's API, wherever a member stands. What OpenAI's API has and this one has not yet is refused
with its own words, so that nobody believes a request was honoured that was not.
"""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from appliance.gateway.api.fields import ALWAYS, MAX_STOP_CHARS, MAX_STOPS
from appliance.gateway.errors import BadRequest

Parsed = TypeVar("Parsed", bound=msgspec.Struct)

ACCEPTED_HINTS = {
    "client_metadata": "it is about the client, and who asks is told by the access token",
    "prompt_cache_key": "prefixes are shared by content within a tenant",
    "safety_identifier": "identities come from the access token",
}
"""Parameters of OpenAI's, and of its Codex, that change nothing here, and could not: what they ask for is done anyway."""

NOT_SUPPORTED = {
    "allowed_token_ids": "use logit_bias, regex or ebnf",
    "audio": "audio is not supported",
    "bad_words": "use logit_bias",
    "best_of": "best_of is not supported: ask for n choices",
    "audio_data": "only text is supported",
    "background_options": "what is made in the background begins at once, as all else",
    "cache_salt": "prefixes are shared within a tenant only",
    "chat_template": "a chat template comes with the model only",
    "context_management": "a conversation is never shortened",
    "conversation": "conversations are not kept: go on from a response with previous_response_id",
    "custom_logit_processor": "a client's code is not run here: use logit_bias, regex or ebnf",
    "extra_key": "prefixes are shared within a tenant only",
    "function_call": "function_call was replaced by tool_choice",
    "functions": "functions was replaced by tools",
    "guided_choice": "use regex",
    "guided_grammar": "use ebnf",
    "guided_json": "use response_format",
    "guided_regex": "use regex",
    "image_data": "only text is supported",
    "input_embeds": "prompts are text or token ids",
    "json_schema": "use response_format",
    "structural_tag": "structural_tag is not supported: use response_format, regex, ebnf or tools",
    "lora_path": "adapters are not supported",
    "max_tool_calls": "there are no hosted tools whose calls could be counted",
    "moderation": "there is no moderation",
    "personality": "personality is not supported",
    "phase": "what an assistant said is not told apart by phases",
    "prediction": "predicted output is not supported",
    "prompt": "prompts are not kept: say all of it in instructions and input",
    "prompt_logprobs": "use echo with logprobs at /v1/completions, or logprob_start_len at /generate",
    "prompt_cache_options": "cached prefixes are kept while memory lasts, whatever a client says",
    "prompt_cache_retention": "cached prefixes are kept while memory lasts, whatever a client says",
    "request_id": "ids are chosen here: the answer's id, which x-request-id gives as it begins",
    "rid": "ids are chosen here: meta_info.id, which x-request-id gives as the answer begins",
    "session_id": "conversations are not kept: say all of the prompt",
    "session_params": "conversations are not kept: say all of the prompt",
    "structured_outputs": "use response_format, regex or ebnf",
    "suffix": "suffix (fill in the middle) is not supported",
    "token_ids_logprob": "only the likeliest tokens can be asked for: use top_logprobs_num",
    "truncate_prompt_tokens": "what is too long is refused",
    "video_data": "only text is supported",
    "web_search_options": "there is no web search: this appliance has no way to the internet",
}

_FUNCTIONS_ONLY = "only functions: no tools that are run here, and none that take free text"
_ONE_VERBOSITY = "there is only the default: say in the instructions how long an answer is to be"
WHY_NOT = {
    "context_management.edits[].type": "results of tools stay, and a conversation is never shortened",
    "include[]": "there are no hosted tools and no images",
    "reasoning.summary": "reasoning comes whole, as text: nothing makes summaries of it",
    "service_tier": "there is only the default",
    "text.verbosity": _ONE_VERBOSITY,
    "tools[].type": _FUNCTIONS_ONLY,
    "tools[].tools[].type": _FUNCTIONS_ONLY,
    "truncation": "a conversation is never shortened: what is too long is refused",
    "verbosity": _ONE_VERBOSITY,
}
"""Why not all values of OpenAI's and Anthropic's are taken; `[]` is any place in a list."""

_get_always, _ALWAYS_VALUES = attrgetter(*ALWAYS), tuple(ALWAYS.values())
MAX_NULLS = 8
"""Members inside of others, in whatever place of their lists, that are null and need not be known: SDKs send back in full what they
parsed. For each of them a body is looked at once more."""
_PLACE = re.compile(r" - at (?:`key` in )?`(?:key in )?\$\.?([^`]*)`")
_FOREIGN = re.compile(r"Object contains unknown field `([^`]+)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def parse_parameters(body: Mapping[str, Any], into: type[Parsed], *, strict: bool = True) -> Parsed:
    """Check a body's members against a request type. `strict`: numbers are no texts; not so where all are texts.

    Raises: BadRequest, naming the member, what was expected and what came.
    """
    if not ACCEPTED_HINTS.keys().isdisjoint(body):
        hints = ACCEPTED_HINTS.keys() - into.__struct_fields__
        body = {key: value for key, value in body.items() if key not in hints}
    return _convert(body, into, strict=strict)


def parse_members(value: Any, into: type[Parsed], where: str) -> Parsed:
    """Check an object inside a body, `where` in it, as strictly.

    Raises: BadRequest, naming the member by its whole path.
    """
    if not isinstance(value, dict):
        raise BadRequest("invalid_parameter", f"{where}: expected an object, got {str(value)[:32]!r}", parameter=where)
    try:
        return _convert(value, into)
    except BadRequest as refused:
        place = f"{where}.{refused.parameter}" if refused.parameter else where
        raise BadRequest(refused.code, f"{where}: {refused}", parameter=place) from refused


def _convert(body: Mapping[str, Any], into: type[Parsed], *, strict: bool = True) -> Parsed:
    known = _fields_of(into)
    given = body if None not in body.values() else {key: value for key, value in body.items() if value is not None}
    if not known.issuperset(given):
        raise _unknown(next(key for key in given if key not in known), known)
    num_nulls = 0
    while True:
        try:
            return msgspec.convert(given, into, strict=strict)
        except msgspec.ValidationError as error:
            num_nulls += 1
            if num_nulls > MAX_NULLS or not _drop_nulls(given, str(error)):
                raise _invalid(str(error)) from error


@lru_cache(maxsize=256)
def _fields_of(into: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(into.__struct_fields__)


def _drop_nulls(body: Mapping[str, Any], message: str) -> bool:
    """Take out the member that msgspec complains of, wherever in its lists it is null; False if it is so nowhere."""
    found, foreign = _PLACE.search(message), _FOREIGN.match(message)
    steps = ["" if index else name for name, index in _STEP.findall(found.group(1) if found else "")]
    if foreign is not None:
        steps.append(foreign.group(1))
    held: list[Any] = [body]
    for step in steps[:-1]:
        if step:
            held = [one[step] for one in held if isinstance(one, dict) and step in one]
        else:
            held = [entry for one in held if isinstance(one, list) for entry in one]
    empty = [one for one in held if steps and isinstance(one, dict) and one.get(steps[-1], "") is None]
    for one in empty:
        del one[steps[-1]]
    return bool(empty)


def _unknown(key: str, known: frozenset[str]) -> BadRequest:
    shown = key[:64]
    if key in NOT_SUPPORTED:
        return BadRequest("unsupported_parameter", NOT_SUPPORTED[key], parameter=shown)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return BadRequest("unknown_parameter", f"unknown parameter: {shown}{hint}", parameter=shown)


def _invalid(message: str) -> BadRequest:
    """msgspec says what was expected and what came, and ends with the place."""
    found = _PLACE.search(message)
    missing = re.match(r"Object missing required field `([^`]+)`", message)
    place = found.group(1) if found else ""
    if missing is not None:
        name = f"{place}.{missing.group(1)}" if place else missing.group(1)
        return BadRequest("missing_parameter", f"missing parameter: {name}", parameter=name)
    foreign = _FOREIGN.match(message)
    if foreign is not None:
        leaf = foreign.group(1)
        name = f"{place}.{leaf}"[:128] if place else leaf[:64]
        if leaf in NOT_SUPPORTED:
            return BadRequest("unsupported_parameter", f"{name}: {NOT_SUPPORTED[leaf]}", parameter=name)
        return BadRequest("unknown_parameter", f"unknown parameter: {name}", parameter=name)
    reason = _PLACE.sub("", message).replace("`", "")
    reason = ("of a key, " if "at `key`" in message else "") + reason[:1].lower() + reason[1:]
    why_not = WHY_NOT.get(re.sub(r"\[\d+\]", "[]", place))
    if why_not is not None and (value := re.match(r"Invalid (?:enum )?value ('.*')", message)):
        shown = "" if "[" not in place else f"{value.group(1)[:48]}: "
        return BadRequest("unsupported_parameter", f"{place}: {shown}{why_not}", parameter=place)
    return BadRequest("invalid_parameter", f"{place or 'the request'}: {reason}", parameter=place or None)


def verify_always(fields: msgspec.Struct, where: str = "") -> None:
    """Check that nothing else is asked for than what is always done. Raises: BadRequest."""
    if _get_always(fields) == _ALWAYS_VALUES:
        return
    for name, value in ALWAYS.items():
        if getattr(fields, name) is not value:
            place = where + name
            message = f"{place}: only {str(value).lower()} is supported"
            raise BadRequest("unsupported_parameter", message, parameter=place)


def parse_stops(stop: str | list[Any], parameter: str = "stop") -> tuple[str, ...]:
    """The stop strings.

    Raises: BadRequest.
    """
    stops = [stop] if isinstance(stop, str) else stop
    if len(stops) > MAX_STOPS:
        raise BadRequest(
            "too_many_stop_strings",
            f"{parameter}: {len(stops)} stop strings, at most {MAX_STOPS} are taken",
            parameter=parameter,
        )
    for index, text in enumerate(stops):
        where = parameter if isinstance(stop, str) else f"{parameter}[{index}]"
        if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_CHARS:
            raise BadRequest(
                "invalid_parameter", f"{where}: expected text of 1 to {MAX_STOP_CHARS} characters", parameter=where
            )
    return tuple(stops)
