"""A Jinja environment for chat templates, bounded in time and size.

The template comes with the model and is covered by its signature; the messages come from anybody. So the sandbox keeps a
template from reaching Python, and the bounds keep messages from making an honest template slow: every turn of a loop and
every call of a macro looks at the clock, repetition by `*` is bounded, and so is the length of the output.
"""

import json
import time
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.gateway.text.errors import TextRefused

_TICK = "casemate_tick"


class _Generation(Extension):
    """`{% generation %}`, with which training marks assistant turns: its body, unchanged."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Sandbox whose loops and macros call `casemate_tick`, which the caller provides per render."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self, max_output_chars: int) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._max_output_chars = max_output_chars
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bound what an operator can blow up: repetition, powers, and widths in `%` formats."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateRuntimeError(f"operator {operator} is not available")
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                if len(sequence) * times > self._max_output_chars:
                    raise jinja2.TemplateRuntimeError("a repetition by * is too long")
                break
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            loop.body.insert(0, _tick(loop.lineno))
        for macro in template.find_all(nodes.Macro):
            macro.body.insert(0, _tick(macro.lineno))
        return template


def _tick(lineno: int) -> nodes.Node:
    return nodes.ExprStmt(nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)).set_lineno(lineno)


def render_bounded(template: jinja2.Template, variables: dict[str, Any], *, max_chars: int, timeout_s: float) -> str:
    """Render, or refuse when it takes too long or becomes too long.

    Raises: TextRefused for both, for `raise_exception`, and for messages that the template cannot take.
    """
    deadline = time.monotonic() + timeout_s

    def tick() -> None:
        if time.monotonic() > deadline:
            raise TextRefused(
                "template_timeout", f"the chat template took longer than {timeout_s} s for these messages"
            )

    pieces: list[str] = []
    num_chars = 0
    try:
        for piece in template.generate({**variables, _TICK: tick}):
            num_chars += len(piece)
            if num_chars > max_chars:
                raise TextRefused(
                    "template_output_too_long", f"the chat template gave more than {max_chars} characters"
                )
            tick()
            pieces.append(piece)
    except TextRefused:
        raise
    except jinja2.TemplateError as error:
        raise TextRefused("template_refused", f"the model's chat template refuses the messages: {error}") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        message = f"the model's chat template cannot take the messages: {type(error).__name__}: {error}"
        raise TextRefused("template_refused", message) from error
    return "".join(pieces)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False, **other: Any
) -> str:
    """JSON without HTML escapes, as templates are written for."""
    if other:
        raise jinja2.TemplateRuntimeError(f"tojson has no option {', '.join(other)}")
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)
