"""Tool calls: some tools in the prompt, a request, the right call with the right arguments, and the report of its result.

Calls are written in the Hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.example import TOOL, Example, Message
from appliance.demo.corpus.invented import call_invented, invent
from appliance.demo.corpus.phrasing import babble, choose, some_remark, thin_out
from appliance.demo.corpus.product import product_example
from appliance.demo.corpus.rewording import reword
from appliance.demo.corpus.smalltalk import smalltalk_example
from appliance.demo.corpus.toolbox import TOOLS, Draw, Tool


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """The assistant's text for one call."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


# Values of other looks for the tools' own parameters, so that a call copies what is there.
_OTHER_VALUES: dict[str, tuple[Draw, ...]] = {
    "city": (values.place,),
    "name": (values.person, words.made_up),
    "time": (values.time,),
    "order_id": (values.code,),
    "query": (values.thing, values.phrase, values.title, values.person, values.code),
    "subject": (values.thing, values.phrase, values.title),
    "task": (values.phrase,),
    "word": (values.thing, words.made_up),
    "room": (values.thing,),
}


def _offer(tool: Tool, others: list[Tool], rng: Random) -> list[Tool]:
    """The tool among up to three others, in random order."""
    fitting = [other for other in others if other.name != tool.name]
    offered = [tool, *rng.sample(fitting, rng.choice((0, 0, 1, 1, 1, 2, 2, 3)))]
    rng.shuffle(offered)
    return offered


def _call(tool: Tool, template: str, rng: Random, *, noisy: bool = False) -> tuple[str, dict[str, Any]]:
    arguments = {name: parameter.draw(rng) for name, parameter in tool.parameters.items()}
    text = choose(template, rng).replace("\\", "")
    if noisy:
        for name in [name for name in _OTHER_VALUES if name in arguments]:
            if rng.random() < 0.4:
                arguments[name] = rng.choice(_OTHER_VALUES[name])(rng)
        if rng.random() < 0.4:
            text = reword(text, rng, 0.35)
        if rng.random() < 0.4:
            text = rng.choice((thin_out, babble))(text, rng)
        if rng.random() < 0.1:
            text = f"{some_remark(rng)} {text}"
    return text.format(**arguments), arguments


def _known_call(rng: Random) -> tuple[Tool, str, dict[str, Any], list[Tool]]:
    tool = rng.choice(TOOLS)
    question, arguments = _call(tool, rng.choice(tool.asks), rng, noisy=True)
    others = [*TOOLS, *(invent(rng).tool for _ in range(4))] if rng.random() < 0.3 else list(TOOLS)
    return tool, question, arguments, _offer(tool, others, rng)


def _invented_call(rng: Random) -> tuple[Tool, str, dict[str, Any], list[Tool]]:
    invention = invent(rng)
    question, arguments = call_invented(invention, rng)
    others = {other.name: other for other in (*(invent(rng).tool for _ in range(3)), *rng.sample(TOOLS, 3))}
    return invention.tool, question, arguments, _offer(invention.tool, list(others.values()), rng)


def tool_example(rng: Random) -> Example:
    """A training example: a call, often with its result told; sometimes a question that needs no tool."""
    tool, question, arguments, offers = (_invented_call if rng.random() < 0.5 else _known_call)(rng)
    offered = tuple(offer.definition() for offer in offers)
    system = (Message("system", "You are a helpful assistant."),) if rng.random() < 0.2 else ()
    if rng.random() < 0.06:
        plain = rng.choice((product_example, smalltalk_example))(rng)
        return Example(TOOL, "tool/none", system + plain.messages, offered)
    if rng.random() < 0.3:
        question = (
            rng.choice(("Please ", "Hi, ", "Hello! ", "Good morning, ", "Okay, ", "One more thing: ", "")) + question
        )
        question = question.rstrip("?.") if rng.random() < 0.4 else question
    call = call_text(tool.name, arguments)
    messages = (*system, Message("user", question), Message("assistant", call))
    if rng.random() < 0.35:
        result = {name: draw(rng) for name, draw in tool.result.items()}
        told = tool.report.format(**{**arguments, **result})
        messages += (Message("tool", json.dumps(result)), Message("assistant", told))
    return Example(TOOL, f"tool/{tool.name}", messages, offered)


def call_of(name: str, tool: Tool, template: str, rng: Random) -> Example:
    """One request for a tool as it is written, with other tools around the right one."""
    question, arguments = _call(tool, template, rng)
    expected = {"name": tool.name, "arguments": arguments}
    messages = (Message("user", question), Message("assistant", call_text(tool.name, arguments)))
    offered = tuple(offer.definition() for offer in _offer(tool, list(TOOLS), rng))
    return Example(TOOL, name, messages, offered, expected=expected)


def held_out_calls(rng: Random) -> Iterator[Example]:
    """Eight cases of each held-out request."""
    for tool in TOOLS:
        for template in tool.held_out:
            for _ in range(8):
                yield call_of(f"held-out/{tool.name}", tool, template, rng)
