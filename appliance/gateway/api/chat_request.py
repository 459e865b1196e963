"""`POST /v1/chat/completions`: what is asked, checked by itself and against the model."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from appliance.gateway.api.chat_messages import ChatMessage, template_messages
from appliance.gateway.api.fields import MaxTokens, OpenAIFields, TopLogprobs
from appliance.gateway.api.parameters import parse_parameters, parse_stops, verify_always
from appliance.gateway.api.structured import (
    Structure,
    hold_to_tools,
    only_one,
    parse_patterns,
    parse_response_format,
    verify_sampling,
)
from appliance.gateway.api.tool_schemas import Tool, callable_tools, verify_tools
from appliance.gateway.errors import BadRequest
from appliance.gateway.models import ServedModel
from appliance.gateway.settings import GatewaySettings

TemplateArguments = Annotated[
    dict[Annotated[str, Meta(max_length=64)], bool | int | float | Annotated[str, Meta(max_length=1024)] | None],
    Meta(max_length=32),
]
_OWN_VARIABLES = ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")


class ChatFields(OpenAIFields, kw_only=True):
    """The body's members."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool = False
    top_logprobs: TopLogprobs = 0
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: TemplateArguments = field(default_factory=dict)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    verbosity: Literal["medium"] = "medium"
    modalities: list[str] = field(default_factory=lambda: ["text"])
    separate_reasoning: bool = True
    """SGLang's, with `stream_reasoning`, and vLLM's `include_reasoning`: what is always done, so only true is taken."""
    stream_reasoning: bool = True
    include_reasoning: bool = True


@dataclass(frozen=True)
class ChatRequest:
    """A chat request that is sound in itself."""

    fields: ChatFields
    messages: list[dict[str, Any]]
    tools: list[Tool]
    """Those that the model is told of and may call."""
    must_call: bool
    structure: Structure | None
    """What an answer without calls is held to."""
    stops: tuple[str, ...]

    @property
    def described_tools(self) -> list[dict[str, Any]]:
        """The tools as the template shows them."""
        return [tool.described() for tool in self.tools]

    def held_to(self, model: ServedModel) -> Structure | None:
        """What the answer is held to, calls included. Raises: BadRequest."""
        is_strict = any(tool.function.strict for tool in self.tools)
        parallel = self.fields.parallel_tool_calls
        return hold_to_tools(
            model,
            self.structure,
            callable_tools(self.tools),
            must_call=self.must_call,
            is_strict=is_strict,
            parallel=parallel and _function_name(self.fields.tool_choice) is None,
            parameter="tool_choice" if self.must_call else "tools",
        )

    @property
    def max_tokens(self) -> tuple[int | None, str]:
        """The limit that was asked for, and by which name."""
        if self.fields.max_completion_tokens is not None:
            return self.fields.max_completion_tokens, "max_completion_tokens"
        return self.fields.max_tokens, "max_tokens"

    @property
    def add_generation_prompt(self) -> bool:
        """The model is told to begin a turn: by default, unless it goes on with the last message."""
        asked = self.fields.add_generation_prompt
        return not self.fields.continue_final_message if asked is None else asked

    @property
    def logprobs(self) -> int:
        """Of `SamplingParams`: -1 for none."""
        return self.fields.top_logprobs if self.fields.logprobs else -1


def parse_chat_request(body: dict[str, Any], settings: GatewaySettings) -> ChatRequest:
    """Check a body.

    Raises: BadRequest.
    """
    fields = parse_parameters(body, ChatFields)
    verify_openai_fields(fields)
    if len(fields.messages) > settings.max_messages:
        message = f"messages: {len(fields.messages)} messages, at most {settings.max_messages} are taken"
        raise BadRequest("too_many_messages", message, parameter="messages")
    if fields.max_tokens is not None and fields.max_completion_tokens is not None:
        message = "max_tokens is the older name of max_completion_tokens: give one of them"
        raise BadRequest("invalid_parameter", message, parameter="max_tokens")
    if fields.top_logprobs and not fields.logprobs:
        raise BadRequest("invalid_parameter", "top_logprobs needs logprobs: true", parameter="top_logprobs")
    if fields.modalities != ["text"]:
        raise BadRequest("unsupported_parameter", "modalities: only text is supported", parameter="modalities")
    for name in ("separate_reasoning", "stream_reasoning", "include_reasoning"):
        if not getattr(fields, name):
            message = f"{name}: reasoning always comes, and apart, as reasoning_content"
            raise BadRequest("unsupported_parameter", message, parameter=name)
    _verify_continuation(fields)
    _verify_template_arguments(fields.chat_template_kwargs)
    verify_tools(fields.tools, settings.max_tools)
    tools, must_call = _offered_tools(fields)
    return ChatRequest(
        fields,
        template_messages(fields.messages),
        tools,
        must_call,
        parse_structure(fields),
        parse_stops(fields.stop),
    )


def _verify_continuation(fields: ChatFields) -> None:
    if not fields.continue_final_message:
        return
    place = "continue_final_message"
    if fields.add_generation_prompt:
        message = f"{place}: with add_generation_prompt a new turn begins: ask for one of them"
        raise BadRequest("invalid_parameter", message, parameter=place)
    last = fields.messages[-1]
    if last.role != "assistant" or last.tool_calls:
        message = f"{place}: the last message must be one of the assistant, without tool calls"
        raise BadRequest("invalid_parameter", message, parameter=place)


def _verify_template_arguments(arguments: dict[str, Any]) -> None:
    for name in arguments:
        if name in _OWN_VARIABLES:
            place = f"chat_template_kwargs.{name}"
            raise BadRequest("invalid_parameter", f"{place}: the gateway sets it", parameter=place)


def template_variables(request: ChatRequest, known: frozenset[str], *, reasons: bool) -> dict[str, Any]:
    """The variables for a template that looks up the `known` names. `reasoning_effort: none` also turns thinking off, and says
    nothing to a model that does not reason.

    Raises: BadRequest for a name that the template does not look up, as it would change nothing.
    """
    variables: dict[str, Any] = dict(request.fields.chat_template_kwargs)
    effort, switches = request.fields.reasoning_effort, "enable_thinking" in known
    if effort is not None:
        variables.setdefault("reasoning_effort", effort)
    if effort == "none":
        if switches:
            variables.setdefault("enable_thinking", False)
        if "reasoning_effort" not in known and (switches or not reasons):
            del variables["reasoning_effort"]
    for name in variables:
        if name not in known:
            place = name if name == "reasoning_effort" else f"chat_template_kwargs.{name}"
            message = f"{place}: the model's chat template does not look it up"
            raise BadRequest("unsupported_parameter", message, parameter=place)
    return variables


def _offered_tools(fields: ChatFields) -> tuple[list[Tool], bool]:
    """The tools that the model is told of, and whether it must call one."""
    choice = fields.tool_choice
    if choice == "none":
        return [], False
    if choice == "auto":
        return fields.tools, False
    if not fields.tools:
        raise BadRequest("invalid_parameter", "tool_choice: there are no tools to choose from", parameter="tool_choice")
    if choice == "required":
        return fields.tools, True
    names, must_call = _named(choice)
    for name in names.difference(tool.function.name for tool in fields.tools):
        message = f"tool_choice: none of the tools is named {name[:128]!r}"
        raise BadRequest("invalid_parameter", message, parameter="tool_choice")
    return [tool for tool in fields.tools if tool.function.name in names], must_call


def _named(choice: Any) -> tuple[set[str], bool]:
    """The functions that are named, and whether one must be called."""
    allowed: list[Any] = [choice]
    must_call = True
    match choice:
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": ("auto" | "required") as mode, "tools": [_, *_] as tools, **other},
            **others,
        } if not other and not others:
            allowed, must_call = tools, mode == "required"
    names = {name for one in allowed if (name := _function_name(one)) is not None}
    if len(names) == len(allowed):
        return names, must_call
    message = (
        'tool_choice: expected "auto", "none", "required", {"type": "function", "function": {"name": …}} or '
        '{"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": [different functions]}}, '
        f"got {str(choice)[:64]}"
    )
    raise BadRequest("invalid_parameter", message, parameter="tool_choice")


def _function_name(choice: Any) -> str | None:
    """None of what does not name one function."""
    match choice:
        case {"type": "function", "function": {"name": str(name), **other}, **others} if not other and not others:
            return name
    return None


def parse_structure(fields: OpenAIFields) -> Structure | None:
    """What chat and completions hold an answer to alike. Raises: BadRequest."""
    structure = only_one(parse_response_format(fields.response_format), parse_patterns(fields.regex, fields.ebnf))
    if structure is not None:
        verify_sampling(fields, structure)
    return structure


def verify_openai_fields(fields: OpenAIFields) -> None:
    """What chat and completions refuse alike. Raises: BadRequest."""
    verify_always(fields)
    if fields.store:
        raise BadRequest("unsupported_parameter", "store: answers are not stored", parameter="store")
    if fields.service_tier not in (None, "auto", "default"):
        raise BadRequest("unsupported_parameter", "service_tier: there is only the default", parameter="service_tier")
    if fields.metadata:
        raise BadRequest(
            "unsupported_parameter", "metadata: answers are not stored, so nothing could hold it", parameter="metadata"
        )
    if fields.stream_options is not None and not fields.stream:
        raise BadRequest("invalid_parameter", "stream_options needs stream: true", parameter="stream_options")
