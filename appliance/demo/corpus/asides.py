"""What stands around a statement and does not matter: half sentences and sentences without any value to extract."""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from random import Random

from appliance.demo.corpus.phrasing import choose
from appliance.demo.corpus.words import listed

# Neither an article nor an animal, a job or a place of the records: what stands beside the text must not be an answer.
_NOUNS = listed(
    "roof gate moon sun rain snow storm wall floor ceiling stairs road lawn news wind fog noise smoke silence weather lake song "
    "dream story joke rumour secret truth past future morning evening night summer winter mess end start rest half"
)
_WHO = "(nobody|everybody|somebody|the boss|my neighbour|half the village|the whole team|a stranger|the old man|the crowd|she|he|it)"
_DOES = "(hates flying|likes noise|was asleep|forgot the keys|lost the map|works today|came late|sings loudly|wants to know|has no time|is on holiday|fears the {noun}|watches the {noun}|waits for the {noun}|hates the {noun}|is afraid of the {noun}|dreams of the {noun}|talks about the {noun}|wrote it down|told us so|left early|laughed|has a cold|fears the sea|cannot read|pays well|talks a lot)"
_SENTENCES = (
    f"{_WHO} {_DOES}.",
    "(the {noun} is (old|bad|new|gone|near|here|over)|it rains|the coffee is cold|we are late|this is urgent|read this|what a day|no news else|all is well|the phone rang|the door is open|I am tired|that is all|more later|listen).",
)
_BEFORE = f"(since|because|although|while|when|after|before|if|though|as|now that|even if) {_WHO} {_DOES},"
_BETWEEN = "(as we know|I believe|by the way|so they say|to be sure|it seems|of course|if you ask me|I am told|no doubt|as always|believe it or not|to my surprise|in the end|once more|frankly)"
_AFTER = f"(, (although|because|since|while|as|but|and|so|even though|whatever) {_WHO} {_DOES}|, {_BETWEEN})"


def some_aside(rng: Random) -> str:
    """A sentence without a value."""
    said = _choose(rng.choice(_SENTENCES), rng)
    return said[0].upper() + said[1:]


def surround(text: str, rng: Random) -> str:
    """The text after a half sentence, before one, or beside whole ones; places of values stay."""
    bare = text.rstrip(".!")
    roll = rng.random()
    if roll < 0.25:
        before = _choose(_BEFORE, rng)
        return f"{before[0].upper()}{before[1:]} {text[0].lower()}{text[1:]}"
    if roll < 0.45:
        return f"{bare}{_choose(_AFTER, rng)}."
    if roll < 0.6:
        before = _choose(_BETWEEN, rng)
        return f"{before[0].upper()}{before[1:]}, {text[0].lower()}{text[1:]}"
    aside = some_aside(rng)
    return f"{aside} {text}" if roll < 0.8 else f"{text} {aside}"


def _choose(template: str, rng: Random) -> str:
    return choose(template, rng).replace("{noun}", rng.choice(_NOUNS))
