"""A Jinja environment for chat templates, bounded in time and size.

The template comes with the model and is covered by its signature; the messages come from anybody. So the sandbox keeps a
template from reaching Python, and the bounds keep it from taking the time or the memory of the process, which messages could make
an honest one do: every turn of a loop, every element that `map` or `select` passes on and every call of a macro looks at the
clock; no operator, method, filter or block makes a text or a list longer than the output may be, and what takes a width of its
own (padding, formats but for `{}`) is not there. What is compared or hashed is counted first: lists that hold one another twice,
thirty deep, are few objects and a billion comparisons.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import count
from string import Formatter
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.gateway.text.errors import TextRefused

_TICK = "casemate_tick"
_MAX_INDENT = 64
_WITHOUT_FILTERS = (
    "batch", "center", "filesizeformat", "format", "pprint", "slice", "urlize", "wordwrap", "xmlattr",
)  # fmt: skip
"""Of no use to a chat template, and each makes much of little, or walks all that there is."""
_FILTERS_THAT_COMPARE = ("dictsort", "groupby", "max", "min", "sort", "unique")
_FILTERS_THAT_LOOP = ("map", "reject", "rejectattr", "select", "selectattr")
_TESTS_THAT_COMPARE = (
    "eq", "equalto", "==", "ne", "!=", "gt", "greaterthan", ">", "ge", ">=", "lt", "lessthan", "<", "le", "<=", "in",
)  # fmt: skip
_CONTAINERS: tuple[type, ...] = (list, tuple, dict, type({}.items()), type({}.values()))
_MAX_COMPARED = 100_000
_WITHOUT_METHODS = frozenset(("center", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"))
_JINJAS_OWN = ("_block_vars", "_loop_vars")
"""What jinja2 hands to every call beside its arguments, for functions that look variables up."""
_SEPARATORS = [(comma, colon) for comma in (",", ", ") for colon in (":", ": ")]
_ESCAPED = re.compile(r"\\\\|\\u(fd[de][0-9a-f])")


class _Generation(Extension):
    """`{% generation %}`, with which training marks assistant turns: its body, unchanged."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class _BoundedCode(CodeGenerator):
    """`~` by a function of the environment's, which an operator is not in jinja2; what is compared, or is a key, by another."""

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        """Each left side is counted: two values are walked in step, so that one small enough bounds the walk."""
        self.write("(")
        for operand, left in zip(node.ops, (node.expr, *(operand.expr for operand in node.ops)), strict=False):
            self._visit_counted(left, frame)
            self.write(f" {operators[operand.op]} ")
        self.visit(node.ops[-1].expr, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        self.write("{")
        for pair in node.items:
            self._visit_counted(pair.key, frame)
            self.write(": ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")

    def _visit_counted(self, node: nodes.Node, frame: Frame) -> None:
        if isinstance(node, nodes.Const):
            self.visit(node, frame)
            return
        self.write("environment.counted(context, ")
        self.visit(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja2's name
        self.write("environment.concat(map(environment.text_of, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Sandbox whose loops and macros call `casemate_tick`, which the caller provides per render."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])
    code_generator_class = _BoundedCode

    def __init__(self, max_output_chars: int) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=self._shown
        )
        self._max_output_chars = max_output_chars
        for name in _WITHOUT_FILTERS:
            del self.filters[name]
        self.filters |= {
            "tojson": self._to_json,
            "string": self.text_of,
            "indent": self._indent,
            "replace": self._replace,
            "join": self._join,
            "sum": _sum_of_numbers,
        }
        self.filters |= {name: self._counting(cast(Any, self.filters[name])) for name in _FILTERS_THAT_COMPARE}
        self.filters |= {name: _looking_at_the_clock(cast(Any, self.filters[name])) for name in _FILTERS_THAT_LOOP}
        self.tests |= {name: self._counting(cast(Any, self.tests[name])) for name in _TESTS_THAT_COMPARE}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def concat(self, parts: Iterable[str]) -> str:
        """Pieces as one text: for `~`, and for blocks and macros whose text is kept."""
        pieces = list(parts)
        self._verify_length(sum(map(len, pieces)))
        return "".join(pieces)

    def counted(self, context: Any, value: Any) -> Any:
        """A value that is about to be compared or hashed, if that ends soon; it looks at the clock where it had to count."""
        if isinstance(value, _CONTAINERS):
            waiting: list[Any] = [value]
            num_seen = 0
            while waiting:
                one = waiting.pop()
                num_seen += 1
                if num_seen > _MAX_COMPARED:
                    raise jinja2.TemplateRuntimeError(f"a list of more than {_MAX_COMPARED} things is not compared")
                if isinstance(one, _CONTAINERS):
                    held: Any = one.items() if isinstance(one, dict) else one
                    waiting += held
            context.resolve(_TICK)()
        return value

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An element; a tuple in a tuple is hashed anew at each look."""
        if isinstance(argument, tuple):
            raise jinja2.TemplateRuntimeError("a tuple is no key")
        return super().getitem(obj, argument)

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test that compares, over values that were counted."""
        takes_environment = getattr(function, "jinja_pass_arg", None) is not None

        @jinja2.pass_context
        def counting(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            value = list(value) if isinstance(value, Iterator) else value
            self.counted(context, value)
            return function(self, value, *args, **kwargs) if takes_environment else function(value, *args, **kwargs)

        return counting

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Methods of texts: without those that pad or format, and none that makes one too long.

        What is given to anything but a macro is counted: `index`, `count`, `get` and `dict` compare or hash it.
        """
        named = {name: value for name, value in kwargs.items() if name not in _JINJAS_OWN}
        if not isinstance(function, jinja2.runtime.Macro):
            for value in (*args, *named.values()):
                self.counted(context, value)
        text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(text, str) and name in _WITHOUT_METHODS:
            raise jinja2.TemplateRuntimeError(f"method {name} of a text is not available")
        if isinstance(text, str) and name == "replace":
            return self._replace(text, *args, **named)
        if isinstance(text, str) and name == "join":
            return self._join(args[0], text)
        return super().call(context, function, *args, **kwargs)

    def text_of(self, value: Any) -> str:
        """`str`, but not of lists in lists that were doubled until their text fills the memory."""
        return str(self._shown(value))

    def _shown(self, value: Any) -> Any:
        """What is about to be shown. Of lists and objects the text: Python's escapes the sentinels in it, which stay themselves."""
        value = self._finalize(value)
        return _with_sentinels(str(value)) if isinstance(value, _CONTAINERS) else value

    def _finalize(self, value: Any) -> Any:
        """What is about to become text, if that is not too much."""
        waiting, num_seen = [value], 0
        while waiting:
            one = waiting.pop()
            num_seen += len(one) if isinstance(one, str) else 1
            self._verify_length(num_seen)
            if isinstance(one, dict):
                waiting += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple):
                waiting += one
        return value

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: "tuple[str, str] | None" = None,
        sort_keys: bool = False,
        **other: Any,
    ) -> str:
        """JSON without HTML escapes, as templates are written for."""
        if separators is not None and separators not in _SEPARATORS:
            raise jinja2.TemplateRuntimeError("tojson separates by a comma and a colon, with a space at most")
        if other:
            raise jinja2.TemplateRuntimeError(f"tojson has no option {', '.join(other)}")
        if indent is not None and indent > _MAX_INDENT:
            raise jinja2.TemplateRuntimeError(f"tojson indents by at most {_MAX_INDENT}")
        text = json.dumps(
            self._finalize(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return _with_sentinels(text) if ensure_ascii else text

    def wrap_str_format(self, value: Any) -> "Callable[..., str] | None":
        """jinja2 keeps a format from reaching Python; it would still pad to any width. Some templates put names together by it."""
        if super().wrap_str_format(value) is None:
            return None
        if value.__name__ != "format":
            raise jinja2.TemplateRuntimeError(f"method {value.__name__} of a text is not available")
        return partial(self._fill, value.__self__)

    def _fill(self, text: str, *args: Any, **kwargs: Any) -> str:
        """Texts and numbers in places that say nothing of how they are written."""
        pieces: list[str] = []
        places = count()
        for before, place, how, conversion in Formatter().parse(text):
            pieces.append(before)
            if place is None:
                continue
            value = kwargs[place] if place.isidentifier() else args[int(place or next(places))]
            if how or conversion or not isinstance(value, str | int | float):
                raise jinja2.TemplateRuntimeError("method format of a text fills in texts and numbers, as they are")
            pieces.append(str(value))
        self._verify_length(sum(map(len, pieces)))
        return "".join(pieces)

    def _verify_length(self, length: int) -> None:
        if length > self._max_output_chars:
            raise jinja2.TemplateRuntimeError(f"a text or list longer than {self._max_output_chars} is not made")

    def _replace(self, value: Any, old: str, new: str, count: "int | None" = None) -> str:
        text, old, new = str(value), str(old), str(new)
        self._verify_length(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _join(self, values: Iterable[Any], separator: Any = "", attribute: "str | int | None" = None) -> str:
        getter = jinja2.filters.make_attrgetter(self, attribute) if attribute is not None else _itself
        pieces, between = [self.text_of(getter(value)) for value in values], str(separator)
        self._verify_length(sum(map(len, pieces)) + len(pieces) * len(between))
        return between.join(pieces)

    def _indent(self, text: str, width: "int | str" = 4, first: bool = False, blank: bool = False) -> str:
        if isinstance(width, int) and width > _MAX_INDENT:
            raise jinja2.TemplateRuntimeError(f"indent indents by at most {_MAX_INDENT}")
        filler = width if isinstance(width, str) else " " * width
        self._verify_length(len(text) + (text.count("\n") + 1) * len(filler))
        return jinja2.filters.do_indent(text, filler, first, blank)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Bound what an operator can blow up: repetition, powers, and widths in `%` formats.

        An object after a text in a sum is a call's arguments: templates that add them (DeepSeek's) are written for JSON text.
        """
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateRuntimeError(f"operator {operator} is not available")
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                if operator == "*" and len(sequence) * times > self._max_output_chars:
                    raise jinja2.TemplateRuntimeError("a repetition by * is too long")
                break
        if operator == "+" and isinstance(left, str) and isinstance(right, dict):
            right = self._to_json(right)
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self._verify_length(len(left) + len(right))
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


def _looking_at_the_clock(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A filter that calls others for each element, as a loop does."""

    @jinja2.pass_context
    def looking(context: Any, values: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        tick = context.resolve(_TICK)
        for value in function(context, values, *args, **kwargs):
            tick()
            yield value

    return looking


@jinja2.pass_environment
def _sum_of_numbers(
    environment: jinja2.Environment, values: Iterable[Any], attribute: Any = None, start: float = 0
) -> Any:
    """`sum`, which over lists would copy all that came before at each of them."""
    if not isinstance(start, int | float):
        raise jinja2.TemplateRuntimeError("sum begins with a number")
    return jinja2.filters.do_sum(environment, values, attribute, start)


def _itself(value: Any) -> Any:
    return value


def _with_sentinels(text: str) -> str:
    """A text in which noncharacters were escaped, and backslashes doubled, with the former as they were."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[0], text)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)
