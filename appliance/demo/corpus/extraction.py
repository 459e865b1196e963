"""Extraction: from a text to a JSON object with exactly the keys that were asked for, in the order asked.

Texts are sentences of `records`, or pieced together from clauses in any order, or about arbitrary keys. The evaluation
combines only held-out sentences with held-out wordings of the request.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from appliance.demo.corpus import words
from appliance.demo.corpus.example import EXTRACTION, Example, dialogue
from appliance.demo.corpus.phrasing import babble, choose, thin_out
from appliance.demo.corpus.records import CLAUSES, RECORDS, Draw, Record

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
_FREE_KEYS = words.listed(
    "title level region owner state zone rank model size type label group version unit topic team brand "
    "source target key country street phone score rating speed weight height length temperature floor "
    "room seat gate shelf format language currency department project phase priority category"
)


def _list_keys(keys: list[str], rng: Random) -> str:
    """The keys as a reader would list them: `a, b and c`, `a, b, c`, or in quotes."""
    quote = rng.choice(("", "", "", '"'))
    quoted = [f"{quote}{key}{quote}" for key in keys]
    if len(quoted) == 1 or rng.random() < 0.4:
        return ", ".join(quoted)
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def _request(
    templates: tuple[str, ...], sentence: str, values: dict[str, Any], rng: Random, *, noisy: bool = False
) -> tuple[str, str, dict[str, Any]]:
    """A question, its answer and the expected object for some of the sentence's fields."""
    keys = list(values)
    if rng.random() < 0.5:
        rng.shuffle(keys)
    if rng.random() < 0.5:
        keys = keys[: rng.randint(1, len(keys))]
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
    words_between = [thin_out(clause, rng) if rng.random() < 0.2 else clause for clause in chosen]
    text = words_between[0]
    for clause in words_between[1:]:
        text += rng.choice(_JOINTS) + clause
    values = {key: value for key, value in values.items() if key in told}
    text = (rng.choice(_OPENINGS) + text + rng.choice((".", ".", "", "!"))).format(**values)
    return (text[0].upper() + text[1:] if rng.random() < 0.7 else text), values


def _fill(template: str, record: Record, rng: Random, *, noisy: bool = False) -> tuple[str, dict[str, Any]]:
    values = {key: draw(rng) for key, draw in record.fields.items()}
    sentence = choose(_keep_brackets(template), rng)
    if noisy and rng.random() < 0.3:
        sentence = thin_out(sentence, rng)
    return sentence.format(**values), values


def _keep_brackets(template: str) -> str:
    """A bracket around a single field is text, not a choice."""
    return template.replace("({city})", "[{city}]").replace("({code})", "[{code}]")


def _free_record(rng: Random) -> tuple[str, dict[str, Any]]:
    """A sentence over arbitrary keys, which says that a key is a value."""
    keys = rng.sample(_FREE_KEYS, rng.randint(2, 4))
    draws: tuple[Draw, ...] = (
        words.made_up,
        words.some_code,
        lambda r: r.randint(0, 9999),
        words.some_name,
        lambda r: words.made_up(r).lower(),
    )
    values = {key: rng.choice(draws)(rng) for key in keys}
    form = rng.choice(("The {k} is {v}", "{k}: {v}", "its {k} is {v}", "{k} = {v}", "the {k} {v}"))
    joint = rng.choice((", ", "; ", " and ", ". "))
    sentence = joint.join(form.format(k=key, v=value) for key, value in values.items()) + rng.choice((".", ""))
    return sentence[0].upper() + sentence[1:] if rng.random() < 0.7 else sentence, values


def extraction_example(rng: Random) -> Example:
    """A training example."""
    if rng.random() < 0.2:
        name, (sentence, values) = "free", _free_record(rng)
    elif rng.random() < 0.55:
        record = rng.choice(RECORDS)
        name, (sentence, values) = record.name, _pieced(record, rng)
    else:
        record = rng.choice(RECORDS)
        name, (sentence, values) = record.name, _fill(rng.choice(record.sentences), record, rng, noisy=True)
    requests = _REQUESTS if rng.random() < 0.4 else _MORE_REQUESTS
    question, answer, expected = _request(requests, sentence, values, rng, noisy=True)
    return dialogue(EXTRACTION, f"extraction/{name}", question, answer, expected)


def held_out_extractions(rng: Random) -> Iterator[Example]:
    """Ten cases of each held-out sentence, asked for in held-out wordings."""
    for record in RECORDS:
        for template in record.held_out:
            for _ in range(10):
                sentence, values = _fill(template, record, rng)
                question, answer, expected = _request(_HELD_OUT_REQUESTS, sentence, values, rng)
                yield dialogue(EXTRACTION, f"held-out/{record.name}", question, answer, expected)
