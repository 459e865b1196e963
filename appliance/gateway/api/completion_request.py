"""`POST /v1/completions`: what is asked. Prompts are text, token ids, or a list of either."""

from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.gateway.api.chat_request import parse_structure, verify_openai_fields
from appliance.gateway.api.fields import NoneOrTokens, OpenAIFields, TokenId, TopLogprobs
from appliance.gateway.api.parameters import parse_parameters, parse_stops
from appliance.gateway.api.structured import Structure
from appliance.gateway.errors import BadRequest
from appliance.gateway.settings import GatewaySettings
from runtime.request import MAX_TOKENS

Prompt = str | list[int]


class CompletionFields(OpenAIFields, kw_only=True):
    """The body's members."""

    prompt: str | list[Any]
    max_tokens: NoneOrTokens = 16
    logprobs: TopLogprobs | None = None
    echo: bool = False
    best_of: int | None = None
    """Only as many as are asked for: what load generators of SGLang and vLLM send."""


class _TokenIds(msgspec.Struct, array_like=True):
    """A type of its own is made ready once, `list[TokenId]` at each use."""

    ids: list[TokenId]


@dataclass(frozen=True)
class CompletionRequest:
    """A completion request that is sound in itself."""

    fields: CompletionFields
    prompts: list[Prompt]
    stops: tuple[str, ...]
    structure: Structure | None

    @property
    def logprobs(self) -> int:
        """Of `SamplingParams`: -1 for none."""
        return -1 if self.fields.logprobs is None else self.fields.logprobs

    @property
    def prompt_logprobs(self) -> int:
        """Those of the prompt are wanted where it is echoed."""
        return self.logprobs if self.fields.echo else -1

    def where(self, index: int) -> str:
        """Name of one prompt in errors."""
        return "prompt" if len(self.prompts) == 1 else f"prompt[{index}]"


def parse_completion_request(body: dict[str, Any], settings: GatewaySettings) -> CompletionRequest:
    """Check a body.

    Raises: BadRequest.
    """
    fields = parse_parameters(body, CompletionFields)
    verify_openai_fields(fields)
    if fields.best_of not in (None, fields.n):
        message = "best_of: more than n is not supported: ask for n choices"
        raise BadRequest("unsupported_parameter", message, parameter="best_of")
    prompts = parse_prompts(fields.prompt, settings.max_prompts)
    return CompletionRequest(fields, prompts, parse_stops(fields.stop), parse_structure(fields))


def parse_prompts(prompt: str | list[Any], max_prompts: int, parameter: str = "prompt") -> list[Prompt]:
    """The prompts of a body.

    Raises: BadRequest.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise BadRequest("empty_prompt", f"{parameter}: the list is empty", parameter=parameter)
    if type(prompt[0]) is int:
        return [_token_ids(prompt, parameter)]
    if len(prompt) > max_prompts:
        message = f"{parameter}: {len(prompt)} prompts, at most {max_prompts} are taken"
        raise BadRequest("too_many_prompts", message, parameter=parameter)
    return [_one(entry, f"{parameter}[{index}]") for index, entry in enumerate(prompt)]


def _one(entry: Any, where: str) -> Prompt:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list):
        return _token_ids(entry, where)
    raise BadRequest("invalid_parameter", f"{where}: expected text or a list of token ids", parameter=where)


def _token_ids(entry: list[Any], where: str) -> list[int]:
    if len(entry) > MAX_TOKENS:
        raise BadRequest("context_length_exceeded", f"{where}: {len(entry)} token ids", parameter=where)
    try:
        return msgspec.convert((entry,), _TokenIds).ids
    except msgspec.ValidationError:
        place, wrong = next(
            (place, one) for place, one in enumerate(entry) if type(one) is not int or not 0 <= one < 1 << 31
        )
        message = f"{where}[{place}]: expected a token id, got {str(wrong)[:32]!r}"
        raise BadRequest("invalid_parameter", message, parameter=where) from None
