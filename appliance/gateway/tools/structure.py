"""Forms as structures: what a model must write where calls are required, one tool is named, or a schema is strict.

A structure is xgrammar's structural tag (a JSON document); it is built here as plain values and compiled elsewhere. Const strings
stand for the form's marks, schemas for arguments, and whatever else a model may write before or around them is `any_text`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.gateway.tools import deepseek, hermes, llama3_json, mistral, reasoning
from appliance.gateway.tools.forms import Forms

Format = dict[str, Any]

MAX_WHITESPACE = 16
"""Between two tokens of JSON: enough for any indentation, and no model can go on with it for ever."""
ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True)
class CallableTool:
    """A tool that may be called, with the schema that its arguments follow."""

    name: str
    schema: dict[str, Any]


def json_format(schema: Any) -> Format:
    """JSON that follows a schema."""
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": MAX_WHITESPACE}


def required_calls(forms: Forms, tools: Sequence[CallableTool], *, parallel: bool) -> Format | None:
    """Calls and nothing else: one, or several where `parallel`. None where the form has no such structure."""
    tags = [tag for tool in tools for tag in _tags(forms, tool)]
    if not tags:
        return None
    before, separator, after = _FRAMES.get((forms.calls, forms.variant), ("", "", ""))
    calls: Format = {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": not parallel,
    }
    return sequence(before, calls, after)


def optional_calls(forms: Forms, tools: Sequence[CallableTool], *, parallel: bool) -> Format | None:
    """Text, in which calls are calls of these tools. None where the form has no such structure."""
    calls = required_calls(forms, tools, parallel=parallel)
    trigger = _TRIGGERS.get(forms.calls)
    if calls is None:
        return None
    if trigger is None:
        # The whole answer is calls, or it neither begins as one nor has their mark.
        text = sequence({"type": "regex", "pattern": r"[^\s{<\[]"}, {"type": "any_text", "excludes": [llama3_json.TAG]})
        return {"type": "or", "elements": [calls, text]}
    tags = [tag for tool in tools for tag in _tags(forms, tool)]
    if trigger == hermes.BEGIN:
        return {"type": "triggered_tags", "triggers": [trigger], "tags": tags, "stop_after_first": not parallel}
    called = sequence({"type": "any_text", "excludes": [trigger]}, calls)
    return {"type": "or", "elements": [called, {"type": "any_text", "excludes": [trigger]}]}


def after_reasoning(forms: Forms, then: Format, *, is_open: bool) -> Format:
    """What follows the model's reasoning, if it reasons; `is_open`: the answer begins inside."""
    if forms.reasoning == "none":
        return then
    thought: Format = {"type": "any_text", "excludes": [reasoning.END]}
    space: Format = {"type": "regex", "pattern": r"\s{0,4}"}
    if is_open:
        return sequence(thought, reasoning.END, space, then)
    thinks = {"type": "optional", "content": sequence(reasoning.BEGIN, thought, reasoning.END, space)}
    return sequence(thinks, then)


def sequence(*elements: Format | str) -> Format:
    """One after the other; text stands for itself, empty text for nothing."""
    formats = [_const(element) if isinstance(element, str) else element for element in elements if element]
    return formats[0] if len(formats) == 1 else {"type": "sequence", "elements": formats}


def _tags(forms: Forms, tool: CallableTool) -> list[Format]:
    """A call of one tool: what begins it, its arguments, what ends it."""
    name, arguments = tool.name, json_format(tool.schema)
    match forms.calls, forms.variant:
        case (("hermes" | "qwen"), _):
            head = f'{{"name": "{name}", "arguments": '
            return [
                _tag(hermes.BEGIN + head, arguments, "}" + hermes.END),
                _tag(hermes.BEGIN + "\n" + head, arguments, "}\n" + hermes.END),
            ]
        case "llama3_json", _:
            return [_tag(f'{{"name": "{name}", "parameters": ', arguments, "}")]
        case "mistral", "args":
            return [_tag(f"{mistral.MARK}{name}{mistral.ARGS}", arguments, "")]
        case "mistral", _:
            return [_tag(f'{{"name": "{name}", "arguments": ', arguments, "}")]
        case "deepseek", "fenced":
            head = f"{deepseek.CALL_BEGIN}function{deepseek.SEPARATOR}{name}{deepseek.FENCE}"
            return [_tag(head, arguments, f"\n```{deepseek.CALL_END}")]
        case "deepseek", _:
            return [_tag(f"{deepseek.CALL_BEGIN}{name}{deepseek.SEPARATOR}", arguments, deepseek.CALL_END)]
        case _:
            return []


_FRAMES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("hermes", ""): ("", "\n", ""),
    ("qwen", ""): ("", "\n", ""),
    ("llama3_json", ""): ("", "; ", ""),
    ("mistral", ""): (mistral.MARK + "[", ", ", "]"),
    ("deepseek", "fenced"): (deepseek.CALLS_BEGIN, "\n", deepseek.CALLS_END),
    ("deepseek", ""): (deepseek.CALLS_BEGIN, "", deepseek.CALLS_END),
}
"""What stands before all calls, between them, and after."""
_TRIGGERS = {
    "hermes": hermes.BEGIN,
    "qwen": hermes.BEGIN,
    "mistral": mistral.MARK,
    "deepseek": deepseek.CALLS_BEGIN,
}


def _tag(begin: str, content: Format, end: str) -> Format:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def _const(value: str) -> Format:
    return {"type": "const_string", "value": value}
