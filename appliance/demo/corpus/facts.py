"""Fields that a text may state, and the many ways to state one: the stuff of which extraction texts are composed.

A field has a class; a `plain` frame gives the value alone, so that its look tells the field, a `cued` frame hints at the
field, and one of `_NAMED` names it. Two fields of one class in a text are never told by their looks.
"""

# A list of frames stands on one line.
# ruff: noqa: E501

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.phrasing import some_filler
from appliance.demo.corpus.values import Draw
from appliance.demo.corpus.words import listed, made_up


@dataclass(frozen=True)
class Field:
    """A key, the class of its values, and frames over {v}: the value alone, or with a hint."""

    key: str
    kind: str
    draw: Draw
    plain: tuple[str, ...]
    cued: tuple[str, ...]


_NAMED = (
    "{k} {v}", "{k}: {v}", "the {k} is {v}", "{k} = {v}", "its {k} is {v}", "{v} is the {k}", "with {k} {v}", "{k} - {v}",
    "{v} as {k}", "{v} as the {k}", "the {k} {v}", "({k}: {v})", "{v} ({k})", "as {k} we have {v}", "{k} of {v}", "{v} for {k}",
    "{k} {v}", "{k}: {v}", "whose {k} is {v}", "{v} is what we have as {k}", "the {k} was {v}", "the {k} will be {v}", "{k} was {v}",
)  # fmt: skip
_PERSON = (
    "{v}",
    "{v}",
    "by {v}",
    "with {v}",
    "for {v}",
    "from {v}",
    "{v} himself",
    "{v} herself",
    "dear {v}",
    "{v} here",
    "{v} says hello",
    "{v} again",
    "our {v}",
    "says {v}",
    "and {v}",
    "{v} came",
    "{v} called",
    "we saw {v}",
    "{v} will know",
)
_PLACE = (
    "in {v}",
    "in {v}",
    "at {v}",
    "near {v}",
    "around {v}",
    "of {v}",
    "in the middle of {v}",
    "out in {v}",
    "over in {v}",
    "we love {v}",
    "{v} is nice",
    "all of {v}",
    "visiting {v}",
    "close to {v}",
    "back in {v}",
    "the {v} area",
    "the town of {v}",
)
_NUMBER = (
    "{v}",
    "{v} in all",
    "number {v}",
    "about {v}",
    "exactly {v}",
    "we count {v}",
    "{v} it is",
    "{v} or so",
    "up to {v}",
    "no less than {v}",
    "the figure {v}",
    "({v})",
)
_NOUN = (
    "a {v}",
    "the {v}",
    "{v}",
    "one {v}",
    "this {v}",
    "some {v}",
    "a kind of {v}",
    "that {v}",
    "our {v}",
    "it is {v}",
    "being {v}",
    "{v} again",
)
_DATE = (
    "on {v}",
    "{v}",
    "by {v}",
    "since {v}",
    "until {v}",
    "before {v}",
    "({v})",
    "as of {v}",
    "around {v}",
    "after {v}",
    "{v} it was",
    "dated {v}",
    "of {v}",
)
_TIME = (
    "at {v}",
    "{v}",
    "by {v}",
    "around {v}",
    "from {v} on",
    "not before {v}",
    "({v})",
    "{v} sharp",
    "shortly after {v}",
)
_LOOKS = (
    "{v}",
    "({v})",
    "as {v}",
    "under {v}",
    "via {v}",
    "at {v}",
    "with {v}",
    "see {v}",
    "use {v}",
    "this {v}",
    "{v} it reads",
    "marked {v}",
    "called {v}",
)


def _fields(keys: str, kind: str, draw: Draw, plain: tuple[str, ...], cued: tuple[str, ...] = ()) -> list[Field]:
    return [Field(key, kind, draw, plain, (*cued, *cued)) for key in keys.split()]


def _whole(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high) if rng.random() < 0.85 else values.whole(rng)


FIELDS = (
    *_fields("name person patient student employee member speaker passenger user captain driver", "person", values.person, _PERSON),
    *_fields("customer buyer client", "person", values.person, _PERSON, ("ordered by {v}", "sold to {v}", "{v} pays", "bought by {v}", "{v} buys it", "{v} wants it", "at the wish of {v}", "billed to {v}", "{v} takes it")),
    *_fields("seller supplier vendor", "person", values.person, _PERSON, ("sold by {v}", "{v} sells it", "delivered by {v}", "{v} supplies it", "bought from {v}", "{v} made the offer")),
    *_fields("owner keeper holder landlord", "person", values.person, _PERSON, ("belongs to {v}", "owned by {v}", "{v} owns it", "property of {v}", "in the hands of {v}", "{v} keeps it", "{v} looks after it", "that {v} feeds", "that {v} raised", "of {v}", "which {v} bought", "living with {v}", "{v} has it at home")),
    *_fields("pet nickname alias ship boat puppy", "person", values.person, _PERSON, ("called {v}", "named {v}", "by the name of {v}", "{v} by name", "known as {v}", "people call it {v}", "it is called {v}", "answers to {v}", "the little one, {v},", "{v} is its name", "we call it {v}", "small {v}", "old {v}", "dear {v}")),
    *_fields("author reporter artist", "person", values.person, _PERSON, ("written by {v}", "{v} wrote it", "by {v}", "from the pen of {v}", "{v} made it", "reported by {v}", "a work of {v}")),
    *_fields("sender", "person", values.person, _PERSON, ("sent by {v}", "from {v}", "{v} sends it", "mailed by {v}", "posted by {v}", "signed {v}", "{v} writes")),
    *_fields("recipient receiver addressee", "person", values.person, _PERSON, ("sent to {v}", "to {v}", "for {v}", "addressed to {v}", "{v} gets it", "{v} will receive it", "goes to {v}", "dear {v}")),
    *_fields("traveller rider visitor guest", "person", values.person, _PERSON, ("{v} travels", "{v} rides along", "{v} is on board", "carrying {v}", "{v} comes along", "{v} flies", "a seat for {v}", "{v} makes the trip", "we expect {v}", "waiting for {v}")),
    *_fields("teacher coach manager boss pilot", "person", values.person, _PERSON, ("led by {v}", "{v} leads", "under {v}", "{v} is in charge", "taught by {v}", "run by {v}", "{v} at the head")),
    *_fields("tenant contact winner", "person", values.person, _PERSON, ("{v} won", "{v} lives there", "ask {v}", "talk to {v}", "turn to {v}", "{v} will help")),
    *_fields("city place town location venue region home station office country village site branch district", "place", values.place, _PLACE),
    *_fields("from origin source start departure", "place", values.place, _PLACE, ("from {v}", "leaving {v}", "starting in {v}", "out of {v}", "coming from {v}", "setting off in {v}", "starts at {v}", "begins in {v}", "away from {v}", "who left {v}", "{v} behind", "boards in {v}", "gets on at {v}", "picked up in {v}", "sets out at {v}", "takes off in {v}", "from the port of {v}", "says goodbye to {v}", "the first stop is {v}", "collected at {v}", "rolls out of {v}")),
    *_fields("to destination target goal arrival", "place", values.place, _PLACE, ("to {v}", "towards {v}", "heading for {v}", "arriving in {v}", "bound for {v}", "ending in {v}", "on the way to {v}", "reaches {v}", "until {v}", "off to {v}", "up to {v}", "down to {v}", "lands in {v}", "gets off at {v}", "the last stop is {v}", "{v} awaits", "{v} is the end of the line", "welcome in {v}", "comes to rest in {v}", "halts in {v}", "dropped in {v}", "makes for {v}", "in {v} it ends")),
    *_fields("age", "number", _whole(1, 99), (*_NUMBER, "{v} years"), ("{v} years old", "aged {v}", "{v} years of age", "turned {v}", "turns {v} today", "is {v} now", "{v} years on earth", "a {v} year old", "{v} candles on the cake", "born {v} years ago", "has seen {v} summers")),
    *_fields("quantity count number pieces units copies", "number", _whole(1, 150), _NUMBER, ("{v} pieces", "{v} of them", "{v} units", "{v} times", "{v} x", "a total of {v}", "{v} items", "{v} copies", "as many as {v}", "a batch of {v}")),
    *_fields("price cost amount total fee fare salary budget rent sum", "number", _whole(1, 9999), _NUMBER, ("{v} euros", "for {v} euros", "{v} dollars", "costs {v}", "priced at {v}", "worth {v} euros", "a bill of {v} euros", "{v} francs", "at {v} dollars", "pays {v} euros", "{v} euros in cash")),
    *_fields("stock available remaining", "number", _whole(0, 300), _NUMBER, ("{v} in stock", "{v} left", "{v} available", "{v} remain", "{v} on the shelf", "still {v} of it", "{v} to spare", "the store holds {v}")),
    *_fields("port", "number", _whole(1, 65535), _NUMBER, ("port {v}", "on port {v}", "its port {v}", "listens on {v}", "through port {v}")),
    *_fields("code error", "number", _whole(100, 999), _NUMBER, ("code {v}", "error {v}", "with code {v}", "answers {v}", "gives {v} as code", "reports {v}")),
    *_fields("guests visitors people attendees seats tickets", "number", _whole(2, 2000), _NUMBER, ("{v} guests", "{v} people", "{v} visitors", "{v} tickets", "{v} seats", "{v} came", "a crowd of {v}", "{v} in the hall")),
    *_fields("pages floor room score points weight height distance duration year rating temperature speed size hours minutes level capacity depth width", "number", values.whole, _NUMBER),
    *_fields("job profession occupation role", "job", values.one_of([*words.JOBS, *listed("judge waiter sailor dentist actor tutor barber clerk miner fisher butcher courier guard porter mason tiler")]), _NOUN, ("works as a {v}", "a {v} by trade", "employed as {v}", "became a {v}", "our {v}", "is a {v}", "earns a living as {v}", "trained as a {v}")),
    *_fields("color colour", "color", values.one_of([*words.COLORS, *listed("violet beige turquoise crimson olive golden ivory cyan magenta bronze")]), ("{v}", "in {v}", "all {v}", "the {v} one", "a {v} one", "painted {v}", "{v} as always"), ("coloured {v}", "in {v} colour", "of {v} color")),
    *_fields("product item article thing", "product", values.thing, _NOUN, ("orders the {v}", "a new {v}", "the {v} from the catalogue", "wants a {v}", "sells the {v}")),
    *_fields("status state condition", "status", values.one_of(listed("online offline down up ready busy open closed pending active idle broken paused failed running stopped healthy degraded unreachable starting late done blocked full empty")), ("{v}", "is {v}", "it is {v}", "looks {v}", "currently {v}", "{v} now", "went {v}", "seems {v}", "has become {v}", "marked as {v}")),
    *_fields("animal species pet_kind", "animal", values.one_of([*words.ANIMALS, *listed("hamster parrot pony lamb goose snake lizard ferret canary donkey calf piglet")]), _NOUN, ("the little {v}", "a {v} by nature", "as {v} among {v}s")),
    *_fields("event occasion", "event", values.one_of(listed("concert workshop lecture market festival race exhibition party wedding seminar auction parade conference match ceremony premiere reunion picnic fair contest")), _NOUN, ("the {v} takes place", "a {v} is held", "hosts a {v}", "invites to the {v}")),
    *_fields("material fabric", "material", values.one_of(listed("wood steel glass cotton wool leather paper stone plastic silk rubber copper brass clay linen bamboo")), ("of {v}", "made of {v}", "in {v}", "{v}", "from {v}", "pure {v}")),
    *_fields("title book song film topic subject", "title", values.title, ("{v}", '"{v}"', "about {v}", "the work {v}", "entitled {v}", "called {v}")),
    *_fields("date due deadline birthday delivery", "date", values.date, _DATE),
    *_fields("day weekday", "day", values.one_of(words.DAYS), ("on {v}", "{v}", "next {v}", "every {v}", "this {v}", "until {v}", "{v} it is")),
    *_fields("month", "month", values.one_of(words.MONTHS), ("in {v}", "{v}", "last {v}", "next {v}", "during {v}")),
    *_fields("time begin end opening", "time", values.time, _TIME),
    *_fields("id number code key reference serial order ticket invoice order_id ticket_id sku version serial_number case file token batch", "code", values.code, _LOOKS),
    *_fields("host server machine node device", "host", lambda rng: rng.choice((made_up(rng).lower(), f"{made_up(rng).lower()}-{rng.randint(1, 99)}", f"{rng.choice(('db', 'web', 'app', 'gpu', 'srv'))}{rng.randint(1, 99)}", values.code(rng))), ("on {v}", "{v}", "from {v}", "at {v}", "host {v}", "machine {v}", "we ask {v}", "over on {v}", "node {v}")),
    *_fields("email mail address", "email", values.email, _LOOKS),
    *_fields("phone telephone mobile", "phone", values.phone, ("call {v}", "{v}", "dial {v}", "reach us under {v}", "tel. {v}", "ring {v}")),
    *_fields("url website link", "url", values.url, _LOOKS),
    *_fields("language", "language", values.one_of(listed("French German Spanish Italian Dutch Greek Polish Swedish Danish Czech Arabic Hindi Turkish Finnish")), ("in {v}", "speaks {v}", "{v}", "written in {v}", "fluent in {v}")),
    *_fields("department team group company", "team", lambda rng: rng.choice((made_up(rng), f"{made_up(rng)} {made_up(rng)}", rng.choice(listed("Sales Finance Support Research Logistics Marketing Legal Security")))), ("of {v}", "at {v}", "the {v} people", "with {v}", "for {v}", "{v}")),
)  # fmt: skip


def invented_field(rng: Random) -> Field:
    """A field with a made-up or unusual key and a value of any class, always told by its name."""
    key = rng.choice(
        (made_up(rng).lower(), rng.choice(values.NOUNS), f"{rng.choice(values.NOUNS)}_{rng.choice(values.NOUNS)}")
    )
    return Field(key, "any", values.anything, (), ())


def some_fields(rng: Random, count: int) -> list[Field]:
    """Fields with different keys."""
    share = rng.choice((0.0, 0.0, 0.1, 0.5, 1.0))
    found: dict[str, Field] = {}
    while len(found) < count:
        field = invented_field(rng) if rng.random() < share else rng.choice(FIELDS)
        found.setdefault(field.key, field)
    return list(found.values())


def _tell(key: str, frames: tuple[str, ...], value: Any, rng: Random) -> str:
    clause = rng.choice(frames)
    while rng.random() < 0.15:
        clause = rng.choice((f"{some_filler(rng)} {clause}", f"{clause} {some_filler(rng)}"))
    # A key of two words is also said as two.
    said = key.replace("_", " ") if rng.random() < 0.7 else key
    return clause.replace("{k}", said).replace("{v}", str(value))


def tell_all(fields: Sequence[Field], told: Mapping[str, Any], rng: Random) -> list[str]:
    """A clause for each field that states its value of `told`, so that each can be told from the others.

    A field whose class no other has may give its value alone; one that shares its cues with another is named.
    """
    kinds, cues = Counter(field.kind for field in fields), Counter(field.cued for field in fields)
    clauses = []
    for field in fields:
        if kinds[field.kind] == 1 and field.kind != "any" and rng.random() < 0.6:
            frames = field.plain
        else:
            frames = (*field.cued, *_NAMED) if cues[field.cued] == 1 else _NAMED
        clauses.append(_tell(field.key, frames, told[field.key], rng))
    return clauses
