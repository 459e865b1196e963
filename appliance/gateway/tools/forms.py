"""Which form a model's calls and reasoning have: as configured, else as its chat template tells by the marks it writes itself."""

import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from appliance.gateway.tools import deepseek, hermes, llama3_json, mistral, reasoning
from appliance.gateway.tools.deepseek import DeepSeekParser
from appliance.gateway.tools.events import CallParser, PlainText
from appliance.gateway.tools.form_names import CallForm, ReasoningForm
from appliance.gateway.tools.hermes import HermesParser
from appliance.gateway.tools.llama3_json import Llama3JsonParser
from appliance.gateway.tools.mistral import MistralParser
from appliance.gateway.tools.pythonic import PythonicParser

_PARSERS: dict[str, Callable[[], CallParser]] = {
    "hermes": HermesParser,
    "qwen": HermesParser,
    "llama3_json": Llama3JsonParser,
    "mistral": MistralParser,
    "pythonic": PythonicParser,
    "deepseek": DeepSeekParser,
    "none": PlainText,
}
_TELLTALES: tuple[tuple[str, CallForm], ...] = (
    (deepseek.CALLS_BEGIN, "deepseek"),
    (mistral.MARK, "mistral"),
    (hermes.BEGIN, "hermes"),
    (llama3_json.TAG, "llama3_json"),
    ('"parameters": ', "llama3_json"),
)
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Forms:
    """The forms of one model."""

    calls: CallForm = "none"
    reasoning: ReasoningForm = "none"
    variant: Literal["", "fenced", "args"] = ""
    """Of the form of calls: DeepSeek's with a fenced block, Mistral's with `[ARGS]`."""

    def new_call_parser(self) -> CallParser:
        """A parser for one choice."""
        return _PARSERS[self.calls]()

    def new_call_id(self) -> str:
        """An id for a call. Mistral's templates take nine alphanumeric characters only."""
        if self.calls == "mistral":
            return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
        return "call_" + secrets.token_hex(12)


def _told_calls(sources: list[str]) -> CallForm:
    for mark, form in _TELLTALES:
        if any("tools" in source and mark in source for source in sources):
            return form
    return "none"


def _told_variant(calls: CallForm, sources: list[str]) -> Literal["", "fenced", "args"]:
    if calls == "deepseek" and any("```json" in source for source in sources):
        return "fenced"
    return "args" if calls == "mistral" and any(mistral.ARGS in source for source in sources) else ""


def find_forms(
    templates: Iterable[str], calls: CallForm | None = None, reasoning_form: ReasoningForm | None = None
) -> Forms:
    """The forms that are configured (None: not), else those that the templates' own marks tell."""
    sources = list(templates)
    if calls is None:
        calls = _told_calls(sources)
    if reasoning_form is None:
        thinks = any(reasoning.END in source for source in sources)
        switches = any("enable_thinking" in source for source in sources)
        reasoning_form = ("qwen3" if switches else "deepseek-r1") if thinks else "none"
    return Forms(calls, reasoning_form, _told_variant(calls, sources))
