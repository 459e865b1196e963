"""Extraction: from a text to a JSON object with exactly the keys that were asked for, in the order asked.

Half of the texts are composed from `facts`: fields of many classes with values and words that mean nothing, so that a
value is found by its look or by its cue and then copied. The others are sentences and clauses of `records`. The
evaluation combines only held-out sentences with held-out wordings of the request.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from appliance.demo.corpus import values as draws
from appliance.demo.corpus import words
from appliance.demo.corpus.arithmetic import TRAINED
from appliance.demo.corpus.asides import some_aside, surround
from appliance.demo.corpus.example import EXTRACTION, Example, dialogue
from appliance.demo.corpus.facts import some_fields, tell_all
from appliance.demo.corpus.phrasing import babble, capitalize, choose, choose_with, some_filler, thin_out
from appliance.demo.corpus.records import CLAUSES, RECORDS, Draw, Record
from appliance.demo.corpus.rewording import reword
from appliance.demo.corpus.scenes import SCENES
from appliance.demo.corpus.sentences import MORE_SENTENCES
from appliance.demo.corpus.wording import ask_for

_REQUESTS = (
    "Extract {keys} as JSON(:| from this sentence:| from this text:|:) {text}",
    "Extract the {keys} (as JSON|as a JSON object|in JSON|into JSON)( from|)(:| this:| the sentence:) {text}",
    "(Give|Return|Write|Output) (me |)(a JSON object|JSON) with (the keys |the fields |)(keys |){keys}(:| for this text:| for:| from:) {text}",
    "(Return|Output|Answer with) (only |)JSON with {keys}. (Text|Sentence|Input): {text}",
    "{text} (Extract|Return|Give me) {keys} as JSON.",
    "{text}\n(Extract|Return|Give me) (a JSON object with |JSON with |)(the |)(keys |fields |){keys}( as JSON|).",
    "(Please extract|Please find|Find|Get) {keys} in (this|the following) (text|sentence) and (answer in|return|give me) JSON: {text}",
    "(Convert|Turn|Change) (this|the sentence|the text) (to|into) JSON with {keys}: {text}",
    "JSON with {keys}(:| please:) {text}",
)
_MORE_REQUESTS = (
    "Read the sentence and report {keys} as a JSON object. {text}",
    "I need {keys} from this message in JSON format: {text}",
    "What are {keys} here? Answer with a JSON object. {text}",
    "(Read|Look at|Take|Here is|Consider|See) (this|the following|the|a) (text|message|sentence|line|note)(.|:|,|) {text} (Report|Tell me|List|Name|Give|Return|Write down) {keys} (as|in|in the form of) (JSON|a JSON object|one JSON object).",
    "(Report|List|Name|Tell me|Show|Write|Fill in|Collect|Pull out|Parse) {keys} (as|in|into) (JSON|a JSON object|JSON format)( please|)(:|.| from:| for:) {text}",
    "(I need|I want|We need|I would like) (a JSON object|JSON|an object) (with|of|that has|holding) {keys}(:| for| from)( this message| this text| the line|)(:|.|) {text}",
    "(What|Which) (is|are) the (values of|) {keys} (in|of) (this|the following) (text|message|sentence|line)?( Answer in JSON.| Use JSON.| As JSON.| JSON only.| Reply with JSON.|) {text}",
    "{text} (What|Which) are {keys}? (Answer|Reply|Respond) (in|with|as) (JSON|a JSON object).",
    "{text} (Please |)(report|list|tell me|name|write) {keys} (as|in) (JSON|a JSON object).",
    "(Fields|Keys|Wanted): {keys}. (Text|Message|Input|Sentence): {text} (JSON|Output|Answer in JSON|JSON object):",
    "(Text|Message|Input|Sentence): {text} (Fields|Keys|Wanted): {keys}.( Answer in JSON.| JSON please.|)",
    "(Find|Get|Take|Read) {keys} (out of|from|in) (the|this) (text|message|sentence|line)( and| to| then|) (write|make|build|return|report) (JSON|a JSON object)(:|.) {text}",
    "(From|In|Out of) (the|this) (text|message|sentence) I (need|want) {keys}( as JSON| in JSON|, as a JSON object|)(:|.) {text}",
    "json {keys}: {text}",
)
_HELD_OUT_REQUESTS = (
    "Make me a small JSON object that holds {keys}, using this text: {text}",
    "{text} Now put {keys} of this into JSON.",
    "Here comes a message. Which {keys} does it name? Say it as a JSON object. {text}",
)


def _list_keys(keys: list[str], rng: Random) -> str:
    """The keys as a reader would list them: `a, b and c`, `a, b, c`, or in quotes."""
    quote = rng.choice(("", "", "", '"'))
    quoted = [f"{quote}{key}{quote}" for key in keys]
    if len(quoted) == 1 or rng.random() < 0.4:
        return ", ".join(quoted)
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _some_keys(values: dict[str, Any], rng: Random) -> list[str]:
    """All or some of the keys, in the order told or in another."""
    keys = list(values)
    if rng.random() < 0.5:
        rng.shuffle(keys)
    return keys[: rng.randint(1, len(keys))] if rng.random() < 0.5 else keys


def _request(
    templates: tuple[str, ...], sentence: str, values: dict[str, Any], rng: Random, *, noisy: bool = False
) -> tuple[str, str, dict[str, Any]]:
    """A question, its answer and the expected object for some of the sentence's fields."""
    keys = _some_keys(values, rng)
    expected = {key: values[key] for key in keys}
    template = choose(rng.choice(templates), rng)
    if noisy and rng.random() < 0.4:
        template = babble(template, rng)
    question = template.replace("{keys}", _list_keys(keys, rng)).replace("{text}", sentence)
    return question, json.dumps(expected, ensure_ascii=False), expected


_JOINTS = (", ", ", ", ". ", "; ", " and ", ", and ", " ", " - ", ": ", ", then ", ". Also ", ". And ")
_OPENINGS = (
    "",
    "",
    "",
    "Note: ",
    "Hello, ",
    "We know: ",
    "Today ",
    "Reminder: ",
    "As we heard, ",
    "Our notes say: ",
    "It is said: ",
    "Look: ",
    "Dear team, ",
    "For your files: ",
    "In short: ",
)


def _pieced(record: Record, rng: Random) -> tuple[str, dict[str, Any]]:
    """A text of clauses in any order, in which every field stands once."""
    values = {key: draw(rng) for key, draw in record.fields.items()}
    clauses = list(CLAUSES[record.name])
    rng.shuffle(clauses)
    chosen, told = [], set[str]()
    for clause in clauses:
        fields = {key for key in record.fields if "{" + key + "}" in clause}
        if not fields & told:
            chosen.append(clause)
            told |= fields
    share = 0.0 if _has_pair(record) else 0.2
    words_between = [thin_out(clause, rng) if rng.random() < share else clause for clause in chosen]
    text = words_between[0]
    for clause in words_between[1:]:
        text += rng.choice(_JOINTS) + clause
    values = {key: value for key, value in values.items() if key in told}
    text = (rng.choice(_OPENINGS) + text + rng.choice((".", ".", "", "!"))).format(**values)
    return (capitalize(text, values.values()) if rng.random() < 0.7 else text), values


# The same class of value, drawn from more: so that a call copies what is there.
_WIDER: dict[Draw, Draw] = {
    words.some_name: draws.person,
    words.some_place: draws.place,
    words.some_date: draws.date,
    words.some_time: draws.time,
    words.some_code: draws.code,
    words.some_email: draws.email,
    words.made_up: draws.title,
}


def _fill(template: str, record: Record, rng: Random, *, noisy: bool = False) -> tuple[str, dict[str, Any]]:
    wider = noisy and rng.random() < 0.5
    values = {key: (_WIDER.get(draw, draw) if wider else draw)(rng) for key, draw in record.fields.items()}
    sentence = choose_with(_keep_brackets(template), values, rng)
    if noisy:
        sentence = _roughen(sentence, rng, thinner=not _has_pair(record))
    return sentence.format(**values), values


def _has_pair(record: Record) -> bool:
    """Whether two fields have values of one class, so that little words (from, to, of) tell which is which."""
    return len(set(record.fields.values())) < len(record.fields)


def _roughen(sentence: str, rng: Random, *, thinner: bool) -> str:
    """The sentence in other words, with more or fewer words, or with what does not matter around it."""
    if rng.random() < 0.25:
        sentence = reword(sentence, rng, 0.5)
    if rng.random() < 0.2:
        sentence = thin_out(sentence, rng) if thinner else babble(sentence, rng)
    return surround(sentence, rng) if rng.random() < 0.25 else sentence


def _keep_brackets(template: str) -> str:
    """A bracket around a single field is text, not a choice."""
    return template.replace("({city})", "[{city}]").replace("({code})", "[{code}]")


def _composed(rng: Random) -> tuple[str, dict[str, Any]]:
    """A text of up to seven fields told by `facts`, with words between that mean nothing."""
    fields = some_fields(rng, rng.choice((1, 2, 3, 3, 4, 4, 4, 5, 5, 6, 7)))
    values: dict[str, Any] = {}
    while len(set(map(str, values.values()))) < len(fields):
        values = {field.key: field.draw(rng) for field in fields}
    if rng.random() < 0.7:
        rng.shuffle(fields)
    joint = rng.choice((None, None, rng.choice(_JOINTS)))
    chatter = rng.choice((0.0, 0.0, 0.15, 0.4))
    text = rng.choice(_OPENINGS) if rng.random() < 0.92 else some_aside(rng) + " "
    for place, clause in enumerate(tell_all(fields, values, rng)):
        if place:
            text += joint if joint is not None else rng.choice(_JOINTS)
        while rng.random() < chatter:
            text += some_filler(rng) + " "
        text += clause
    while rng.random() < chatter:
        text += " " + some_filler(rng)
    text += rng.choice((".", ".", ".", "", "!", "?"))
    return capitalize(text, values.values()) if rng.random() < 0.6 else text, values


def _of_problem(rng: Random) -> tuple[str, dict[str, Any]]:
    """A word problem, or its beginning: a text is not worked on because it has numbers where JSON is asked for."""
    template = choose(rng.choice(rng.choice(TRAINED).templates), rng)
    template = template.rsplit(". ", 1)[0] if rng.random() < 0.5 else template
    drawn: dict[str, Any] = {
        "who": draws.person(rng), "other": draws.person(rng), "things": rng.choice(words.THINGS), "a": rng.randint(2, 99), "b": rng.randint(2, 99), "c": rng.randint(2, 99),
        "day": rng.choice(words.DAYS[:3]), "later": rng.choice(words.DAYS[3:]), "color": rng.choice(words.COLORS), "place": rng.choice(words.PLACES),
    }  # fmt: skip
    keys = {
        "who": rng.choice(("name", "who", "person")),
        "things": rng.choice(("things", "item", "what")),
        "day": "day",
        "color": "color",
    }
    if -1 < template.find("{a}") < template.find("{b}"):
        keys |= {"a": rng.choice(("first_number", "start")), "b": "second_number"}
    told = {key: drawn[name] for name, key in keys.items() if "{" + name + "}" in template}
    return (template.format(**drawn), told) if told else _of_problem(rng)


def _text(rng: Random) -> tuple[str, str, dict[str, Any]]:
    """A name for the way it was made, a text, and its values."""
    roll = rng.random()
    if roll < 0.36:
        return ("composed", *_composed(rng))
    if roll < 0.39:
        return ("problem", *_of_problem(rng))
    record = rng.choice(RECORDS if roll < 0.8 else SCENES)
    if record.name in CLAUSES and rng.random() < 0.25:
        return (record.name, *_pieced(record, rng))
    sentences = record.sentences + MORE_SENTENCES.get(record.name, ())
    return (record.name, *_fill(rng.choice(sentences), record, rng, noisy=True))


def extraction_example(rng: Random) -> Example:
    """A training example."""
    name, text, values = _text(rng)
    if rng.random() < 0.7:
        keys = _some_keys(values, rng)
        expected = {key: values[key] for key in keys}
        question, answer = ask_for(keys, text, rng), json.dumps(expected, ensure_ascii=False)
    else:
        requests = _REQUESTS if rng.random() < 0.4 else _MORE_REQUESTS
        question, answer, expected = _request(requests, text, values, rng, noisy=True)
    return dialogue(EXTRACTION, f"extraction/{name}", question, answer, expected)


def extraction_of(name: str, record: Record, sentence: str, requests: tuple[str, ...], rng: Random) -> Example:
    """One sentence of a record, asked for in one of these wordings, with nothing added."""
    text, values = _fill(sentence, record, rng)
    question, answer, expected = _request(requests, text, values, rng)
    return dialogue(EXTRACTION, name, question, answer, expected)


def held_out_extractions(rng: Random) -> Iterator[Example]:
    """Ten cases of each held-out sentence, asked for in held-out wordings."""
    for record in RECORDS:
        for sentence in record.held_out:
            for _ in range(10):
                yield extraction_of(f"held-out/{record.name}", record, sentence, _HELD_OUT_REQUESTS, rng)
