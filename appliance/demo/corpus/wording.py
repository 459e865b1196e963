"""How extraction is asked for: requests composed from parts, so that no wording is the only one.

A request names the keys and carries the text, before, after or between its words.
"""

# A list of alternatives stands on one line.
# ruff: noqa: E501

from collections.abc import Callable
from random import Random

from appliance.demo.corpus.phrasing import babble, choose, some_remark
from appliance.demo.corpus.rewording import reword

_VERBS = "(extract|get|give me|return|find|list|write|output|report|collect|pull out|read off|pick out|take|fetch|show|show me|note down|tell me|send me|print|produce|fill in|provide|identify|gather|name|state|deliver|supply|spell out|hand me|look up|capture|record|parse)"
_POLITE = "(|||Please |please |Could you |Can you |Would you please |I want you to |You should |Kindly |Now |Next, |Your task: |Task: )"
_KEYS = "({keys}|{keys}|{keys}|the {keys}|the fields {keys}|the keys {keys}|these fields: {keys}|the following: {keys}|the values of {keys}|the values for {keys}|its {keys}|fields {keys}|only {keys}|just {keys}|everything about {keys}|what it says on {keys}|the entries {keys}|the properties {keys}|the attributes {keys}|these: {keys})"
_FORM = "(as JSON|in JSON|as a JSON object|into JSON|in JSON format|as one JSON object|in the form of JSON|using JSON|to JSON|as valid JSON|formatted as JSON|as an object|as plain JSON|(JSON)|with JSON syntax|for a JSON file|like JSON)"
_SOURCE = "(from this text|from the text|from this|from this sentence|from the following text|in this message|out of the note|from the message below|from what follows|in the following line|from that|given this text|in these lines|based on this text|for this text|from the words below|found in the sentence|according to this|of this|here|from our mail|from the entry|from this report)"
_LABEL = "(Text|Message|Input|Sentence|Note|Line|Content|Document|Entry|The text|The message|Mail|Source|It says|It reads|Here it is|We got this)"
_ASIDE = "(| Nothing else.| Only the JSON.| No explanation.| Use these keys.| Thanks.| Be exact.| JSON only.| Answer with JSON.| Do not add anything.| Keep the order.| That is all.| Reply in JSON.)"
_OBJECTS = (
    "(a JSON object|JSON|one JSON object|an object in JSON|a JSON record|a JSON document|the JSON|some JSON|an object)"
)
_WITH = "(with|with the keys|with the fields|that has|having|of|containing|for|made of|which contains|that lists|listing|holding only|consisting of)"
_MAKE = "(Make|Build|Create|Write|Give me|Return|Produce|Output|Form|Compose|Send|I need|I want|We need|I would like|Prepare|Generate|Print|Let me have|Show me|Reply with|Answer with|Respond with)"
_ASK = "(What is|What are|Which are|Tell me|Do you see|Can you tell|I ask for|I wonder about|We look for|I am looking for|Say|Name|Let me know)"

_HAVE = "(I have|My program has|There is|There are|Our table has|We use|The page shows|My sheet needs|The boss wants|This form has|Here are|Our database knows|You get) (a form with|a table with|the columns|slots for|a list of|some cells|lines for|a card with|the blanks|keys|spaces called|entries named|an empty record with)"
_FILL = "(Complete|Populate|Put|Enter|Load|Supply|Take|Set|Type|Insert|Copy|Place|Add|Finish|Provide) (them|these|it|all|everything|the values|what is missing|each) (from|using|by|with|according to|out of) (the next line|this|what is written|my words|what I say|what follows|the note)( and| and then|, then|;) (answer|send it back|give it to me|return it|reply|pass it on|hand it over|show it) (as|in) (JSON|a JSON object|JSON format)"
_CLOSING = "(That was it|So much for the news|This is what I got|This came today|Such is the text|So it says|End of message|That is the whole text|Thus they wrote|These were the words)."
_WISH = "(I can only read|I only know|We only accept|My tool understands|Our system wants|I understand only|Somebody asked for|It would help to have|Is it possible to have|Would somebody write|My program eats|Let us have)"
_INTEREST = "(I care about|I am interested in|what matters is|we are after|it should tell|my interest is in|important are|I look at|I miss|it has to name)"

_SHAPES = (
    f"{_POLITE}{_VERBS} {_KEYS} {_FORM} {_SOURCE}(:|.|,| -|) {{text}}{_ASIDE}",
    f"{_POLITE}{_VERBS} {_KEYS} {_SOURCE} {_FORM}(:|.|,|) {{text}}{_ASIDE}",
    f"{_POLITE}{_VERBS} {_KEYS} {_FORM}(:|.|,|) {{text}}{_ASIDE}",
    f"{_POLITE}{_VERBS} {_KEYS} {_FORM}.{_ASIDE} {_LABEL}: {{text}}",
    f"{_MAKE} {_OBJECTS} {_WITH} {_KEYS} {_SOURCE}(:|.|) {{text}}{_ASIDE}",
    f"{_MAKE} {_OBJECTS} {_WITH} {_KEYS}(:|.|,|) {{text}}{_ASIDE}",
    f"{_MAKE} {_OBJECTS} {_WITH} {_KEYS}.{_ASIDE} {_LABEL}: {{text}}",
    f"{{text}}(| |.) {_POLITE}{_VERBS} {_KEYS} {_FORM}.",
    f"{{text}}(| ->| /|.|\n|\n\n) {_MAKE} {_OBJECTS} {_WITH} {_KEYS}.{_ASIDE}",
    f"{_LABEL}: {{text}}(|\n) {_POLITE}{_VERBS} {_KEYS} {_FORM}.",
    f"{_LABEL}: {{text}}(|\n) (JSON|Keys|Fields|Wanted|Object|Output)(| keys| fields| wanted): {{keys}}",
    f"{_ASK} {_KEYS} {_SOURCE}(?|:|.) {{text}}(| Answer in JSON.| As JSON.| In JSON please.| Reply with a JSON object.| Use a JSON object.| Respond in JSON.)",
    f"{_ASK} {_KEYS} {_SOURCE}(?|.)( Answer| Reply| Respond| Put it| Write it) {_FORM}(.|:) {{text}}",
    f"{{text}}(|.) {_ASK} {_KEYS}(?|.) {_MAKE} {_OBJECTS}.",
    "(JSON|json)(| please|,|:) {keys}(:|.| from) {text}",
    f"{{keys}} {_FORM}(:|.|,|) {{text}}",
    f"(Fields|Keys|Wanted|Schema): {{keys}}(.|\n|;|) {_LABEL}: {{text}}{_ASIDE}",
    f"{_POLITE}(read|look at|take|consider|go through|study|see|check|use) (this|the following|the text|this line|what comes|the message)(:|.|,|) {{text}}(.|) (Then |And |After that |)({_VERBS}) {_KEYS} {_FORM}.",
    f"(Turn|Convert|Change|Transform|Bring|Translate|Put|Parse|Map) (this|the text|the following|the sentence|it) (into|to) {_OBJECTS} {_WITH} {_KEYS}(:|.|) {{text}}{_ASIDE}",
    f"{_KEYS}(:|?| -) {{text}} (JSON|As JSON|Answer in JSON|Object){_ASIDE}",
    f"{_HAVE} {{keys}}. {_FILL}(:|.|) {{text}}{_ASIDE}",
    f"{_FILL}. {_HAVE} {{keys}}. {{text}}",
    f"{_HAVE} {{keys}}. {_LABEL}: {{text}}. {_FILL}.",
    f"{{text}}(| |.) {_CLOSING} {_MAKE} (nothing but|only|just|) {_OBJECTS} {_WITH} {_KEYS}.",
    f"{_WISH} {_KEYS} {_FORM}(.|:|) {{text}}{_ASIDE}",
    f"{_WISH} {_OBJECTS}(. |: |, ){_INTEREST} {_KEYS}(.|:) {{text}}",
    f"(Someone|A friend|A customer|My boss|The office|A colleague) (wrote|said|sent|left|noted)(:|) {{text}}(|.) (Now|So|Well|Then|Here) {_VERBS} {_KEYS} {_FORM}(.|, please.|)",
    f"{{text}}(|.) (How does this look|How would this read|What does this give|How do you write this|What becomes of this) {_FORM}(,|) {_WITH} {_KEYS}?",
    f"(Given|With|Having|Seeing|Reading) (the|this|a) (text|message|sentence|line|note)(:|,|) {{text}}(,|.|) {_VERBS} {_KEYS} {_FORM}.",
    f"(You are|Act as|Play|Be) (a parser|a clerk|a form|a program|an assistant|a scanner) (that|which|and) (reads texts|reads a text|fills forms|knows JSON)(.|;) {_KEYS}(:|.) {{text}}{_ASIDE}",
    f"(Input|Text|In)(:|=) {{text}}\n(Output|Out|Result|Answer)(:|) {_OBJECTS} {_WITH} {_KEYS}(.|)",
    "(Input|Text|In)(:|=) {text}\n(Fill|Complete|Use|Return)(:|) {keys}",
    f"(Which|What) {{keys}} (do you find|can be found|are named|are told|do you read|can you see) (here|in it|in this|below)(?|:) {{text}} {_MAKE} {_OBJECTS}.",
    f"(The|My|Our) (table|database|program|form|sheet|script|server) (needs|wants|asks for|takes|expects|has room for) {_KEYS}(;|.|,) {_FORM}(:|.|,|) {{text}}",
    f"(I am|We are) (filling|making|building|keeping|writing) (a table|a list|a file|a form) {_WITH} {_KEYS}(.|:|;) (Help me with|Do|Read|Take|Here is) (this line|this|the next one|one)(:|.) {{text}}(| As JSON.| In JSON.| JSON please.)",
    f"{_LABEL}: {{text}}(|\n) {_FILL}: {{keys}}",
    f"(Let us|We will|I will|You may) (see|try|do|test) (this|one|it)(:|.|,) {{text}}(|.) {_KEYS} {_FORM}(, please|)(.|)",
    f"{_KEYS} (are|is) (all|what|everything) (I need|that counts|we keep|we want)(.|;|,) {_FORM}(:|.|,) {{text}}",
)  # fmt: skip


def _listed(keys: list[str], rng: Random) -> str:
    """The keys as a person would list them."""
    mark = rng.choice(("", "", "", "", '"', "`", "'"))
    marked = [f"{mark}{key}{mark}" for key in keys]
    forms: tuple[Callable[[], str], ...] = (
        lambda: ", ".join(marked),
        lambda: ", ".join(marked),
        lambda: " and ".join((", ".join(marked[:-1]), marked[-1])),
        lambda: " and ".join((", ".join(marked[:-1]), marked[-1])),
        lambda: " and ".join((", ".join(marked[:-1]), marked[-1])),
        lambda: ", and ".join((", ".join(marked[:-1]), marked[-1])),
        lambda: " and ".join(marked),
        lambda: " / ".join(marked),
        lambda: "; ".join(marked),
        lambda: " ".join(marked),
        lambda: "\n" + "\n".join(f"- {key}" for key in marked) + "\n",
        lambda: "[" + ", ".join(marked) + "]",
        lambda: "{" + ", ".join(marked) + "}",
        lambda: "(" + ", ".join(marked) + ")",
        lambda: ", ".join(f"the {key}" for key in marked),
        lambda: "{" + ", ".join(f'"{key}": ""' for key in keys) + "}",
        lambda: "{" + ", ".join(f'"{key}": ...' for key in keys) + "}",
        lambda: ", ".join(f"({place}) {key}" for place, key in enumerate(keys, 1)),
    )
    return marked[0] if len(marked) == 1 else rng.choice(forms)()


def _quoted(text: str, rng: Random) -> str:
    """The text, sometimes set apart."""
    if rng.random() < 0.75:
        return text
    return rng.choice(
        ('"{}"', "'{}'", "\n{}", "\n\n{}\n", "<<{}>>", '"""{}"""', "<text>{}</text>", "\n> {}", "[{}]")
    ).format(text)


def ask_for(keys: list[str], text: str, rng: Random) -> str:
    """A request for `keys` of `text`."""
    request = choose(rng.choice(_SHAPES), rng, keep_lines=True)
    if rng.random() < 0.3:
        request = reword(request, rng, 0.3)
    if rng.random() < 0.15:
        request = f"{some_remark(rng)} {request}"
    if rng.random() < 0.35:
        request = babble(request, rng)
    roll = rng.random()
    if roll < 0.1:
        request = request.lower()
    elif roll < 0.7:
        request = request[0].upper() + request[1:]
    return request.replace("{keys}", _listed(keys, rng), 1).replace("{text}", _quoted(text, rng), 1)
