"""Items of a Responses conversation as messages of a chat: messages, calls, their outputs, reasoning.

Reasoning goes to the chat template with the message of the assistant's that it precedes, or with that of the calls, as in
`/v1/messages`: so a model that calls tools still has its thoughts when their outputs come. The template shows or drops them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from appliance.gateway.api.parameters import parse_members
from appliance.gateway.errors import BadRequest

Item = dict[str, Any]
Message = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]
_TEXT_PARTS = ("input_text", "output_text", "text")


class MessageItem(Struct):
    """An item of `input`: a message. Like the others it may come back as an answer had it, with its id and status."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Any]
    type: Literal["message"] = "message"
    id: str | None = None
    status: Status | None = None


class CallItem(Struct):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    parsed_arguments: Any = None
    """What OpenAI's SDK made of them, as in chat; so with a text's `parsed`."""
    namespace: str | None = None
    id: str | None = None
    status: Status | None = None


class CallOutputItem(Struct):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Any]
    id: str | None = None
    status: Status | None = None


class SummaryText(Struct, forbid_unknown_fields=True):
    """A part of a summary. None are made here; another API's stand for the thoughts that they sum up."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(Struct, forbid_unknown_fields=True):
    """A part of what the model thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Struct):
    """What the model thought."""

    type: Literal["reasoning"]
    id: str | None = None
    status: Status | None = None
    summary: list[SummaryText] = []
    content: list[ReasoningText] = []
    encrypted_content: str | None = None
    """Of what was asked for encrypted (`response_reasoning`)."""

    @property
    def text(self) -> str:
        """The thoughts themselves, if they are there."""
        return "\n".join(part.text for part in self.content or self.summary)


class LikelyToken(Struct, forbid_unknown_fields=True):
    """One of `top_logprobs`."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ScoredToken(LikelyToken, forbid_unknown_fields=True):
    """One of `logprobs`."""

    top_logprobs: list[LikelyToken] = []


class TextPart(Struct):
    """A part of a message's content. Answers have the two lists, the first one empty; neither changes a prompt."""

    type: str
    text: str
    annotations: Annotated[list[Any], Meta(max_length=0)] = []
    logprobs: list[ScoredToken] = []
    parsed: Any = None
    prompt_cache_breakpoint: dict[str, Any] | None = None
    """As in chat: all up to here is cached anyway."""


class RefusalPart(Struct):
    """A part of what the assistant said: that it would not."""

    type: Literal["refusal"]
    refusal: str


def messages_of(items: Sequence[Item]) -> list[Message]:
    """The messages that a row of items means. Raises: BadRequest, naming the place."""
    turns = _Turns()
    for index, item in enumerate(items):
        turns.add(item, f"input[{index}]")
    return turns.finish()


def full_name(namespace: str, name: str) -> str:
    """What the model calls a function of a namespace."""
    return f"{namespace}.{name}"


class _Turns:
    """Messages as items come; thoughts wait for what they led to."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._thoughts: list[str] = []

    def add(self, item: Item, where: str) -> None:
        """Raises: BadRequest."""
        match item.get("type", "message"):
            case "message":
                said = parse_members(item, MessageItem, where)
                content = _content(said.content, f"{where}.content", refuses=said.role == "assistant")
                self._say(said.role, content)
            case "function_call":
                self._call(parse_members(item, CallItem, where))
            case "function_call_output":
                result = parse_members(item, CallOutputItem, where)
                self._say("tool", _content(result.output, f"{where}.output"), tool_call_id=result.call_id)
            case "reasoning":
                if thought := parse_members(item, ReasoningItem, where).text:
                    self._thoughts.append(thought)
            case other:
                message = f"{where}: items of type {str(other)[:32]} are not supported"
                raise BadRequest("unsupported_content", message, parameter=where)

    def finish(self) -> list[Message]:
        """All of them."""
        self._end_thoughts()
        return self._messages

    def _say(self, role: str, content: str, **members: Any) -> None:
        if role == "assistant":
            members |= self._take_thoughts()
        else:
            self._end_thoughts()
        self._messages.append({"role": role, "content": content, **members})

    def _call(self, item: CallItem) -> None:
        """Calls belong to what was said before them, unless the model has thought since."""
        name = item.name if item.namespace is None else full_name(item.namespace, item.name)
        call = {"id": item.call_id, "type": "function", "function": {"name": name, "arguments": item.arguments}}
        if self._thoughts or not self._messages or self._messages[-1]["role"] != "assistant":
            self._say("assistant", "")
        self._messages[-1].setdefault("tool_calls", []).append(call)

    def _end_thoughts(self) -> None:
        """The model was cut while it thought, and said nothing."""
        if self._thoughts:
            self._say("assistant", "")

    def _take_thoughts(self) -> Message:
        thoughts, self._thoughts = self._thoughts, []
        return {"reasoning_content": "\n".join(thoughts)} if thoughts else {}


def _content(content: str | list[Any], where: str, *, refuses: bool = False) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}[{index}]", refuses=refuses) for index, part in enumerate(content))


def _part(part: Any, where: str, *, refuses: bool) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "refusal" and refuses:
        return parse_members(part, RefusalPart, where).refusal
    if kind not in _TEXT_PARTS:
        message = f"{where}: only parts of text are supported, got {str(kind)[:32]}"
        raise BadRequest("unsupported_content", message, parameter=where)
    return parse_members(part, TextPart, where).text
