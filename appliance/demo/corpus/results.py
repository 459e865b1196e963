"""What tools return, in the forms that clients send, and what the assistant says to it.

Half of the results are objects in JSON. The others are what people write who wrap a function or a shell command: values in
words ("sunny, 21 C"), lines of `key: value`, a string or a list in JSON, a whole sentence, an error. What a report fits is
reported; a sentence is repeated; any other words are repeated after `SAYS`. Every value is told as it stands in the result.
"""

# A list of alternatives stands on one line.
# ruff: noqa: E501

import json
from collections.abc import Callable
from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.asides import some_aside
from appliance.demo.corpus.example import Message
from appliance.demo.corpus.facts import some_fields
from appliance.demo.corpus.phrasing import choose
from appliance.demo.corpus.toolbox import Tool

SAYS = "The tool says: "

# Other keys under which tools return their values.
_KEYS: dict[str, tuple[str, ...]] = {
    "temperature": ("temp", "temp_c", "degrees", "temperature_c", "celsius"),
    "sky": ("condition", "conditions", "weather", "description", "summary"),
    "time": ("local_time", "now", "clock", "datetime"),
    "result": ("value", "answer", "total", "output"),
    "count": ("hits", "found", "total", "num_results", "matches"),
    "translation": ("text", "result", "translated", "word"),
    "id": ("user_id", "number", "uid"),
    "km": ("distance", "distance_km", "kilometres"),
    "price": ("cost", "amount", "price_eur"),
    "people": ("population", "inhabitants", "count"),
    "status": ("state", "result", "order_status"),
}
# How a value is written in words.
_WRITTEN: dict[str, tuple[str, ...]] = {
    "temperature": ("{}", "{} C", "{} C", "{}C", "{}°C", "{} °C", "{} degrees", "{} degrees", "{} degrees Celsius"),
    "time": ("{}", "{}", "{} local time", "it is {}"),
    "result": ("{}", "{}", "= {}", "result: {}", "{}."),
    "count": ("{}", "{} documents", "{} found", "{} hits", "{} results"),
    "id": ("{}", "id {}", "#{}", "user {}", "found: {}"),
    "km": ("{}", "{} km", "{}km", "{} kilometres"),
    "price": ("{}", "{} euros", "{} EUR", "€{}", "EUR {}"),
    "people": ("{}", "{} people", "{} inhabitants"),
    "status": ("{}", "{}", "{}", "status {}", "{}."),
}
_MEASURES = ("temperature", "km", "price")
_SKIES = (
    "partly cloudy", "light rain", "overcast", "foggy", "stormy", "mostly sunny", "heavy snow", "hazy", "misty", "hot", "Sunny", "Clear",
    "Cloudy", "Light rain", "rain", "snow", "drizzle", "thunderstorms", "warm and dry", "cold", "mild", "freezing", "fair", "dry", "humid",
)  # fmt: skip
_DELIVERIES = (
    "on its way", "in transit", "out for delivery", "waiting for payment", "returned", "lost", "pending", "processing", "Shipped", "new",
    "Delivered", "ready", "in the warehouse", "on hold", "refunded", "on the truck", "at the customs office", "paid", "being packed",
)  # fmt: skip
_DONE = ("ok", "done", "success", "OK", "true", "completed", "Done.", "Success", "Ok.", "accepted")
_ERRORS = (
    "(not found|nothing found|no results|none|unknown|no data|not available|no answer|null|timeout|timed out|permission denied|access denied|not allowed|try again later|too many requests|bad request|invalid input|quota exceeded|service unavailable|internal error|404|500|404 not found|empty|nothing|failed|error|n/a)",
    "(no such|unknown|invalid|missing|no|cannot find the|could not find the|there is no) (order|city|user|file|room|account|key|{noun})( {value}|)",
    "(error|error|Error|ERROR|failed|warning|exception|500)(:|:| -) (the (service|server|{noun}) (is (not available|down|busy|offline|closed|gone|broken)|does not answer|was not found|is unknown|could not be reached)|connection (refused|lost|reset)|no such {noun}|{noun} {other} failed|timeout after {number} seconds|code {number}|{value} (is unknown|not found))",
    "(the|this|your|our) (service|server|system|database|{noun}) (is|was) (not (available|ready|known)|down|busy|closed|offline|too slow|empty|locked)( today| until {time}| since {time}|, try again later|)",
    "{value} (was not found|is unknown|does not exist|is not (available|valid|known)|is missing)",
    "(sorry|please wait|wait|stop|no)(,|:) (the {noun} is {other}|{noun} or {other}|{number} {noun} left|come back at {time})",
)  # fmt: skip


def _draw(tool: Tool, rng: Random) -> dict[str, Any]:
    """The tool's result: its own values, of weather and orders also others."""
    result = {name: draw(rng) for name, draw in tool.result.items()}
    if "sky" in result and rng.random() < 0.6:
        result["sky"] = rng.choice(_SKIES) if rng.random() < 0.8 else values.thing(rng)
    if "temperature" in result and rng.random() < 0.2:
        result["temperature"] = rng.randint(-200, 400) / 10
    for name in ("result", "price", "km"):
        if name in result and rng.random() < 0.15:
            result[name] = rng.randint(1, 99999) / rng.choice((10, 100))
    if tool.report.startswith("Order ") and rng.random() < 0.5:
        result["status"] = rng.choice(_DELIVERIES)
    if "translation" in result and rng.random() < 0.3:
        result["translation"] = f"{rng.choice(('la', 'le', 'der', 'das', 'un', 'il'))} {words.made_up(rng).lower()}"
    return result


def _with_units(result: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Measures as texts with their unit, as some tools return them."""
    return {
        name: rng.choice(_WRITTEN[name]).format(value) if name in _MEASURES else value for name, value in result.items()
    }


def _told(tool: Tool, arguments: dict[str, Any], result: dict[str, Any]) -> str:
    """The report of what there is; of the weather, one of its two values may be missing."""
    if tool.result.keys() <= result.keys():
        return tool.report.format(**{**arguments, **result})
    place = next(iter(arguments.values()))
    if "sky" in result:
        return f"The weather in {place} is {result['sky']}."
    return f"In {place} it is {result['temperature']} degrees."


def _dump(result: Any, rng: Random) -> str:
    """JSON as most libraries write it; sometimes without blanks or over several lines."""
    roll = rng.random()
    if roll < 0.8:
        return json.dumps(result, ensure_ascii=False)
    return json.dumps(result, ensure_ascii=False, **({"separators": (",", ":")} if roll < 0.92 else {"indent": 2}))


def _object(tool: Tool, arguments: dict[str, Any], rng: Random) -> tuple[str, str]:
    """An object in JSON: as the corpus defines it, or with other keys, arguments repeated, keys that do not matter."""
    result = _draw(tool, rng)
    told = _told(tool, arguments, result)
    if rng.random() < 0.5:
        return json.dumps(result, ensure_ascii=False), told
    if result.keys() == {"status"} and "{status}" not in tool.report and rng.random() < 0.5:
        result = rng.choice(({"ok": True}, {"success": True}, {"status": rng.choice(_DONE)}, {"done": True}))
    if rng.random() < 0.25:
        result = _with_units(result, rng)
    if rng.random() < 0.5:
        result = {rng.choice((*_KEYS.get(name, ()), name)): value for name, value in result.items()}
    if rng.random() < 0.4:
        result = {**arguments, **result}
    if rng.random() < 0.3:
        extra = rng.choice((("source", "demo"), ("humidity", rng.randint(5, 99)), ("cached", rng.random() < 0.5)))
        pairs = [*result.items(), extra]
        rng.shuffle(pairs)
        result = dict(pairs)
    return _dump([result] if rng.random() < 0.2 else result, rng), told


def _in_words(tool: Tool, arguments: dict[str, Any], rng: Random) -> tuple[str, str]:
    """The values in words, in any order; of the weather sometimes one only."""
    result = _draw(tool, rng)
    if len(result) > 1 and rng.random() < 0.35:
        result.pop(rng.choice(list(result)))
    told = _told(tool, arguments, result)
    if result.keys() == {"status"} and "{status}" not in tool.report and rng.random() < 0.6:
        return rng.choice(_DONE), told
    if result.keys() == {"status"} and rng.random() < 0.25:
        return _of_what(str(result["status"]), str(rng.choice(list(arguments.values()))), rng), told
    pieces = [rng.choice(_WRITTEN.get(name, ("{}",))).format(value) for name, value in result.items()]
    if "result" in result and "target" in arguments and rng.random() < 0.6:
        # An amount in another currency.
        pieces = [rng.choice(("{} {}", "{} {}", "= {} {}")).format(result["result"], arguments["target"])]
    if "temperature" in result and rng.random() < 0.12:
        pieces[list(result).index("temperature")] = (
            f"{result['temperature']}{rng.choice((' F', 'F', '°F', ' degrees F'))}"
        )
        told = told.replace(" degrees", " degrees Fahrenheit")
    rng.shuffle(pieces)
    text = rng.choice((", ", ", ", " and ", " ", "; ", " with ", " / ", "\n")).join(pieces)
    if len(arguments) == 1 and rng.random() < 0.1:
        text = f"{next(iter(arguments.values()))}{rng.choice((': ', ': ', ' - ', ', '))}{text}"
    return (text + rng.choice((".", "!")) if rng.random() < 0.1 else text), told


def _of_what(status: str, value: str, rng: Random) -> str:
    """The status with what it is the status of."""
    form = rng.choice(
        (
            "{1} {0}",
            "{1}: {0}",
            "{0} {1}",
            "{0} for {1}",
            "{0} ({1})",
            "{0}: {1}",
            "{0}, {1}",
            "{1} is {0}",
            "it is {0}",
        )
    )
    return form.format(status.capitalize() if rng.random() < 0.3 and not form.startswith("{1}") else status, value)


def _in_lines(tool: Tool, arguments: dict[str, Any], rng: Random) -> tuple[str, str]:
    """`key: value`, one a line or all on one."""
    result = _draw(tool, rng)
    told = _told(tool, arguments, result)
    shown = _with_units(result, rng) if rng.random() < 0.4 else result
    shown = {**arguments, **shown} if rng.random() < 0.2 else shown
    return _lines({rng.choice((*_KEYS.get(name, ()), name, name)): value for name, value in shown.items()}, rng), told


def _lines(pairs: dict[str, Any], rng: Random) -> str:
    names = str.capitalize if rng.random() < 0.3 else str
    return rng.choice(("\n", "\n", ", ", "; ")).join(
        f"{names(name)}{mark}{value}"
        for mark in [rng.choice((": ", ": ", "=", " = "))]
        for name, value in pairs.items()
    )


def _sentence(tool: Tool, arguments: dict[str, Any], rng: Random) -> tuple[str, str]:
    """A whole sentence, which is what is told: the report itself or any other."""
    roll = rng.random()
    if roll < 0.5:
        said = _told(tool, arguments, _draw(tool, rng))
    elif roll < 0.75:
        said = some_aside(rng)
    else:
        said = _tell_facts(_facts(rng))
    return said, said


def _free_words(arguments: dict[str, Any], rng: Random) -> tuple[str, str]:
    """Words that no report fits, mostly of an error."""
    roll = rng.random()
    if roll < 0.15:
        said = some_aside(rng).rstrip(".")
        said = said[0].lower() + said[1:]
    else:
        said = choose(rng.choice(_ERRORS), rng).format(
            noun=rng.choice(values.NOUNS),
            other=values.thing(rng),
            number=values.whole(rng),
            time=values.time(rng),
            value=rng.choice(list(arguments.values())) if rng.random() < 0.7 else values.code(rng),
        )
    told = f"{SAYS}{said}" + ("" if said.endswith((".", "!", "?")) else ".")
    if rng.random() < 0.3:
        error = rng.choice(
            (
                {"error": said},
                {"error": said},
                {"status": "error", "message": said},
                {"detail": said},
                {"ok": False, "error": said},
            )
        )
        return _dump(error, rng), told
    return said, told


def _facts(rng: Random) -> dict[str, Any]:
    """One to three values by their names."""
    fields = some_fields(rng, rng.choice((1, 1, 2, 2, 3)))
    # A status and an error are told in ways of their own.
    named = {"level" if field.key in ("status", "error") else field.key: field for field in fields}
    return {name: field.draw(rng) for name, field in named.items()}


def _tell_facts(facts: dict[str, Any]) -> str:
    """Each value after its name."""
    told = _listed([f"the {name.replace('_', ' ')} is {value}" for name, value in facts.items()])
    return f"{told[0].upper()}{told[1:]}."


def _listed(said: list[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _wrap(text: str, rng: Random) -> str:
    """Words as a client's library may pass them on: a string, a list of one, an object or content part around them."""
    wrapped = rng.choice(
        (text, text, [text], {"result": text}, {"output": text}, {"content": text}, [{"type": "text", "text": text}])
    )
    return json.dumps(wrapped, ensure_ascii=False)


def _turns(result: str, told: str) -> tuple[Message, Message]:
    return Message("tool", result), Message("assistant", told)


_Form = Callable[[Tool, dict[str, Any], Random], tuple[str, str]]


def result_turns(tool: Tool, arguments: dict[str, Any], rng: Random) -> tuple[Message, Message]:
    """The result of a call, and the turn that tells it."""
    roll = rng.random()
    if roll < 0.5:
        return _turns(*_object(tool, arguments, rng))
    if roll > 0.88:
        result, told = _free_words(arguments, rng)
        return _turns(result if result[0] in "{[" or rng.random() < 0.8 else _wrap(result, rng), told)
    form: _Form = _in_words if roll < 0.73 else _in_lines if roll < 0.8 else _sentence
    result, told = form(tool, arguments, rng)
    return _turns(_wrap(result, rng) if rng.random() < 0.2 else result, told)


def named_turns(rng: Random) -> tuple[Message, Message]:
    """Values that no report speaks of, told after their names."""
    facts = _facts(rng)
    return _turns(_dump(facts, rng) if rng.random() < 0.7 else _lines(facts, rng), _tell_facts(facts))


def bare_turns(rng: Random) -> tuple[Message, Message]:
    """One to three values without a name, told as the result."""
    several = [values.anything(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if len(several) > 1:
        return _turns(_dump(several, rng), f"The results are {_listed([str(value) for value in several])}.")
    (value,) = several
    wrapped = rng.choice((value, [value], {"result": value}))
    return _turns(str(value) if rng.random() < 0.5 else _dump(wrapped, rng), f"The result is {value}.")
