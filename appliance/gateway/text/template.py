"""Messages to token ids: the model's chat template, with text of users kept apart from its control tokens.

An answer that goes on with the last message (`continues`) begins where that message's text ends in the rendered prompt, which a
second sentinel at its end tells.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes

from appliance.gateway.text.errors import ModelFolderRefused, TextRefused
from appliance.gateway.text.model_folder import ChatTemplates, OnRead, load_chat_templates
from appliance.gateway.text.sandbox import BoundedEnvironment, render_bounded
from appliance.gateway.text.special_tokens import choose_sentinels
from appliance.gateway.text.tokenizer import Tokenizer

Message = dict[str, Any]
_TYPES = ("array", "boolean", "function", "integer", "null", "number", "object", "string")
"""Of JSON Schema, and of tools."""


class ChatTemplate:
    """A model's chat template, ready to render.

    Attributes:
        sources: the templates' own texts.
        variables: the names that they look up.
    """

    def __init__(self, templates: ChatTemplates, tokenizer: Tokenizer, *, max_chars: int, timeout_s: float) -> None:
        self._tokenizer = tokenizer
        self._max_chars = max_chars
        self._timeout_s = timeout_s
        self._variables = {"bos_token": templates.bos_token, "eos_token": templates.eos_token}
        environment = BoundedEnvironment(max_chars)
        try:
            self._by_name = {name: environment.from_string(source) for name, source in templates.sources.items()}
        except jinja2.TemplateError as error:
            raise ModelFolderRefused(f"chat template: {error}") from error
        self.sources = tuple(templates.sources.values())
        parsed = [environment.parse(source) for source in self.sources]
        self.variables = frozenset[str]().union(*map(jinja2.meta.find_undeclared_variables, parsed))
        self._asks_for_none = any(map(_asks_for_none, parsed))

    @property
    def takes_tools(self) -> bool:
        """The template looks at tools, so that their descriptions reach the model."""
        return "tools" in self.variables

    @property
    def exists(self) -> bool:
        """Some models have none: they complete text only."""
        return bool(self._by_name)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        continues: bool = False,
        variables: dict[str, Any] | None = None,
        context_length: int | None = None,
    ) -> list[int]:
        """Token ids of a conversation, up to where the assistant's answer begins.

        Args:
            continues: the answer goes on with the last message.
            variables: what else the template is given; names of ours go before.
            context_length: a prompt, tools and all, that cannot fit into so many tokens is refused before it is tokenized.
        Raises: TextRefused for messages that the template does not take.
        """
        if not self._by_name:
            raise TextRefused(
                "no_chat_template", "this model has no chat template: use /v1/completions", parameter="model"
            )
        sentinel, end = choose_sentinels(_texts([messages, tools, variables]))
        special = self._tokenizer.special
        name = "tool_use" if tools and "tool_use" in self._by_name else "default"
        template = self._by_name.get(name) or next(iter(self._by_name.values()))
        if self._asks_for_none:
            messages = [_without_empty_content(message) for message in messages]
        broken = [_broken_message(message, special.break_all, special.break_control, sentinel) for message in messages]
        if continues:
            broken[-1]["content"] += end
        rendered = render_bounded(
            template,
            {
                **_broken(variables or {}, special.break_all, sentinel),
                **self._variables,
                "messages": broken,
                "tools": _broken(tools, special.break_all, sentinel) if tools else None,
                "add_generation_prompt": add_generation_prompt,
            },
            max_chars=self._max_chars,
            timeout_s=self._timeout_s,
        )
        if continues:
            rendered = _up_to(rendered, end)
        if context_length is not None:
            self._tokenizer.verify_may_fit(rendered, context_length, "messages")
        return self._tokenizer.encode_segments(special.split(rendered, sentinel))


def load_chat_template(
    folder: Path, tokenizer: Tokenizer, *, max_chars: int, timeout_s: float, on_read: OnRead | None = None
) -> ChatTemplate:
    """Load and compile a model folder's templates.

    Raises: ModelFolderRefused.
    """
    return ChatTemplate(load_chat_templates(folder, on_read), tokenizer, max_chars=max_chars, timeout_s=timeout_s)


def _asks_for_none(template: jinja2.nodes.Template) -> bool:
    """Does it test whether some content is none? DeepSeek R1's shows the calls of such messages only."""
    for test in template.find_all(jinja2.nodes.Test):
        asked = test.node
        name = asked.attr if isinstance(asked, jinja2.nodes.Getattr) else None
        if isinstance(asked, jinja2.nodes.Getitem) and isinstance(asked.arg, jinja2.nodes.Const):
            name = asked.arg.value
        if test.name == "none" and name == "content":
            return True
    return False


def _without_empty_content(message: Message) -> Message:
    """Beside calls clients write an empty text or null, and mean the same."""
    return message if message["content"] or not message.get("tool_calls") else message | {"content": None}


def _up_to(rendered: str, end: str) -> str:
    text, found, _ = rendered.rpartition(end)
    if not found:
        message = "continue_final_message: the model's chat template does not show the last message"
        raise TextRefused("template_refused", message, parameter="continue_final_message")
    return text


Break = Callable[[str, str], str]


def _broken_message(message: Message, break_all: Break, break_control: Break, sentinel: str) -> Message:
    """The role is ours (checked against a list), everything else is the client's."""
    breaks = break_control if message["role"] == "assistant" else break_all
    return {key: value if key == "role" else _broken(value, breaks, sentinel) for key, value in message.items()}


def _broken(value: Any, breaks: Break, sentinel: str) -> Any:
    if isinstance(value, str):
        return breaks(value, sentinel)
    if isinstance(value, dict):
        return {
            _broken_key(key, breaks, sentinel): _broken_member(key, item, breaks, sentinel)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_broken(item, breaks, sentinel) for item in value]
    return value


def _broken_member(key: str, value: Any, breaks: Break, sentinel: str) -> Any:
    """What templates compare in schemas stays a word as well: types, and the names of properties that are required."""
    if key == "type" and isinstance(value, str) and value in _TYPES:
        return value
    if key == "required" and isinstance(value, list):
        return [_broken_key(name, breaks, sentinel) if isinstance(name, str) else name for name in value]
    return _broken(value, breaks, sentinel)


def _broken_key(key: str, breaks: Break, sentinel: str) -> str:
    """Keys that are words stay: templates look fields up by them, and no control token is a mere word."""
    return key if key.isidentifier() else breaks(key, sentinel)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
