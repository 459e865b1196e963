"""Fields that requests of all APIs share, with their bounds. What a client may say beyond OpenAI's words is SGLang's and vLLM's."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from runtime.request import (
    MAX_CHOICES,
    MAX_LOGIT_BIAS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    MIN_REPETITION_PENALTY,
)

MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_PATTERN_CHARS = 16 << 10

ALWAYS = {
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "no_stop_trim": False,
    "include_stop_str_in_output": False,
}
"""Control tokens and stop strings are not part of an answer's text."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
LogitBias = Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=MAX_LOGIT_BIAS)]
MaxTokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
NoneOrTokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
"""0: only the prompt is read. One token is computed and counted, and none is given."""
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Tokens = Annotated[list[TokenId], Meta(min_length=1, max_length=MAX_TOKENS)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """`stream_options`."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    """vLLM's: every event has the usage so far."""
    include_obfuscation: Literal[False] | None = False
    """Padding against observers of lengths is not added, and who asks for it must hear so."""


class SamplingFields(Struct, kw_only=True):
    """How tokens are chosen. None: the model's own default, or none."""

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, lt=1 << 31)] | None = None
    """-1 and 0: no limit."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Meta(ge=MIN_REPETITION_PENALTY, le=10)] | None = None
    logit_bias: LogitBias = {}
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] = 0
    ignore_eos: bool = False
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)] = []


class OpenAIFields(SamplingFields, kw_only=True):
    """What chat and completions have in common."""

    model: Name
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    """As far as OpenAI's goes; `/generate` takes more."""
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    stop: str | list[Any] = []
    """Checked by `parameters.parse_stops`, which names what is wrong."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] = {}
    """Parsed by `structured.parse_response_format`."""
    regex: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = None
    ebnf: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_CHARS)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    user: Annotated[str, Meta(max_length=256)] = ""
    metadata: Metadata = {}
    store: bool = False
    service_tier: str | None = None
    skip_special_tokens: bool = True
    """This and the next three are SGLang's and vLLM's: only what is always done is taken."""
    spaces_between_special_tokens: bool = True
    no_stop_trim: bool = False
    include_stop_str_in_output: bool = False
