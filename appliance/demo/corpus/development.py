"""Wordings to look at while the generator is made better; like the held-out ones they never occur in training.

Whoever reads wrong answers and then changes the generator has trained on them, in a way. So wrong answers are read here,
and the held-out set, which states the model's accuracy, is only counted.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from collections.abc import Iterator
from random import Random

from appliance.demo.corpus.arithmetic import Family, problem
from appliance.demo.corpus.example import PRODUCT, RESULT, Example, Message, dialogue
from appliance.demo.corpus.extraction import extraction_of
from appliance.demo.corpus.product import load_topics
from appliance.demo.corpus.records import RECORDS
from appliance.demo.corpus.toolbox import TOOLS
from appliance.demo.corpus.tools import call_of
from appliance.demo.corpus.words import NAMES

_SENTENCES = {
    "person": ("We hired {name} from {city}, who has been on this planet for {age} years and knows the craft of a {job}.", "Everybody in {city} asks {name} when a {job} is needed, even though {name} is only {age}."),
    "order": ("A parcel holding {quantity} {color} items of the type {product} leaves for {customer} tonight.", "{customer} phoned about the {product}: make that {quantity}, and {color} ones this time."),
    "meeting": ("{person} waits at the station of {place} when the clock strikes {time} this {day}.", "I promised {person} to be in {place} by {time}; it was a {day}, I believe."),
    "contact": ("If the printer smokes again, {name} over in {city} reads whatever arrives at {email}.", "{email} belongs to a colleague whose desk stands in {city}, namely {name}."),
    "trip": ("Since {traveller} hates flying, the bus picks up everybody in {from} on {date} and stops in {to}.", "{to} expects {traveller} on {date}; the boat sets sail in {from}."),
    "goods": ("Only {stock} of our {color} {product} models are on the shelf, yours for {price}.", "For {price} euros you take home a {product}, {color} of course, as long as the {stock} last."),
    "device": ("Since noon {host} tells everyone {code} whenever they knock at {port}, so we call it {status}.", "{status}! That is what {host} became after {code} showed up on {port}."),
    "invoice": ("Accounting still misses {amount} from {customer}; look for {number}, written {date}.", "{number} was printed on {date}, it asks {customer} for {amount}."),
    "pet": ("It took {owner} {age} years to teach the {animal} to listen to the name {pet}.", "Little {pet} has lived through {age} winters, more than any other {animal} that {owner} fed."),
    "event": ("{city} needs {guests} chairs for its {event}, which opens its doors on {date}.", "Nobody expected {guests} at the {event}, least of all on {date} in sleepy {city}."),
}  # fmt: skip
_REQUESTS = (
    "Could somebody turn the next line into JSON? I care about {keys}. {text}",
    "{text} That was the message. Reply with nothing but JSON that has {keys}.",
    "My form has the boxes {keys}. Fill them from what I write now and hand it back in JSON. {text}",
    "I only speak JSON, so tell me the {keys} that way: {text}",
)
_FAMILIES = (
    Family("aquarium", "+", ("{a} {things} were already swimming around before {who} poured {b} extra ones into the water. How many swim there now?",)),
    Family("choir", "+", ("{who} knows {a} songs by heart, {other} knows {b} entirely different ones. How many songs can the two of them sing?",)),
    Family("moths", "-", ("Moths got into the wardrobe and spoiled {b} of the {a} sweaters that {who} owns. How many sweaters can still be worn?",)),
    Family("race", "-", ("The red car drove {a} laps. The blue car gave up {b} laps earlier. How many laps did the blue car manage?",)),
    Family("stairs", "*", ("A tower has {a} floors, and between floors you climb {b} steps. How many steps does {who} climb for all floors?",)),
    Family("ferry", "/", ("{a} cars must cross the lake on {b} ferries that all take equally many. How many cars does a ferry take?",)),
    Family("bus", "+-", ("A bus leaves with {a} people. At the church {b} climb aboard, at the mill {c} get off. How many people ride on?",)),
    Family("orchard", "*-", ("{who} planted {a} rows of {b} trees; deer later nibbled {c} trees to death. How many trees grow on?",)),
)  # fmt: skip
_REQUESTED = {
    "get_weather": ("Should we pack boots for {city}, or is it dry over there?", "{city} tomorrow: sun or rain?"),
    "get_time": ("If I phoned {city} right now, what would their watches say?", "Tell me how late the folks of {city} have it."),
    "add": ("Two amounts on my bill, {a} and {b}. All together?", "Throw {a} and {b} in one pot and count."),
    "multiply": ("A field of {a} by {b}, what is the area?", "{a} crates, {b} in every crate, do the maths."),
    "send_email": ("Let {to} know by mail that this concerns {subject}.", "Compose a mail. Recipient {to}. Headline {subject}."),
    "create_reminder": ("Poke me when it is {time}, because I still have to {task}.", "{task}! But not before {time}, so remind me."),
    "search_documents": ("Is {query} mentioned anywhere in our files?", "Go through the archive for {query}."),
    "get_order_status": ("They promised {order_id} for last week, check that order.", "Did they put {order_id} on the truck yet?"),
    "translate": ("A guest from abroad only speaks {language}; how would I tell them {word}?", "{word} as a {language} speaker would put it, please."),
    "convert_currency": ("I found {amount} {source} in a drawer. What would the bank give me in {target}?", "Express {amount} {source} as {target}."),
    "book_table": ("Our club of {people} is hungry for {day}, {time}: find us a place to sit.", "See whether they have room for {people} at {time} this {day}, and reserve."),
    "play_music": ("The party needs {query}, turn it up!", "My ears want {query} now."),
    "set_temperature": ("Nobody can work at this cold in the {room}, bring it to {degrees}.", "{degrees} in the {room}, then I am happy."),
    "get_user": ("Somebody called {name} says they have an account here, is that so?", "Pull the file on {name}."),
}  # fmt: skip
# What a tool returned in plain words, and which values an answer must hold; `{city}` is an argument of the call. Results of one
# word occur in training, too.
_RESULTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "get_weather": (
        ("bright and 23 C", ("23", "bright")), ("sun all day, 21 celsius", ("21", "sun all day")), ("-4 deg, snowing", ("-4", "snow")), ("gusty 9", ("9", "gusty")),
        ("It is pouring in {city}.", ("pouring",)), ("no station within 50 km", ("no station within 50 km",)), ("18", ("18",)), ("outlook=dull; temp=12", ("12", "dull")),
    ),
    "get_time": (("the clock there says 14:05", ("14:05",)), ("9 am", ("9 am",)), ('"21:40"', ("21:40",))),
    "add": (("makes 4711", ("4711",)), ("[812]", ("812",)), ("overflow", ("overflow",))),
    "send_email": (("sent", ("{to}",)), ("mailbox full", ("mailbox full",)), ("delivered to {to}", ("{to}",))),
    "search_documents": (("we have 7 of them", ("7",)), ("none at all", ("none at all",)), ("31 matches", ("31",))),
    "get_order_status": (("no such order", ("no such order",)), ("on its way", ("on its way",)), ('{{"state": "lost"}}', ("lost",)), ("stuck at customs", ("stuck at customs",))),
    "translate": (("the word is goldo", ("goldo",)), ("belmara", ("belmara",)), ("dictionary missing", ("dictionary missing",))),
    "convert_currency": (("about 345", ("345",)), ("rate limit", ("rate limit",)), ("77.5", ("77.5",))),
    "set_temperature": (("ok", ("{room}", "{degrees}")), ("error: the service is not available", ("the service is not available",))),
    "get_user": (("user no. 8080", ("8080",)), ("nobody by that name", ("nobody by that name",))),
}  # fmt: skip
_QUESTIONS = {
    "what_is_casemate": ("Suppose I knew nothing: how would you sum up Casemate?",),
    "name_meaning": ("That is an odd name, Casemate. Where did you take it from?",),
    "who_is_it_for": ("Whose daily work was Casemate made for?",),
    "license": ("Am I allowed to use it at work, license-wise?",),
    "get_token": ("I have a client id and a secret. What now, to call the API?",),
    "token_lifetime": ("After what time must I fetch a fresh token?",),
    "verify_log": ("Somebody doubts our log. Which command convinces him?",),
    "prompts_stored": ("Do you keep what people type?",),
    "witness": ("Who else signs the log, and to what end?",),
    "quotas": ("Can one team eat up the whole machine?",),
    "air_gap": ("Will it work where no cable leads outside?",),
    "rollback": ("The new release misbehaves, how do I return to the old one?",),
    "import_model": ("I have a checkpoint folder, how does it get into the appliance?",),
    "pickle": ("Would you load a model that comes as a pickle file?",),
    "prefix_cache": ("Two prompts begin alike, is work saved?",),
    "tenant_isolation": ("Could another customer notice from timing what I asked?",),
    "retraction": ("What if the pages run out while requests are being answered?",),
    "eagle3": ("By what method does it draft tokens?",),
    "cpu": ("My laptop has no GPU, can I still try it?",),
    "supervisor": ("What starts all the processes and starts them again?",),
    "auditor_dies": ("Suppose the auditor crashes in the middle of an answer?",),
    "engine_dies": ("And if the engine crashes?",),
    "config_check": ("How do I find out whether my configuration is valid before I start?",),
    "tls": ("Is the traffic to the gateway encrypted?",),
    "run_demo": ("What do I type to see it at work for the first time?",),
    "run_tests": ("How are the tests started?",),
    "streaming": ("Can words arrive one after the other instead of all at the end?",),
    "database": ("Where is the database server that I have to install?",),
    "context_length": ("How many tokens fit into one conversation?",),
}  # fmt: skip


def _products() -> Iterator[Example]:
    topics = load_topics()
    for name, questions in _QUESTIONS.items():
        for question in questions:
            yield dialogue(
                PRODUCT, f"development/{name}", question, topics[name]["answer"], list(topics[name]["facts"])
            )


def _results(rng: Random) -> Iterator[Example]:
    for tool in TOOLS:
        for returned, facts in _RESULTS.get(tool.name, ()):
            for _ in range(3):
                asked = call_of(f"development/result/{tool.name}", tool, tool.asks[0], rng)
                arguments = asked.expected["arguments"]
                expected = [fact.format(**arguments) for fact in facts]
                turns = (Message("tool", returned.format(**arguments)), Message("assistant", ""))
                yield Example(RESULT, asked.family, asked.messages + turns, asked.tools, expected=expected)


def development_examples(seed: int) -> Iterator[Example]:
    """Every wording a few times, with values of its own."""
    rng = Random(seed + 2)
    yield from _products()
    for family in _FAMILIES:
        for _ in range(12):
            yield problem("development", family, rng, lambda: rng.choice(NAMES))
    for record in RECORDS:
        for sentence in _SENTENCES[record.name]:
            for _ in range(5):
                yield extraction_of(f"development/{record.name}", record, sentence, _REQUESTS, rng)
    for tool in TOOLS:
        for template in _REQUESTED[tool.name]:
            for _ in range(4):
                yield call_of(f"development/{tool.name}", tool, template, rng)
    yield from _results(rng)
