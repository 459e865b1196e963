"""Anthropic's request, `POST /v1/messages`, as a chat request: the same checks hold for both.

What has a counterpart in chat is translated; what has none is refused by name. Thoughts of earlier turns go to the chat
template, which shows or drops them, but for those that `context_management` clears; marks for caching change nothing, as prefixes
are shared by content. No template knows results that are errors, so `is_error` becomes a word before the result's text.
"""

import json
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from appliance.gateway.api.fields import MaxTokens, Name
from appliance.gateway.api.parameters import parse_members, parse_parameters
from appliance.gateway.errors import BadRequest

Blocks = str | list[dict[str, Any]]
_ERROR = "Error: "
CHAT_NAMES = {
    "max_completion_tokens": "max_tokens",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
}
"""What a chat request's parameters are called here."""


class CacheControl(Struct, forbid_unknown_fields=True):
    """`cache_control`."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Struct):
    """A block of text. Answers have `citations`, empty."""

    type: Literal["text"]
    text: str
    citations: Annotated[list[Any], Meta(max_length=0)] = []
    cache_control: CacheControl | None = None


class DirectCaller(Struct, forbid_unknown_fields=True):
    """`caller` of a call: the model itself, as there is no program that calls."""

    type: Literal["direct"]


class ToolUseBlock(Struct):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None


class ToolResultBlock(Struct):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Meta(min_length=1, max_length=128)]
    content: Blocks = ""
    is_error: bool = False
    cache_control: CacheControl | None = None


class ThinkingBlock(Struct):
    """What a model thought. Its signature is not looked at: none is given here. Thoughts that are redacted are dropped."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str = ""
    signature: str = ""
    data: str = ""


class TurnMessage(Struct, forbid_unknown_fields=True):
    """One message. Those of the system stand between others where an application says something on the way."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class OutputFormat(Struct, forbid_unknown_fields=True):
    """`output_config.format`."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class MessagesTool(Struct, forbid_unknown_fields=True):
    """One tool."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: Literal[True] | None = None
    """Arguments always stream as the model writes them."""
    defer_loading: Literal[False] | None = None
    allowed_callers: list[Literal["direct"]] | None = None


class OutputConfig(Struct, forbid_unknown_fields=True):
    """`output_config`."""

    effort: str | None = None
    format: OutputFormat | None = None


class MessagesChoice(Struct, forbid_unknown_fields=True):
    """`tool_choice`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct, forbid_unknown_fields=True):
    """`thinking`."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class ThinkingTurns(Struct, frozen=True, forbid_unknown_fields=True):
    """`keep` of `clear_thinking`: of so many turns of the assistant, the last ones."""

    type: Literal["thinking_turns"]
    value: Annotated[int, Meta(ge=1)]


class ClearThinking(Struct, forbid_unknown_fields=True):
    """The one edit that is known. Results of tools are never cleared."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"] | ThinkingTurns = ThinkingTurns("thinking_turns", 1)


class ContextManagement(Struct, forbid_unknown_fields=True):
    """`context_management`."""

    edits: Annotated[list[ClearThinking], Meta(max_length=1)] = []


class MessagesMetadata(Struct, forbid_unknown_fields=True):
    """`metadata`."""

    user_id: Annotated[str, Meta(max_length=256)] | None = None


class CountedFields(Struct, kw_only=True):
    """What `count_tokens` takes."""

    model: Name
    messages: Annotated[list[TurnMessage], Meta(min_length=1)]
    system: Blocks = ""
    tools: list[MessagesTool] = field(default_factory=list)
    tool_choice: MessagesChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: ContextManagement | None = None


class MessagesFields(CountedFields, kw_only=True):
    """The body's members."""

    max_tokens: MaxTokens
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[Any] = field(default_factory=list)
    stream: bool = False
    metadata: MessagesMetadata | None = None
    service_tier: Literal["auto", "standard_only"] = "auto"


def parse_messages(body: dict[str, Any]) -> MessagesFields:
    """Check a body by itself. Raises: BadRequest."""
    return parse_parameters(body, MessagesFields)


def parse_count(body: dict[str, Any]) -> CountedFields:
    """The same for `count_tokens`. Raises: BadRequest."""
    return parse_parameters(body, CountedFields)


def chat_body(fields: CountedFields, *, reasons: bool, has_effort: bool) -> dict[str, Any]:
    """The chat request that means the same.

    Args:
        reasons: the model does.
        has_effort: its template can be told how much.
    Raises: BadRequest.
    """
    chat: dict[str, Any] = {"model": fields.model, "messages": _messages(fields)}
    chat["continue_final_message"] = fields.messages[-1].role == "assistant"
    chat["tools"] = [_tool(tool) for tool in fields.tools]
    chat |= _choice(fields.tool_choice)
    chat |= _thinking(fields, reasons=reasons)
    chat |= _output(fields.output_config, has_effort=has_effort)
    if isinstance(fields, MessagesFields):
        chat["max_completion_tokens"] = fields.max_tokens
        chat["stream"] = fields.stream
        chat["stop"] = fields.stop_sequences
        chat |= {name: getattr(fields, name) for name in ("temperature", "top_p", "top_k")}
        if fields.metadata is not None and fields.metadata.user_id is not None:
            chat["user"] = fields.metadata.user_id
    return chat


def _messages(fields: CountedFields) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    system = _text(fields.system, "system")
    if system:
        messages.append({"role": "system", "content": system})
    for index, message in enumerate(fields.messages):
        where = f"messages[{index}].content"
        if isinstance(message.content, str):
            messages.append({"role": message.role, "content": message.content})
        elif not message.content:
            raise BadRequest("invalid_parameter", f"{where}: expected at least one block", parameter=where)
        elif message.role == "user":
            messages += _user_messages(message.content, where)
        elif message.role == "system":
            messages.append({"role": "system", "content": _text(message.content, where)})
        else:
            messages.append(_assistant_message(message.content, where))
    if fields.context_management is not None:
        for edit in fields.context_management.edits:
            if edit.keep != "all":
                _clear_thinking(messages, edit.keep.value)
    return _combined(messages)


def _combined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Consecutive turns of one role are one turn (Anthropic's reference of `messages`); many templates take no others. Of an
    assistant's, what was called and thought is together what the turn called and thought.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        last = turns[-1] if turns else None
        if last is None or last["role"] != message["role"] or message["role"] not in ("user", "assistant"):
            turns.append(message)
            continue
        last["content"] = "\n".join(text for text in (_flat(last["content"]), _flat(message["content"])) if text)
        if thoughts := "\n".join(one["reasoning_content"] for one in (last, message) if "reasoning_content" in one):
            last["reasoning_content"] = thoughts
        if calls := [*last.get("tool_calls", ()), *message.get("tool_calls", ())]:
            last["tool_calls"] = calls
    return turns


def _flat(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _clear_thinking(messages: list[dict[str, Any]], num_turns: int) -> None:
    """Of turns before the last ones. What tools gave is within a turn: the next begins when a user speaks."""
    turns = 0
    is_new = True
    for message in reversed(messages):
        if message["role"] == "assistant":
            turns += is_new
            is_new = False
            if turns > num_turns:
                message.pop("reasoning_content", None)
        elif message["role"] == "user":
            is_new = True


def _user_messages(blocks: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Results of tools are messages of their own in chat, before what the user says beside them."""
    messages: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place = f"{where}[{index}]"
        if block.get("type") == "tool_result":
            messages.append(_result_message(parse_members(block, ToolResultBlock, place), place))
        else:
            texts.append({"type": "text", "text": _block_text(block, place)})
    return [*messages, {"role": "user", "content": texts}] if texts else messages


def _result_message(block: ToolResultBlock, place: str) -> dict[str, Any]:
    content = (_ERROR if block.is_error else "") + _text(block.content, f"{place}.content")
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _assistant_message(blocks: list[dict[str, Any]], where: str) -> dict[str, Any]:
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place = f"{where}[{index}]"
        if block.get("type") == "tool_use":
            use = parse_members(block, ToolUseBlock, place)
            function = {"name": use.name, "arguments": json.dumps(use.input, ensure_ascii=False)}
            calls.append({"id": use.id, "type": "function", "function": function})
        elif block.get("type") in ("thinking", "redacted_thinking"):
            thoughts.append(parse_members(block, ThinkingBlock, place).thinking)
        else:
            text.append(_block_text(block, place))
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(text)}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    return message | {"tool_calls": calls} if calls else message


def _text(content: Blocks, where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_block_text(block, f"{where}[{index}]") for index, block in enumerate(content))


def _block_text(block: dict[str, Any], where: str) -> str:
    kind = block.get("type")
    if kind != "text":
        message = f"{where}: only blocks of type text are supported here, got {str(kind)[:32]}"
        raise BadRequest("unsupported_content", message, parameter=where)
    return parse_members(block, TextBlock, where).text


def _tool(tool: MessagesTool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.input_schema, "strict": tool.strict}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _choice(choice: MessagesChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if (choice.name is not None) is not (choice.type == "tool"):
        place = "tool_choice.name"
        raise BadRequest("invalid_parameter", f"{place} goes with the type tool, and only with it", parameter=place)
    named = {"type": "function", "function": {"name": choice.name}}
    chosen: Any = {"auto": "auto", "any": "required", "none": "none", "tool": named}[choice.type]
    return {"tool_choice": chosen, "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _output(config: OutputConfig | None, *, has_effort: bool) -> dict[str, Any]:
    """`high` is Anthropic's word for what comes without any, so it says nothing to a template that takes none."""
    if config is None:
        return {}
    chat: dict[str, Any] = {} if config.effort == "high" and not has_effort else {"reasoning_effort": config.effort}
    if config.format is not None:
        named = {"name": "output", "schema": config.format.schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    return chat


def _thinking(fields: CountedFields, *, reasons: bool) -> dict[str, Any]:
    """`disabled` says nothing to a model that does not reason; `adaptive` leaves it to the model, as always."""
    thinking = fields.thinking
    if thinking is None:
        return {}
    if thinking.budget_tokens is not None:
        place = "thinking.budget_tokens"
        message = f"{place}: reasoning has no budget of its own; max_tokens holds for all"
        raise BadRequest("unsupported_parameter", message, parameter=place)
    if thinking.type == "enabled" and not reasons:
        message = f"thinking: {fields.model} does not reason"
        raise BadRequest("unsupported_parameter", message, parameter="thinking")
    return {"chat_template_kwargs": {"enable_thinking": False}} if thinking.type == "disabled" and reasons else {}
