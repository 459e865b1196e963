"""Messages of a chat: OpenAI's roles and fields, brought into the form that chat templates are written for."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from appliance.gateway.errors import BadRequest

CACHE_MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Members of a part, of which clients of Anthropic's models and OpenAI's say that all up to here is to be cached. It is anyway."""
Content = str | list[dict[str, Any]] | None


class CalledFunction(Struct, forbid_unknown_fields=True):
    """The function of an earlier call, its arguments as the model wrote them: JSON text, if it did not go wrong."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    arguments: str
    parsed_arguments: Any = None
    """What OpenAI's SDK made of them, which it sends along; so with a message's `parsed`. Neither says anything new."""


class EarlierCall(Struct, forbid_unknown_fields=True):
    """A tool call of an earlier assistant message."""

    id: Annotated[str, Meta(max_length=128)]
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None


class ChatMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """One message. What OpenAI's SDK writes back of our own answers is taken; what they never have only if it is empty."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    name: Annotated[str, Meta(max_length=256)] | None = None
    tool_calls: Annotated[list[EarlierCall], Meta(max_length=256)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=128)] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    """Given to the template: most drop it, some show that of the current turn."""
    parsed: Any = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    type: Literal["text", "message"] | None = None
    """Some clients write it (lm-eval up to 0.4.11 `text`); there is nothing else that a message could be."""
    provider_specific_fields: dict[str, Any] | None = None
    """Where LiteLLM keeps what of an answer it has no place for. It changes nothing."""


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as a template sees them: results of tools in the order of their calls, by which most templates tell them apart,
    as they do not show ids.

    Raises: BadRequest, naming the place.
    """
    shown = [_template_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    return _with_results_in_order(shown)


def _with_results_in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Raises: BadRequest for a result of what nobody called."""
    places: dict[str, int] = {}
    ordered: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    num_calls = 0
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            called = message.get("tool_call_id")
            if called is not None and called not in places:
                where = f"messages[{index}].tool_call_id"
                raise BadRequest(
                    "invalid_parameter", f"{where}: no message before it has a call with this id", parameter=where
                )
            results.append(message)
            continue
        ordered += _sorted_results(results, places)
        results = []
        ordered.append(message)
        for call in message.get("tool_calls", ()):
            places[call["id"]] = num_calls  # An id that comes again is that of the later call.
            num_calls += 1
    return ordered + _sorted_results(results, places)


def _sorted_results(results: list[dict[str, Any]], places: dict[str, int]) -> list[dict[str, Any]]:
    """Those that follow one another; where one does not say whose it is, as they came."""
    if len(results) < 2 or not all("tool_call_id" in one for one in results):
        return results
    return sorted(results, key=lambda one: places[one["tool_call_id"]])


def _template_message(message: ChatMessage, where: str) -> dict[str, Any]:
    # No template of the supported families knows `developer`; OpenAI calls it the newer name of `system`.
    role = "system" if message.role == "developer" else message.role
    result: dict[str, Any] = {"role": role, "content": _text(message, where)}
    if message.name is not None:
        result["name"] = message.name
    if message.tool_calls:
        if message.role != "assistant":
            raise _misplaced(f"{where}.tool_calls", "assistant")
        result["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.reasoning_content is not None:
        if message.role != "assistant":
            raise _misplaced(f"{where}.reasoning_content", "assistant")
        result["reasoning_content"] = message.reasoning_content
    if message.tool_call_id is not None:
        if message.role != "tool":
            raise _misplaced(f"{where}.tool_call_id", "tool")
        result["tool_call_id"] = message.tool_call_id
    return result


def _text(message: ChatMessage, where: str) -> str:
    content = message.content
    if content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal):
            return message.refusal or ""
        raise BadRequest(
            "missing_parameter",
            f"{where}.content: messages of the role {message.role} need content",
            parameter=f"{where}.content",
        )
    if isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}.content[{index}]", message.role) for index, part in enumerate(content))


def _part(part: dict[str, Any], where: str, role: str) -> str:
    """Text; of what the assistant refused, its words, as of `refusal` beside the content."""
    kind = part.get("type")
    if kind != "text" and (kind != "refusal" or role != "assistant"):
        message = f"{where}: only parts of type text are supported, got {str(kind)[:32]}"
        raise BadRequest("unsupported_content", message, parameter=where)
    text = part.get(kind)
    given = {name for name, value in part.items() if value is not None}
    if not isinstance(text, str) or given - CACHE_MARKS != {"type", kind}:
        raise BadRequest(
            "invalid_parameter", f"{where}: expected the members type and {kind}, and no others", parameter=where
        )
    return text


def _arguments(text: str) -> dict[str, Any] | str:
    """Templates write arguments as JSON themselves, so they want the value, not the text.

    What is no JSON object stays text: agents tell the model what was wrong with its call, and go on, with the call before it.
    """
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return arguments if isinstance(arguments, dict) else text


def _misplaced(where: str, role: str) -> BadRequest:
    return BadRequest("invalid_parameter", f"{where}: only {role} messages have it", parameter=where)
