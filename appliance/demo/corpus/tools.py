"""Tool calls: some tools in the prompt, a request, the right call with the right arguments, and its result told.

Some go on: a second question becomes a second call, or one request needs two calls, one after the other. Calls are written in the Hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.asides import some_aside
from appliance.demo.corpus.example import TOOL, Example, Message
from appliance.demo.corpus.invented import INVENTED_REPORT, Invention, call_invented, invent
from appliance.demo.corpus.phrasing import babble, choose, choose_with, some_remark, thin_out
from appliance.demo.corpus.product import product_example
from appliance.demo.corpus.requests import ALIASES, MORE_ASKS, MORE_TOOLS, rename
from appliance.demo.corpus.results import bare_turns, named_turns, result_turns
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


@dataclass(frozen=True)
class _Request:
    """A request for a tool, and how the same tool is asked for once more."""

    tool: Tool
    question: str
    arguments: dict[str, Any]
    again: "_Ask"

    def call(self) -> Message:
        """The assistant's turn."""
        return Message("assistant", call_text(self.tool.name, self.arguments))


_Ask = Callable[[Random], _Request]


def _ask_known(tool: Tool, rng: Random) -> _Request:
    question, arguments = _call(tool, _template(tool, rng), rng, noisy=True)
    if rng.random() < 0.06 and tool.name != "convert_currency":
        # As people type who never use the shift key; what is copied looks the same.
        question = question.lower()
        arguments = {name: said.lower() if isinstance(said, str) else said for name, said in arguments.items()}
    return _Request(tool, question, arguments, lambda rng: _ask_known(tool, rng))


def _ask_invented(invention: Invention, rng: Random) -> _Request:
    question, arguments = call_invented(invention, rng)
    return _Request(invention.tool, question, arguments, lambda rng: _ask_invented(invention, rng))


def _known_call(rng: Random) -> tuple[_Request, list[Tool]]:
    tool = rng.choice(TOOLS if rng.random() < 0.7 else MORE_TOOLS)
    request = _ask_known(tool, rng)
    kinds = rng.random()
    others = list(TOOLS)
    if kinds < 0.3:
        others += [invent(rng).tool for _ in range(4)]
    elif kinds < 0.6:
        others += MORE_TOOLS
    return request, _offer(tool, others, rng)


def _invented_call(rng: Random) -> tuple[_Request, list[Tool]]:
    invention = invent(rng)
    request = _ask_invented(invention, rng)
    others = {other.name: other for other in (*(invent(rng).tool for _ in range(3)), *rng.sample(TOOLS, 3))}
    return request, _offer(invention.tool, list(others.values()), rng)


def _renamed(request: _Request, tool: Tool, names: dict[str, str]) -> _Request:
    """The request for the tool under its other names."""
    arguments = {names[name]: value for name, value in request.arguments.items()}
    return _Request(tool, request.question, arguments, lambda rng: _renamed(request.again(rng), tool, names))


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


def _politely(question: str, rng: Random) -> str:
    if rng.random() >= 0.3:
        return question
    question = rng.choice(("Please ", "Hi, ", "Hello! ", "Good morning, ", "Okay, ", "One more thing: ", "")) + question
    return question.rstrip("?.") if rng.random() < 0.4 else question


def _result_turns(request: _Request, rng: Random) -> tuple[Message, Message]:
    """The result and its telling; of tools that nobody has heard of also results that have no report."""
    invented, roll = request.tool.report.startswith(INVENTED_REPORT), rng.random()
    if roll < (0.25 if invented else 0.04):
        return named_turns(rng)
    return bare_turns(rng) if invented and roll < 0.5 else result_turns(request.tool, request.arguments, rng)


def _briefly(request: _Request, rng: Random) -> _Request:
    """Only the value is said: what is asked for is clear from the question before."""
    (value,) = request.arguments.values()
    said = choose("(And|What about|And what about|How about|And now|Now|The same for|Then|Also|Next:) ", rng)
    return replace(request, question=f"{said} {value}{rng.choice(('?', '?', '.', ''))}")


def _next_request(request: _Request, offers: list[Tool], rng: Random) -> _Request:
    """Another request for the same tool, or for another one on offer."""
    others = [offer for offer in offers if offer.asks and offer is not request.tool]
    if others and rng.random() < 0.5:
        return _ask_known(rng.choice(others), rng)
    second = request.again(rng)
    return _briefly(second, rng) if len(second.arguments) == 1 and rng.random() < 0.4 else second


def _going_on(request: _Request, offers: list[Tool], rng: Random) -> tuple[Message, ...]:
    """After a result was told: a second question, mostly one that is a call again."""
    if rng.random() < 0.15:
        return product_example(rng).messages
    second = _next_request(request, offers, rng)
    opening = rng.choice(("", "", "", "Thanks. ", "Thank you! ", "Okay. ", "Next: ", "Good. ", "Now: "))
    turns = (Message("user", f"{opening}{second.question}"), second.call())
    return (*turns, *_result_turns(second, rng)) if rng.random() < 0.6 else turns


def _two_calls(request: _Request, offers: list[Tool], rng: Random) -> tuple[Message, ...]:
    """One request that needs two calls; the second follows the first one's result, then both are told."""
    second = _next_request(request, offers, rng)
    first = request.question if request.question.endswith((".", "?", "!")) else f"{request.question}."
    joined = rng.choice((" ", " ", " Then: ", " After that: ", " And also: ", "\n", " Second: "))
    (result, told), (other, also) = _result_turns(request, rng), _result_turns(second, rng)
    both = Message("assistant", f"{told.content} {also.content}")
    return Message("user", f"{first}{joined}{second.question}"), request.call(), result, second.call(), other, both


def _turns(request: _Request, offers: list[Tool], rng: Random) -> tuple[Message, ...]:
    """Request and call, and often what comes then."""
    roll = rng.random()
    if roll < 0.04 and len(offers) <= 3:
        return _two_calls(request, offers, rng)
    messages: tuple[Message, ...] = (Message("user", request.question), request.call())
    if roll < 0.45:
        messages += _result_turns(request, rng)
        if roll < 0.16 and len(offers) <= 3:
            messages += _going_on(request, offers, rng)
    return messages


def tool_example(rng: Random) -> Example:
    """A training example: a call, often with its result told and more; sometimes a question that needs no tool."""
    request, offers = (_invented_call if rng.random() < 0.45 else _known_call)(rng)
    system = (Message("system", "You are a helpful assistant."),) if rng.random() < 0.2 else ()
    if rng.random() < 0.06:
        offered = tuple(_definition(offer, rng) for offer in offers)
        return Example(TOOL, "tool/none", system + _without_call(offers, rng).messages, offered)
    place = offers.index(request.tool)
    if request.tool.name in ALIASES and rng.random() < 0.35:
        request = _renamed(request, *rename(request.tool, rng))
        offers = [*offers[:place], request.tool, *offers[place + 1 :]]
    offered = tuple(_definition(offer, rng) for offer in offers)
    request = replace(request, question=_politely(request.question, rng))
    return Example(TOOL, f"tool/{request.tool.name}", system + _turns(request, offers, rng), offered)


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
