"""Tool calls: some tools in the prompt, a request, the right call with the right arguments, and the report of its result.

Calls are written in the Hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.asides import some_aside
from appliance.demo.corpus.example import TOOL, Example, Message
from appliance.demo.corpus.invented import call_invented, invent
from appliance.demo.corpus.phrasing import babble, choose, choose_with, some_remark, thin_out
from appliance.demo.corpus.product import product_example
from appliance.demo.corpus.requests import ALIASES, MORE_ASKS, MORE_TOOLS, rename
from appliance.demo.corpus.rewording import reword
from appliance.demo.corpus.smalltalk import smalltalk_example
from appliance.demo.corpus.toolbox import TOOLS, Draw, Tool


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """The assistant's text for one call."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def _saying(rng: Random) -> str:
    """Something to say: mostly a sentence without its full stop."""
    if rng.random() < 0.6:
        return some_aside(rng).rstrip(".")
    return choose(
        "(good (morning|evening|night|luck)|thank you( very much|)|how are you|I am (hungry|late|lost|here|at home)|see you (soon|later|tomorrow|on {day})|happy birthday|where is the {noun}|I (like|need|want|have) a {noun}|the {noun} is (ready|open|broken)|yes|no|water|please)",
        rng,
    ).format(day=rng.choice(words.DAYS), noun=rng.choice(values.NOUNS))


# Values of other looks for the tools' own parameters, so that a call copies what is there.
_OTHER_VALUES: dict[str, tuple[Draw, ...]] = {
    "city": (values.place,),
    "name": (values.person, words.made_up),
    "time": (values.time,),
    "order_id": (values.code,),
    "query": (values.thing, values.phrase, values.title, values.person, values.code),
    "subject": (values.thing, values.phrase, values.title, _saying),
    "task": (values.phrase,),
    "word": (values.thing, words.made_up, _saying),
    "room": (values.thing,),
    "to": (values.email, values.person),
    "a": (values.whole,),
    "b": (values.whole,),
    "amount": (values.whole,),
    "degrees": (values.whole,),
    "people": (values.whole,),
    "day": (values.date,),
    "product": (values.title, values.phrase),
    "text": (values.title, values.thing, _saying),
}


def _offer(tool: Tool, others: list[Tool], rng: Random) -> list[Tool]:
    """The tool among up to three others, in random order."""
    fitting = [other for other in others if other.name != tool.name]
    offered = [tool, *rng.sample(fitting, rng.choice((0, 0, 1, 1, 1, 2, 2, 3)))]
    rng.shuffle(offered)
    return offered


def _call(tool: Tool, template: str, rng: Random, *, noisy: bool = False) -> tuple[str, dict[str, Any]]:
    arguments = {name: parameter.draw(rng) for name, parameter in tool.parameters.items()}
    text = choose_with(template, arguments, rng).replace("\\", "")
    if noisy:
        for name in [name for name in _OTHER_VALUES if name in arguments]:
            if rng.random() < 0.4:
                arguments[name] = rng.choice(_OTHER_VALUES[name])(rng)
        if rng.random() < 0.4:
            text = reword(text, rng, 0.35)
        if rng.random() < 0.4:
            # Of `MORE_TOOLS` many need the little words (from, to, by) to tell their values apart.
            text = rng.choice((thin_out, babble) if tool in TOOLS else (babble,))(text, rng)
        if rng.random() < 0.1:
            text = f"{some_remark(rng)} {text}"
    return text.format(**arguments), arguments


# Tools that answer what small talk asks: where one is on offer, "I do not know" would be wrong.
_ANSWERING = frozenset(
    ("get_weather", "get_time", "translate", "get_population", "get_distance", "get_price", "get_user")
)
# Parameters that a tool may have and a request does not speak of: the call leaves them out.
_OPTIONAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}),
    ("units", {"type": "string", "enum": ["metric", "imperial"], "description": "Units of the result"}),
    ("limit", {"type": "integer", "description": "At most so many results"}),
    ("verbose", {"type": "boolean"}),
    ("format", {"type": "string", "description": "Format of the answer"}),
)


def _template(tool: Tool, rng: Random) -> str:
    """A request for the tool: one in four is the plainest."""
    asks = (*MORE_ASKS.get(tool.name, ()), *tool.asks)
    return rng.choice((asks[0], tool.asks[0])) if rng.random() < 0.25 else rng.choice(asks)


def _known_call(rng: Random) -> tuple[Tool, str, dict[str, Any], list[Tool]]:
    tool = rng.choice(TOOLS if rng.random() < 0.7 else MORE_TOOLS)
    question, arguments = _call(tool, _template(tool, rng), rng, noisy=True)
    if rng.random() < 0.06 and tool.name != "convert_currency":
        # As people type who never use the shift key; what is copied looks the same.
        question = question.lower()
        arguments = {name: said.lower() if isinstance(said, str) else said for name, said in arguments.items()}
    kinds = rng.random()
    others = list(TOOLS)
    if kinds < 0.3:
        others += [invent(rng).tool for _ in range(4)]
    elif kinds < 0.6:
        others += MORE_TOOLS
    return tool, question, arguments, _offer(tool, others, rng)


def _invented_call(rng: Random) -> tuple[Tool, str, dict[str, Any], list[Tool]]:
    invention = invent(rng)
    question, arguments = call_invented(invention, rng)
    others = {other.name: other for other in (*(invent(rng).tool for _ in range(3)), *rng.sample(TOOLS, 3))}
    return invention.tool, question, arguments, _offer(invention.tool, list(others.values()), rng)


def _definition(tool: Tool, rng: Random) -> dict[str, Any]:
    """The tool as some client would define it: without descriptions, with optional parameters, or strict."""
    definition = tool.definition()
    function = definition["function"]
    parameters: dict[str, Any] = function["parameters"]
    if rng.random() < 0.12:
        function["description"] = function["name"]
        if rng.random() < 0.5:
            del function["description"]
    if rng.random() < 0.12:
        parameters["properties"] = {name: {"type": said["type"]} for name, said in parameters["properties"].items()}
    if rng.random() < 0.12:
        name, said = rng.choice(_OPTIONAL)
        parameters["properties"].setdefault(name, said)
    if rng.random() < 0.12:
        parameters["additionalProperties"] = False
        if rng.random() < 0.5:
            function["strict"] = True
    return definition


def _without_call(offers: list[Tool], rng: Random) -> Example:
    """A question that none of the tools on offer answers."""
    answering = any(tool.name in _ANSWERING for tool in offers)
    return (product_example if answering else rng.choice((product_example, smalltalk_example)))(rng)


def tool_example(rng: Random) -> Example:
    """A training example: a call, often with its result told; sometimes a question that needs no tool."""
    tool, question, arguments, offers = (_invented_call if rng.random() < 0.45 else _known_call)(rng)
    system = (Message("system", "You are a helpful assistant."),) if rng.random() < 0.2 else ()
    if rng.random() < 0.06:
        offered = tuple(_definition(offer, rng) for offer in offers)
        return Example(TOOL, "tool/none", system + _without_call(offers, rng).messages, offered)
    place = offers.index(tool)
    if tool.name in ALIASES and rng.random() < 0.35:
        tool, names = rename(tool, rng)
        arguments = {names[name]: value for name, value in arguments.items()}
        offers = [*offers[:place], tool, *offers[place + 1 :]]
    offered = tuple(_definition(offer, rng) for offer in offers)
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
