"""Short stories of five to seven sentences about an animal or a child, asked for in many ways or as plain text."""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from random import Random

from appliance.demo.corpus.example import STORY, Example, dialogue
from appliance.demo.corpus.phrasing import choose, roughen
from appliance.demo.corpus.words import ANIMALS, COLORS, NAMES

_REQUESTS = (
    "(Tell|Write|Give) me a (short |little |)story( please|).",
    "(Tell|Write) (me |)a (short |little |)story about {hero}.",
    "(Can|Could|Will) you (tell|write) (me |)a (short |little |)story( about {hero}|)?",
    "I (want|would like) (to hear |)a (short |)story( about {hero}|).",
    "(Once upon a time|A story|A story please|Story time!)",
    "Make up a story( about {hero}|).",
)
_BEGINNINGS = (
    "Once upon a time there was {hero} named {name}. {name} lived {place}.",
    "{name} was {hero} who lived {place}. Every morning {name} went for a walk.",
    "There once was {hero} called {name}, who lived {place}.",
)
_EVENTS = (
    'One day {name} found a {color} {thing} near the {spot}. {name} wondered whose it was. So {name} asked the {friend}, and the {friend} said: "It is mine, I lost it yesterday!"',
    'One day it rained, and the {friend} had no place to sleep. {name} saw it near the {spot} and said: "Come in, there is room for two." They sat together and ate {food}.',
    'One day {name} wanted to cross the {spot}, but it was too wide. The {friend} came by and said: "We can build a bridge." They worked all day, and in the evening the bridge was done.',
    "One day {name} heard a sound behind the {spot}. {name} was afraid, but looked all the same. It was only the {friend}, who was looking for a {color} {thing}. They searched together and found it.",
    'One night {name} could not sleep. The {friend} said: "Let us count the stars above the {spot}." They counted until {name} was tired and the moon was high.',
)
_ENDINGS = (
    "From that day on {name} and the {friend} were best friends.",
    "{name} was happy, and so was the {friend}.",
    "That evening {name} learned that it is good to help others.",
    "They laughed and went home before it was dark.",
)
_PLACES = (
    "in a small house by the sea",
    "at the edge of a forest",
    "on a green hill",
    "near an old mill",
    "in a quiet village",
    "under a big oak tree",
)
_SPOTS = ["river", "pond", "garden", "bridge", "gate", "well", "tree", "lake"]
_OBJECTS = ["ball", "hat", "kite", "key", "box", "scarf", "bell", "ring", "book", "lamp"]
_FOODS = ("bread and honey", "warm soup", "apples and nuts", "cake", "pancakes")


def story_example(rng: Random) -> Example:
    """A story, two thirds of the time as an answer to a request."""
    hero_word = rng.choice(ANIMALS)
    kind = rng.choice(("a little", "a brave", "a young", "a clever", "a shy", "a"))
    hero = f"{kind} {hero_word}" if kind != "a" else ("an owl" if hero_word == "owl" else f"a {hero_word}")
    if rng.random() < 0.2:
        hero_word = rng.choice(("girl", "boy"))
        hero = f"a {hero_word}"
    friend = rng.choice([animal for animal in ANIMALS if animal != hero_word])
    values = {
        "hero": hero,
        "name": rng.choice(NAMES),
        "place": rng.choice(_PLACES),
        "friend": friend,
        "color": rng.choice(COLORS),
        "thing": rng.choice(_OBJECTS),
        "spot": rng.choice(_SPOTS),
        "food": rng.choice(_FOODS),
    }
    story = " ".join(rng.choice(part) for part in (_BEGINNINGS, _EVENTS, _ENDINGS)).format(**values)
    if rng.random() < 0.25:
        return Example(STORY, "story/plain", text=story)
    request = roughen(choose(rng.choice(_REQUESTS), rng).format(hero=hero), rng)
    return dialogue(STORY, "story/asked", request, story)
