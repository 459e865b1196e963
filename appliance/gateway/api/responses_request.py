"""OpenAI's Responses request, `POST /v1/responses`, as a chat request: the same checks hold for both.

The conversation is a row of items (`response_turns`). Items of an earlier response come before those of the request.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from appliance.gateway.api.fields import MaxTokens, Metadata, Name, TopLogprobs
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.api.response_turns import Item, full_name, messages_of
from appliance.gateway.errors import BadRequest

ENCRYPTED, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
CHAT_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
"""What a chat request's parameters are called here."""
Include = Literal["reasoning.encrypted_content", "message.output_text.logprobs"]
"""The former is for clients that send reasoning back encrypted only, as some do, though it also comes as text."""


Hint = Annotated[str, Meta(max_length=512)]


class ReasoningFields(Struct, forbid_unknown_fields=True):
    """`reasoning`."""

    effort: str | None = None
    summary: Literal["auto"] | None = None
    """`auto` asks for whatever there is: reasoning as text, and no summary."""


class TextFields(Struct, forbid_unknown_fields=True):
    """`text`."""

    format: dict[str, Any] = field(default_factory=lambda: {"type": "text"})
    verbosity: Literal["medium"] = "medium"


class ResponsesStreamOptions(Struct, forbid_unknown_fields=True):
    """`stream_options`."""

    include_obfuscation: Literal[False] = False
    """As in chat: no padding is added."""


class ResponsesTool(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A function."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamespaceTool(Struct, forbid_unknown_fields=True, tag_field="type", tag="namespace"):
    """Functions that belong together. The model is told of each by both names, with a dot between."""

    name: Annotated[str, Meta(min_length=1)]
    description: str
    tools: Annotated[list[ResponsesTool], Meta(min_length=1)]

    def full_name(self, tool: ResponsesTool) -> str:
        """What the model calls one of them."""
        return full_name(self.name, tool.name)


class ConversationFields(Struct, kw_only=True):
    """What the prompt depends on, which is all that `input_tokens` takes."""

    model: Name | None = None
    input: str | list[dict[str, Any]] | None = None
    """May be absent where `previous_response_id` is not."""
    instructions: str | None = None
    tools: list[ResponsesTool | NamespaceTool] = field(default_factory=list)
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    text: TextFields = field(default_factory=TextFields)
    reasoning: ReasoningFields = field(default_factory=ReasoningFields)
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    truncation: Literal["disabled"] = "disabled"


class ResponsesFields(ConversationFields, kw_only=True):
    """The body's members."""

    model: Name
    max_output_tokens: MaxTokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    """Open Responses has it and the next, which OpenAI's only shows."""
    presence_penalty: float | None = None
    top_logprobs: TopLogprobs = 0
    stream: bool = False
    stream_options: ResponsesStreamOptions | None = None
    store: bool | None = None
    metadata: Metadata = field(default_factory=dict)
    user: Annotated[str, Meta(max_length=256)] = ""
    include: list[Include] = field(default_factory=list)
    service_tier: Literal["auto", "default"] = "auto"
    background: bool = False
    prompt_cache_key: Hint | None = None
    """As elsewhere it changes nothing, and so does the next; a response tells both again."""
    safety_identifier: Hint | None = None


def parse_responses(body: dict[str, Any]) -> ResponsesFields:
    """Check a body by itself. Raises: BadRequest."""
    fields = parse_parameters(body, ResponsesFields)
    if fields.stream_options is not None and not fields.stream:
        raise BadRequest("invalid_parameter", "stream_options needs stream: true", parameter="stream_options")
    if fields.top_logprobs and LOGPROBS not in fields.include:
        raise BadRequest("invalid_parameter", f"top_logprobs needs include: {LOGPROBS}", parameter="top_logprobs")
    if fields.background and fields.store is False:
        message = "background needs store: what is made in the background is kept, to be fetched"
        raise BadRequest("invalid_parameter", message, parameter="background")
    return fields


def parse_conversation(body: dict[str, Any]) -> ConversationFields:
    """The same for `input_tokens`. Raises: BadRequest."""
    return parse_parameters(body, ConversationFields)


def input_items(fields: ConversationFields) -> list[Item]:
    """The request's own items; text is one message. Raises: BadRequest."""
    if fields.input is None and fields.previous_response_id is not None:
        return []
    if not fields.input and not isinstance(fields.input, str):
        what = "missing parameter: input" if fields.input is None else "input: expected one item at least"
        raise BadRequest("missing_parameter", what, parameter="input")
    if isinstance(fields.input, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": fields.input}]}]
    return fields.input


def chat_body(fields: ConversationFields, items: list[Item]) -> dict[str, Any]:
    """The chat request over all items that means the same. Raises: BadRequest."""
    told = [{"role": "system", "content": fields.instructions}] if fields.instructions else []
    chat: dict[str, Any] = {
        "model": fields.model,
        "messages": [*told, *messages_of(items)],
        "response_format": _response_format(fields.text.format),
        "reasoning_effort": fields.reasoning.effort,
        "tools": [described for tool in fields.tools for described in _told(tool)],
        "tool_choice": _choice(fields.tool_choice),
        "parallel_tool_calls": fields.parallel_tool_calls,
    }
    if isinstance(fields, ResponsesFields):
        chat["max_completion_tokens"] = fields.max_output_tokens
        chat["stream"] = fields.stream
        chat |= {"logprobs": LOGPROBS in fields.include, "top_logprobs": fields.top_logprobs}
        chat |= {name: getattr(fields, name) for name in ("temperature", "top_p", "user")}
        chat |= {name: getattr(fields, name) for name in ("frequency_penalty", "presence_penalty")}
    return chat


def tool_places(fields: ConversationFields) -> list[str]:
    """Where each of the chat request's tools stands in the body."""
    return [
        f"tools[{index}]{inner}"
        for index, tool in enumerate(fields.tools)
        for inner in ([""] if isinstance(tool, ResponsesTool) else [f".tools[{one}]" for one in range(len(tool.tools))])
    ]


def _response_format(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("type") != "json_schema":
        return asked
    return {"type": "json_schema", "json_schema": {key: value for key, value in asked.items() if key != "type"}}


def namespaced(tools: Sequence[ResponsesTool | NamespaceTool]) -> dict[str, tuple[str, str]]:
    """The namespace and the name of each function that has one, by what the model calls it."""
    spaces = [tool for tool in tools if isinstance(tool, NamespaceTool)]
    return {space.full_name(tool): (space.name, tool.name) for space in spaces for tool in space.tools}


def _told(tool: ResponsesTool | NamespaceTool) -> list[dict[str, Any]]:
    """What the model is told: of functions in a namespace, what that is, before each one's own description."""
    if isinstance(tool, ResponsesTool):
        return [_function(tool, tool.name, tool.description)]
    return [
        _function(one, tool.full_name(one), "\n".join(text for text in (tool.description, one.description) if text))
        for one in tool.tools
    ]


def _function(tool: ResponsesTool, name: str, description: str | None) -> dict[str, Any]:
    members = {"name": name, "description": description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {key: value for key, value in members.items() if value is not None}}


def _choice(choice: Any) -> Any:
    match choice:
        case {"type": "function", "name": str(name), **other} if not other:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": [*tools], **other} if not other:
            return {
                "type": "allowed_tools",
                "allowed_tools": {"mode": mode, "tools": [_choice(tool) for tool in tools]},
            }
    return choice
