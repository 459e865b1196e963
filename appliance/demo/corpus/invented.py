"""Tools that exist in one example only, with requests for them: so that a call is read from the schema.

Name, description and parameters are drawn at random; the request names what is to be done and gives the values in any
order, by their look or by the name of the parameter.
"""

# A list of alternatives stands on one line.
# ruff: noqa: E501

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from appliance.demo.corpus import values
from appliance.demo.corpus.facts import Field, some_fields, tell_all
from appliance.demo.corpus.phrasing import babble, capitalize, choose, some_filler
from appliance.demo.corpus.rewording import reword
from appliance.demo.corpus.toolbox import Parameter, Tool
from appliance.demo.corpus.words import made_up

INVENTED_REPORT = "The status of the"
_VERBS = {
    "open": "open|unlock|open up", "close": "close|shut|close down", "start": "start|launch|begin|run", "stop": "stop|halt|end|shut down",
    "delete": "delete|remove|erase|get rid of|throw away", "create": "create|make|add|set up|register", "show": "show|display|let me see|bring up",
    "check": "check|inspect|verify|look at|test", "move": "move|shift|bring|transfer", "copy": "copy|duplicate|clone", "lock": "lock|secure|close off",
    "archive": "archive|put away|store away", "restart": "restart|reboot|start again", "print": "print|print out", "scan": "scan|read in",
    "rate": "rate|judge|review", "cancel": "cancel|call off|drop|revoke", "find": "find|search|look for|locate|look up", "get": "get|fetch|give me|retrieve|tell me",
    "update": "update|change|modify|edit|adjust", "send": "send|mail|dispatch|forward", "book": "book|reserve|order", "buy": "buy|purchase|order|get",
    "sell": "sell|offer", "list": "list|enumerate|show all of", "rename": "rename|give another name to", "assign": "assign|give|hand over",
    "schedule": "schedule|plan|arrange|fix", "measure": "measure|determine|gauge", "compute": "compute|calculate|work out", "pay": "pay|settle",
    "notify": "notify|alert|inform|warn", "upload": "upload|put online|push", "download": "download|pull|load", "count": "count|number", "mark": "mark|flag|tag",
}  # fmt: skip
_OPENINGS = (
    "{verb} (the|a|this|that|my|our|) {noun}",
    "(please|can you|could you|would you|I want to|I need to|we have to|you should|kindly|now|help me,|go and|I would like to|it is time to|make sure to|somebody must|let us|time to|try to) {verb} (the|a|this|that|my|our|) {noun}",
    "{noun}(:|,| -) {verb}( it|)",
    "(the|a|our) {noun} (must|should|needs|has|wants|is|ought) (you to|to|) {verb}",
    "(there is|I have|we have|it is about) (a|the|one) {noun}(,| that you should| and you must| to|:) {verb}( it|)",
    "(for|with|about) (the|a|my) {noun}(:|,) {verb}( it|)( please|)",
)  # fmt: skip

_DESCRIPTIONS = (
    "({verb} a {noun}|{verb} the {noun}|{verb} {noun}s|use this to {verb} a {noun}|a tool to {verb} the {noun})",
    "{verb} one {noun} and return (the result|its status|what came of it)",
)


def _parameter(field: Field, noun: str, rng: Random) -> Parameter:
    """A parameter for a field: its JSON type follows its values, and texts may look like numbers."""
    sample = field.draw
    key = field.key.replace("_", " ")
    description = choose(
        f"({key.capitalize()}|{key.capitalize()} of the {noun}|The {key}|The {key} of the {noun}|What {key} it has|{key.capitalize()} to use|Its {key}|{key.capitalize()}, as given)",
        rng,
    )
    if field.kind == "any":
        sample = rng.choice(
            (
                values.thing,
                values.code,
                values.person,
                values.phrase,
                values.whole,
                values.whole,
                values.digits,
                values.decimal,
            )
        )
    if sample is values.decimal:
        return Parameter("number", description, sample)
    if sample is values.whole or field.kind == "number":
        return Parameter("integer", description, sample)
    return Parameter("string", description, sample)


@dataclass(frozen=True)
class Invention:
    """A made-up tool, the fields behind its parameters, and what it does to what."""

    tool: Tool
    fields: tuple[Field, ...]
    verb: str
    noun: str


def invent(rng: Random) -> Invention:
    """A tool with one to four parameters."""
    some = rng.choice(values.NOUNS)
    noun = rng.choice((some, some, made_up(rng).lower(), f"{some}_{rng.choice(values.NOUNS)}"))
    verb, said = rng.choice(list(_VERBS)), noun.replace("_", " ")
    verb_said = rng.choice(_VERBS[verb].split("|")) if rng.random() < 0.4 else verb
    fields = tuple(some_fields(rng, rng.choice((1, 1, 2, 2, 3, 4))))
    tool = Tool(
        rng.choice(
            (
                f"{verb}_{noun}",
                f"{noun}_{verb}",
                f"{verb}{noun.title().replace('_', '')}",
                f"{noun}.{verb}",
                f"{verb}-{noun}".replace("_", "-"),
            )
        ),
        choose(rng.choice(_DESCRIPTIONS), rng).replace("{verb}", verb_said).replace("{noun}", said).capitalize(),
        {field.key: _parameter(field, said, rng) for field in fields},
        (),
        (),
        {"status": lambda r: r.choice(("ok", "done", "failed", "queued"))},
        f"{INVENTED_REPORT} {said} is {{status}}.",
    )
    return Invention(tool, fields, verb, noun)


def call_invented(invention: Invention, rng: Random) -> tuple[str, dict[str, Any]]:
    """A request for the tool, and the arguments that it gives."""
    parameters, fields = invention.tool.parameters, rng.sample(invention.fields, len(invention.fields))
    arguments: dict[str, Any] = {}
    while len({json.dumps(value) for value in arguments.values()}) < len(fields):
        arguments = {name: parameter.draw(rng) for name, parameter in parameters.items()}
    said = rng.choice(_VERBS[invention.verb].split("|")) if rng.random() < 0.5 else invention.verb
    opening = (
        choose(rng.choice(_OPENINGS), rng).replace("{verb}", said).replace("{noun}", invention.noun.replace("_", " "))
    )
    if rng.random() < 0.2:
        opening = reword(opening, rng, 0.4)
    if rng.random() < 0.2:
        opening = babble(opening, rng)
    if len(fields) == 1 and rng.random() < 0.4:
        clauses = [str(arguments[fields[0].key])]
    else:
        clauses = tell_all(fields, arguments, rng)
    details = rng.choice((", ", ", ", " and ", "; ", " ", ", and ")).join(clauses)
    if rng.random() < 0.15:
        text = f"{details}{rng.choice((', ', ': ', ' - ', '. '))}{opening}"
    else:
        text = f"{opening}{rng.choice((' ', ' ', ', ', ': ', ' with ', ', '))}{details}"
    if rng.random() < 0.2:
        text += f" {some_filler(rng)}"
    text += rng.choice((".", ".", "", "?", "!", ", please."))
    return capitalize(text, arguments.values()) if rng.random() < 0.7 else text, arguments
