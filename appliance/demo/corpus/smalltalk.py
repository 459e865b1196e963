"""Greetings, thanks, and the honest "I do not know" for whatever the model was not made for."""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from random import Random

from appliance.demo.corpus.example import SMALLTALK, Example, dialogue
from appliance.demo.corpus.phrasing import choose, roughen
from appliance.demo.corpus.values import thing
from appliance.demo.corpus.words import COUNTRIES, listed, some_name, some_place

UNKNOWN = "I do not know. I am a small demo model: I can answer questions about Casemate, solve small word problems, extract JSON, call tools and tell short stories."

_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("(Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Hi there|Hello there|Greetings)(!|.|)", "hello", "hi", "hey"), "Hello! How can I help you?"),
    (("(Thank you|Thanks|Many thanks|Thanks a lot|Thank you very much|Great, thanks|thx)(!|.|)", "That (helped|was helpful)(, thanks|)."), "You are welcome."),
    (("(Bye|Goodbye|See you|Good night|See you later|Have a nice day)(!|.|)",), "Goodbye!"),
    (("How are you( today|)?", "How (is it going|do you do|are things)?", "Are you well?"), "I am well, thank you. How can I help you?"),
    (("(Ok|Okay|Good|Great|Fine|Nice|Cool|I see|Understood|Perfect)(!|.|)",), "Is there anything else that I can help you with?"),
    (("(You are wrong|That is wrong|This is not right|That is not correct)(!|.|)",), "I am sorry. I am a small demo model and make mistakes."),
    (("(Test|Testing|test 1 2 3|ping)(.|)",), "It works. How can I help you?"),
)  # fmt: skip
_OFF_TOPIC = (
    "What is the capital of {country}?",
    "Who is the (president|king|prime minister|queen) of {country}?",
    "What is the weather (like |)in {place}( today| tomorrow|)?",
    "Who (won|will win) the (game|match|world cup|election)( yesterday| this year|)?",
    "(Write|Make|Compose) (me |)a poem( about {place}|).",
    "Translate (this|a sentence|my letter) into (French|German|Spanish|Chinese).",
    "What is (quantum physics|photosynthesis|gravity|a black hole|the meaning of life|democracy|DNA|inflation)?",
    "How do I (bake a cake|fix a bicycle|learn the piano|cook rice|lose weight|plant a tree)?",
    "When was {name} born?",
    "Who (is|was) {name}?",
    "What is the (price|value) of (gold|oil|bread|a house)( today|)?",
    "(What|Which) (movie|book|song|film) (should I|can you) (watch|read|recommend|hear)?",
    "How (far|big|old|high) is (the moon|the sun|the sea|{place}|{country})?",
    "(Write|Give me) (a program|some code|a function|a script) (in Python|in Java|that sorts a list).",
    "Why is the (sky blue|grass green|sea salty)?",
    "What (day|time|year) is it( today| now|)?",
    "How many people live in {place}?",
)
_ANY_TOPIC = (
    "(What|Who) (is|was) (the |a |){noun}( of {place}| of {name}| in {place}|)?",
    "(Where|When|Why) (is|was|did|does|are) (the |a |){noun}( {verb}| in {place}|)?",
    "(How|Why) (do|does|can|should) (I|one|people|you|we) {verb} (a|the|my) {noun}( in {place}| with a {other}|)?",
    "(Tell me|Explain|Describe|Say something) (about |)(the |a |){noun}( and the {other}| in {place}|).",
    "(Do you know|Have you seen|Do you like|Can you {verb}|Will you {verb}) (the|a|my|any) {noun}?",
    "(Which|What) {noun} (is|should I {verb}|do you {verb}|did {name} {verb})( in {place}|)?",
    "(I need|I want|Give me|Help me with|Recommend) (a|the|some) {noun}( for {name}| in {place}|).",
    "{verb} (the|a|my) {noun}( for {name}|)",
    "(How old|How far|How large|How heavy|How expensive) is (the|a) {noun}( in {place}|)?",
)
_DOINGS = listed(
    "paint repair clean cook draw sing dance climb fly drive grow cut build sew wash feed hunt catch throw sell buy ride"
)


def smalltalk_example(rng: Random) -> Example:
    """A turn of small talk, or a question that the model cannot answer."""
    if rng.random() < 0.5:
        asks, answer = rng.choice(_TALK)
        return dialogue(SMALLTALK, "smalltalk/talk", roughen(choose(rng.choice(asks), rng), rng) or "hello", answer)
    question = choose(rng.choice(_OFF_TOPIC if rng.random() < 0.5 else _ANY_TOPIC), rng).format(
        country=rng.choice(COUNTRIES),
        place=some_place(rng),
        name=some_name(rng),
        noun=thing(rng),
        other=thing(rng),
        verb=rng.choice(_DOINGS),
    )
    return dialogue(SMALLTALK, "smalltalk/unknown", roughen(question, rng), UNKNOWN)
