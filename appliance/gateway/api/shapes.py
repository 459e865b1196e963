"""OpenAI's response objects, member for member, as its SDK parses them."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class CachedTokens(msgspec.Struct):
    """`prompt_tokens_details`."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    """`completion_tokens_details`."""

    reasoning_tokens: int | UnsetType = UNSET
    """Of models that reason."""
    accepted_prediction_tokens: int | UnsetType = UNSET
    """Of engines that speculate: drafted tokens that were the answer's; each is one for which the model made no pass."""
    rejected_prediction_tokens: int | UnsetType = UNSET
    """Drafted tokens that were not. They are no part of `completion_tokens`."""
    spec_verify_ct: int | UnsetType = UNSET
    """Passes of the model that verified them, by SGLang's name."""


class Usage(msgspec.Struct):
    """`usage`: output tokens after a stop string are not in it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: CompletionDetails | UnsetType = UNSET


class TopLogprob(msgspec.Struct):
    """One of the likeliest tokens at a place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of the answer with those that were likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """`logprobs` of a chat choice."""

    content: list[TokenLogprob] | None
    refusal: None = None


class FunctionCall(msgspec.Struct):
    """A called function; the arguments are JSON text. In a stream they come in pieces, after the name."""

    arguments: str
    name: str | UnsetType = UNSET


class ChatToolCall(msgspec.Struct):
    """A tool call. In a stream `index` says which; what follows its first piece has neither id nor type."""

    function: FunctionCall
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    index: int | UnsetType = UNSET


class AssistantMessage(msgspec.Struct):
    """`message` of a whole answer."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[ChatToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    """DeepSeek's addition, which others took over."""


class ChatChoice(msgspec.Struct):
    """A choice of a whole answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    matched_stop: str | int | None
    """SGLang's addition: the stop string or token id that ended it; null at the limit of tokens."""


class ChatCompletion(msgspec.Struct):
    """A whole chat answer."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    service_tier: Literal["default"] | UnsetType = UNSET
    """Where the request said one."""
    object: Literal["chat.completion"] = "chat.completion"


class Delta(msgspec.Struct):
    """What a chunk adds to its choice."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ChatToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    """A choice of a chunk."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    matched_stop: str | int | UnsetType | None = UNSET
    """With `finish_reason`, as of a whole answer."""


class ChatChunk(msgspec.Struct):
    """One event of a chat stream."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
    service_tier: Literal["default"] | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class TextLogprobs(msgspec.Struct):
    """`logprobs` of a completion choice, in the legacy form."""

    tokens: list[str] = msgspec.field(default_factory=list)
    token_logprobs: list[float | None] = msgspec.field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = msgspec.field(default_factory=list)
    text_offset: list[int] = msgspec.field(default_factory=list)


class TextChoice(msgspec.Struct):
    """A choice of a completion, whole or in part."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None
    matched_stop: str | int | UnsetType | None = UNSET
    """With `finish_reason`, as in chat."""


class Completion(msgspec.Struct):
    """A completion, whole or one event of a stream."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"


class Model(msgspec.Struct):
    """An entry of `/v1/models`. `root` and `max_model_len` are vLLM's and SGLang's additions; the last four members are what
    Anthropic's SDK reads at the same address."""

    id: str
    created: int
    max_model_len: int | None
    root: str
    """The model itself: there are no adapters of it."""
    display_name: str
    created_at: str
    """`created` in RFC 3339."""
    owned_by: str = "casemate"
    object: Literal["model"] = "model"
    type: Literal["model"] = "model"
    lifecycle: Literal["active"] = "active"
