"""Tool calls: some tools in the prompt, a request, the right call with the right arguments, and the report of its result.

Calls are written in the Hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from appliance.demo.corpus import words
from appliance.demo.corpus.example import TOOL, Example, Message
from appliance.demo.corpus.phrasing import babble, choose, thin_out
from appliance.demo.corpus.product import product_example
from appliance.demo.corpus.smalltalk import smalltalk_example
from appliance.demo.corpus.toolbox import TOOLS, Parameter, Tool

_VERBS = [
    "open",
    "close",
    "start",
    "stop",
    "delete",
    "create",
    "show",
    "check",
    "move",
    "copy",
    "lock",
    "unlock",
    "archive",
    "restart",
    "print",
    "scan",
    "rate",
    "cancel",
]
_NOUNS = [
    "ticket",
    "door",
    "valve",
    "job",
    "account",
    "report",
    "folder",
    "camera",
    "lamp",
    "server",
    "project",
    "task",
    "invoice",
    "session",
    "robot",
    "queue",
]


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """The assistant's text for one call."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def _made_up_tool(rng: Random) -> Tool:
    """A tool that exists in one example only, so that definitions are read and not remembered."""
    verb, noun = rng.choice(_VERBS), rng.choice(_NOUNS)
    key = rng.choice((f"{noun}_id", "id", "name", noun, "number", "key"))
    if rng.random() < 0.4:
        parameter = Parameter("integer", f"Number of the {noun}", lambda r: r.randint(1, 9999))
    else:
        parameter = Parameter("string", f"Name of the {noun}", lambda r: r.choice((words.some_code, words.made_up))(r))
    slot = "{" + key + "}"
    return Tool(
        rng.choice((f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}")),
        f"{verb.capitalize()} a {noun}",
        {key: parameter},
        (
            f"{verb.capitalize()} (the |){noun} {slot}(, please|).",
            f"(Please |Can you |I want to |Could you ){verb} (the |){noun} {slot}",
        ),
        (),
        {"status": lambda r: r.choice(("ok", "done", "failed"))},
        f"The status of {noun} {slot} is {{status}}.",
    )


def _offer(tool: Tool, rng: Random) -> list[Tool]:
    """The tool among up to three others, in random order."""
    others = [other for other in TOOLS if other.name != tool.name]
    offered = [tool, *rng.sample(others, rng.choice((0, 0, 1, 1, 1, 2, 2, 3)))]
    rng.shuffle(offered)
    return offered


def _call(tool: Tool, template: str, rng: Random, *, noisy: bool = False) -> tuple[str, dict[str, Any]]:
    arguments = {name: parameter.draw(rng) for name, parameter in tool.parameters.items()}
    text = choose(template, rng).replace("\\", "")
    if noisy and rng.random() < 0.4:
        text = rng.choice((thin_out, babble))(text, rng)
    return text.format(**arguments), arguments


def tool_example(rng: Random) -> Example:
    """A training example: a call, often with its result told; sometimes a question that needs no tool."""
    tool = _made_up_tool(rng) if rng.random() < 0.2 else rng.choice(TOOLS)
    offered = tuple(offer.definition() for offer in _offer(tool, rng))
    system = (Message("system", "You are a helpful assistant."),) if rng.random() < 0.2 else ()
    if rng.random() < 0.06:
        plain = rng.choice((product_example, smalltalk_example))(rng)
        return Example(TOOL, "tool/none", system + plain.messages, offered)
    question, arguments = _call(tool, rng.choice(tool.asks), rng, noisy=True)
    if rng.random() < 0.3:
        question = rng.choice(("Please ", "Hi, ", "Hello! ", "")) + question
        question = question.rstrip("?.") if rng.random() < 0.4 else question
    call = call_text(tool.name, arguments)
    messages = (*system, Message("user", question), Message("assistant", call))
    if rng.random() < 0.35:
        result = {name: draw(rng) for name, draw in tool.result.items()}
        told = tool.report.format(**arguments, **result)
        messages += (Message("tool", json.dumps(result)), Message("assistant", told))
    return Example(TOOL, f"tool/{tool.name}", messages, offered)


def held_out_calls(rng: Random) -> Iterator[Example]:
    """Eight cases of each held-out request, with other tools around the right one."""
    for tool in TOOLS:
        for template in tool.held_out:
            for _ in range(8):
                question, arguments = _call(tool, template, rng)
                expected = {"name": tool.name, "arguments": arguments}
                messages = (Message("user", question), Message("assistant", call_text(tool.name, arguments)))
                offered = tuple(offer.definition() for offer in _offer(tool, rng))
                yield Example(TOOL, f"held-out/{tool.name}", messages, offered, expected=expected)
