"""Anthropic's request, `POST /v1/messages`, as a chat request: the same checks hold for both.

What has a counterpart in chat is translated; what has none is refused by name. Thinking of earlier turns is dropped, as chat
templates drop it; marks for caching change nothing, as prefixes are shared by content.
"""

import json
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from appliance.gateway.api.fields import MaxTokens, Name
from appliance.gateway.api.parameters import parse_parameters
from appliance.gateway.errors import BadRequest

Blocks = str | list[dict[str, Any]]
_IGNORED = ("cache_control", "citations")


class TurnMessage(Struct, forbid_unknown_fields=True):
    """One message."""

    role: Literal["user", "assistant"]
    content: Blocks


class MessagesTool(Struct, forbid_unknown_fields=True):
    """One tool."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] = "custom"
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class MessagesChoice(Struct, forbid_unknown_fields=True):
    """`tool_choice`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct, forbid_unknown_fields=True):
    """`thinking`."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


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


class MessagesFields(CountedFields, kw_only=True):
    """The body's members."""

    max_tokens: MaxTokens
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[Any] = field(default_factory=list)
    stream: bool = False
    metadata: MessagesMetadata | None = None
    service_tier: Literal["auto", "standard_only"] = "auto"


def chat_body(body: dict[str, Any], *, is_count: bool = False) -> dict[str, Any]:
    """The chat request that means the same. Raises: BadRequest."""
    fields = parse_parameters(body, CountedFields if is_count else MessagesFields)
    chat: dict[str, Any] = {"model": fields.model, "messages": _messages(fields)}
    if fields.tools:
        chat["tools"] = [_tool(tool) for tool in fields.tools]
        chat |= _choice(fields.tool_choice)
    if fields.thinking is not None:
        chat |= _thinking(fields.thinking)
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
        elif message.role == "user":
            messages += _user_messages(message.content, where)
        else:
            messages.append(_assistant_message(message.content, where))
    return messages


def _user_messages(blocks: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Results of tools are messages of their own in chat, before what the user says beside them."""
    messages: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        place = f"{where}[{index}]"
        if block.get("type") == "tool_result":
            content = _text(block.get("content", ""), f"{place}.content")
            messages.append(
                {"role": "tool", "tool_call_id": str(block.get("tool_use_id", ""))[:128], "content": content}
            )
        else:
            texts.append({"type": "text", "text": _block_text(block, place)})
    return [*messages, {"role": "user", "content": texts}] if texts else messages


def _assistant_message(blocks: list[dict[str, Any]], where: str) -> dict[str, Any]:
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        if block.get("type") == "tool_use":
            arguments = json.dumps(block.get("input", {}), ensure_ascii=False)
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif block.get("type") not in ("thinking", "redacted_thinking"):
            text.append(_block_text(block, f"{where}[{index}]"))
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(text)}
    return message | {"tool_calls": calls} if calls else message


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest("invalid_parameter", f"{where}: expected text or a list of blocks", parameter=where)
    return "\n".join(_block_text(block, f"{where}[{index}]") for index, block in enumerate(content))


def _block_text(block: Any, where: str) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind != "text":
        message = f"{where}: only blocks of type text are supported here, got {str(kind)[:32]}"
        raise BadRequest("unsupported_content", message, parameter=where)
    text = block.get("text")
    unknown = set(block) - {"type", "text", *_IGNORED}
    if not isinstance(text, str) or unknown:
        raise BadRequest("invalid_parameter", f"{where}: expected the members type and text", parameter=where)
    return text


def _tool(tool: MessagesTool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.input_schema, "strict": tool.strict}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _choice(choice: MessagesChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    named = {"type": "function", "function": {"name": choice.name or ""}}
    chosen: Any = {"auto": "auto", "any": "required", "none": "none", "tool": named}[choice.type]
    return {"tool_choice": chosen, "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _thinking(thinking: Thinking) -> dict[str, Any]:
    if thinking.budget_tokens is not None:
        place = "thinking.budget_tokens"
        message = f"{place}: reasoning has no budget of its own; max_tokens holds for all"
        raise BadRequest("unsupported_parameter", message, parameter=place)
    return {"chat_template_kwargs": {"enable_thinking": False}} if thinking.type == "disabled" else {}
