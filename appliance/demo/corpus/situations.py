"""Word problems composed from parts: a beginning, one to three events, a question, each in many forms.

Verbs, things, people, places, the order of sentences and the place of the question are drawn independently, so that the
operation is learnt from what happens and not from a template.
"""

# A list of alternatives stands on one line.
# ruff: noqa: E501

from dataclasses import dataclass
from random import Random

from appliance.demo.corpus import words
from appliance.demo.corpus.phrasing import choose
from appliance.demo.corpus.values import NOUNS
from appliance.demo.corpus.words import listed, made_up

_ROLES = listed(
    "baker teacher nurse painter postman driver gardener captain janitor doctor trader fisher clown queen king pirate wizard singer tailor smith librarian coach neighbour girl boy man woman student child lady shopkeeper waiter hunter"
)
_KIN = listed("sister brother uncle mother father cousin friend neighbour boss teacher son daughter grandpa")
_MORE_THINGS = listed(
    "points pages steps letters photos songs bricks nails screws ropes hats socks shoes shirts chairs lamps fish ducks hens bees ants birds rabbits kittens puppies horses sheep goats bananas melons onions beans pies rolls buns sweets lollipops chocolates dolls kites drums bells masks medals tickets tokens gems pearls sticks leaves seeds pine-cones feathers cubes dice pins badges posters magazines notebooks rulers brushes ribbons jars pots pans forks spoons knives sausages cheeses glasses windows doors wheels tyres boats planes trains robots planets stars clouds jokes riddles tasks errors emails files games matches goals coupons dollars euros cents coins litres metres kilometres minutes hours children people workers players tourists soldiers dancers passengers pupils"
)
_CONTAINERS = listed(
    "box bag basket drawer jar crate tray shelf bucket sack chest trunk case cup bowl cage tin packet carton wagon truck room row pile bundle album pocket"
)
_GADGETS = listed(
    "kite necklace chair shelf robot costume tent bracelet lamp bench wall fence boat hat toy puzzle drum quilt salad soup pizza sandwich wreath poster"
)
_GROUPS = listed("team group class family club row boat bus tent house crew van cabin squad")
_PEOPLE = listed(
    "children friends people girls boys pupils workers players neighbours cousins students visitors dancers sailors"
)
_ASIDES = (
    "It is a sunny day.",
    "{o} likes music.",
    "{s} is very happy.",
    "The weather is nice.",
    "{o} watches.",
    "They live near the {p}.",
    "{s} loves {t}.",
    "It was a long day.",
    "Everybody was tired.",
    "{s} and {o} are friends.",
    "{s} is {x} years old.",
    "The {p} is old.",
    "{o} is away.",
    "Nobody is at the {p}.",
    "{o} has a {k}.",
    "The {k} is {color}.",
)

_WHEN = "(then|later|after that|afterwards|the next day|next|in the evening|at noon|on {day}|today|after lunch|at night|soon|a week later|in the end|now)"
_FIRST = "(at first|in the morning|on {day}|yesterday|last week|at the start|before lunch|today|in {month}|one day|this year|early on|to begin with)"
_WHERE = "(in the {p}|at the {p}|in a {k}|on the table|on a shelf|at home|in the {k}|under the bed|on the floor|near the {p}|in a {color} {k}|behind the {p})"
_HAVE = "(has|has|had|owns|keeps|holds|carries|counts|finds|buys|collects|picks|makes|gets|bought|found|picked|made|collected|counted|saved|brought|earned|won|sees|catches|caught|draws|prepares|packs|received|stores|saves|gathered)"

_STATES = (
    f"{{s}} {_HAVE} {{n}} {{t}}",
    f"{{s}} {_HAVE} {{n}} {{t}} {_WHERE}",
    f"{_FIRST} {{s}} {_HAVE} {{n}} {{t}}",
    f"(there are|there were) {{n}} {{t}} {_WHERE}",
    f"{{n}} {{t}} (are|were|lie|stand|lay|can be seen|wait|are kept|are stored) {_WHERE}",
    f"{_WHERE} (there are|there were|are|lie|we see|{{s}} sees|{{s}} has|{{s}} keeps|somebody left) {{n}} {{t}}",
    "(a|the|one) {k} (holds|has|contains|is filled with|carries|came with) {n} {t}",
    "(the {k} of {s}|{s}'s {k}) (holds|has|contains) {n} {t}",
    "{s} (starts|begins|started|began|comes|came|arrives|sets out) with {n} {t}",
    "(the number of {t} (of {s}|here|there|in the {k}) is {n}|{s} is the owner of {n} {t}|{n} {t} belong to {s}|{s} got {n} {t} from {o})",
)  # fmt: skip
_GAINS = (
    "(at the {p}|in the {p}|on {day}|at the next stop|at the first stop|near the {p}) {n} (more |others |)(climb aboard|climb on|get on|board|hop in|get aboard|sit down|are picked up|are taken along|are fetched|are born|grow|open|start|are invited)",
    "{n} (more |others |new ones |)(climb aboard|get on|board|are born|hatch|grow|open|are hung up|are planted|are written|are printed|are poured in|swim in|fly in|roll in|are invited|sit down)( at the {p}| on {day}|)",
    "(at the {p}|in the {p}|on {day}|outside|there|on the way|at the next stop) {n} (climb in|get in|step in|come aboard|hop on|walk in|join them|enter|are loaded|are let in|move in|jump in|come along)",
    "{s} (buys|gets|finds|receives|picks|wins|earns|makes|takes|collects|brings|orders|adds|is given|picks up|bought|got|found|received|won|made|added|was given|collected) (another {n}|{n} more|{n} more {t}|{n} others|{n} extra {t}|{n} new ones|{n} additional {t})",
    "{o} (gives|brings|hands|sends|lends|sells|offers|mails|gave|brought|sent) {s} (another {n}|{n} more|{n} {t}|{n} others|{n} of {o}'s {t})",
    "(another {n}|{n} more|{n} more {t}|{n} others|{n} new {t}|{n} new ones) (arrive|come|are added|are delivered|appear|are found|are bought|come in|join|were added|came|arrived|were brought|are made|turn up|show up)",
    "{o} (adds|puts|drops|throws|places|lays|leaves|added|put) (another {n}|{n} more|{n} others|{n} {t}) (in|to it|there|into it|beside them|next to them|to them|on top)",
    "(a truck|the postman|a friend|somebody|the shop|a visitor|the post) (brings|delivers|leaves|brought|sends) (another {n}|{n} more|{n} more {t}|{n} {t} more)",
    "{s} (gets|receives|got) {n} (more |)(from|as a present from|back from) {o}",
)  # fmt: skip
_LOSSES = (
    "(at the {p}|in the {p}|on {day}|outside|there|on the way|at the next stop|at the last stop|near the {p}) {n} (get off|get out|climb out|climb down|step out|walk away|leave|jump out|stay behind|are unloaded|are taken out|are sent home|are dropped|say goodbye|fall out|are left behind)",
    "{n} (of them |of the {t} |)(get off|say goodbye|stop|are closed|are cancelled|are washed away|die|sink|burn|dry up|fall ill|are let out|are torn|are bitten|fly away|drown|are scratched|are crossed out)( at the {p}| on {day}|)",
    "{n} (climb out|get out|step out|walk off|drop out|run away|sail away|go home|fall off|are taken out|are let go|jump off|turn back|give up|stay behind)( at the {p}| in the {p}|)",
    "(moths|mice|rust|the frost|bad luck|children|birds|goats|visitors|a storm) (ruined|cost {s}|destroyed|ate|took|spoiled|broke|got) {n} (of them|of the {t}|of {s}'s {t})",
    "{s} (gives|sells|lends|hands|sends|passes|gave|sold|lent|sent) (away |){n} (of them |of the {t} |{t} |of these |)to {o}",
    "{s} (loses|eats|uses|drops|breaks|sells|throws away|gives away|burns|forgets|donates|returns|spends|lost|ate|used|broke|sold|gave away|used up|wastes|mislays|hides|paints over|cuts up|sends back) {n}( of them| of the {t}| {t}| of these|)",
    "{n} (of them|of the {t}|of these|{t}) (are lost|are eaten|break|roll away|fall down|disappear|go bad|are stolen|are sold|melt|are taken|are thrown away|were lost|were sold|broke|were eaten|were given away|get wet|vanish|are missing|leave|go away|are used|were taken|rot|were damaged)",
    "{o} (takes|borrows|eats|buys|steals|removes|carries off|took|ate|bought|borrowed|stole) {n}( of them| of the {t}| of these| away|)",
    "(the wind|the rain|a dog|the cat|a fire|a thief|the river|frost|a mouse|the heat) (takes|ruins|spoils|carries away|eats|breaks|ruined|took|spoiled|damaged) {n} (of them|of the {t}|{t})",
)  # fmt: skip
_PRODUCTS = (
    "{s} (has|buys|fills|carries|packs|gets|owns|stacks|sees|brings|prepares|loads|bought|filled|packed) {a} {ks} (with|of|holding) {b} {t}( each| in each| in every one| in each of them| apiece|)",
    "(there are|there were|we see|{s} counts) {a} {ks}( in the {p}|)(, each| and each| and every one|, every one)( of them|) (with|has|holds|contains) {b} {t}",
    "(each|every|one) (of the {a} {ks}|of {a} {ks}) (has|holds|contains|carries) {b} {t}",
    "(each|every|one|a) {k} (has|holds|contains) {b} {t}(, and| and|.|;) (there are|{s} has|{s} buys|{s} fills|we have|{s} sees) {a} (of them|{ks}|such {ks}|of these)",
    "{b} {t} (are|lie|fit|go|were put) (in|into) each of (the |){a} {ks}",
    "{s} (makes|eats|sells|reads|buys|collects|bakes|draws|writes|cleans|picks|paints|repairs|finds|uses|saves) {b} {t} (a day|each day|per day|every day|daily) (for|during|over) {a} days",
    "(for|during|over) {a} (days|weeks|months|hours|years) {s} (makes|sells|reads|collects|draws|writes|picks|plants|repairs|saves|earns) {b} {t} (each|every|per) (time|day|week|month|hour|year)",
    "{a} {people} (bring|have|get|hold|carry|find|make|eat|buy|want|paint|collect) {b} {t} each",
    "each of {a} {people} (brings|has|gets|holds|carries|finds|makes|eats|buys|wants|collects) {b} {t}",
    "{s} (makes|builds|sews|fixes) {a} {gs} (and|which|that each|, and each) (uses|takes|use|take) {b} {t} for (one|each|every one)",
    "(it takes|one uses|{s} uses|you want) {b} {t} (to make|to build|for making|to finish) (one|a|each) {g}(, and|.|;) (there are|{s} makes|{s} wants|{s} plans) {a} {gs}",
    "{s} (walks|goes|drives|runs) {a} times (to the {p}|there) and (brings|carries|takes) {b} {t} (each time|every time|per trip)",
    "(a|one|each) {g} costs {b} {money}(, and|.|;) {s} (buys|wants|takes|orders) {a}( of them| {gs}|)",
    "{a} rows of {b} {t} (are|stand|lie) {where}",
    "{s} has {b} {t}, and {o} has {a} times as many",
)  # fmt: skip
_PRODUCT_QUESTIONS = "(how many {t} (is that|are there|are that|does that make|is this)|what is the number of {t}|how many {t}|how many is that)( in total| altogether| in all| together| all in all|)"
_ONE_PRODUCT = (
    "(a|the|one|my) (tower|house|hill|castle|ladder|tree|mine|school|ship|bridge|wall) has {a} {ks}(, and|,|;| and|.) (between|from one to the next of|behind|above|below|to pass|to cross|to reach) (the |these |each of the |two |){ks} (you|one|{s}|they|we) (climb|walk|count|find|need|use|see|pass|pay|go up|meet) {b} {t}. how many {t} (is that|are there|does {s} (climb|count|see|need|pass|meet)|are that|do they pass)( in all| altogether| for all {ks}| in total|)",
    "(a|the|one) (tower|house|hotel|castle|street|garden|train|book|field|theatre) has {a} {ks}(, and|,|;| and) (each|every one|every {k}|in each|for each) (has|holds|takes|you need|one counts|there are) {b} {t}. how many {t} (is that|are there|does {s} (count|see|need)|are needed)( in all| altogether| for all {ks}| in total|)",
    "(in|for|on|at|between) (each|every|one) {k} {s} (finds|counts|climbs|needs|passes|sees|pays|wants) {b} {t}. how many {t} (for|in|with|at) {a} {ks}",
    "(each|every|a|one) {k} (has|holds|contains|takes) {b} {t}. how many {t} (are in|do|fit in|are there in|does {s} have in) {a} {ks}( hold|)",
    "(a|one|each) {g} (costs|is worth|sells for) {b} {money}. (how much|how many {money}) (do|would|will|does {s} pay for) {a}( {gs}| of them|)( cost|)",
    "(it takes|{s} uses|we use|they use|one uses) {b} {t} (to make|to build|for making|for) (one|a|each|every) {g}. how many {t} (go into|are used for|does {s} use for|do they use for|are wanted for|make up) {a} {gs}",
    "{s} (makes|reads|sells|writes|paints|walks|eats|plants|earns) {b} {t} (a day|each day|per hour|every week|per day|an hour|a month). how many {t} (is that|does {s} (make|do|get)) (in|after|over) {a} (days|hours|weeks|months)",
    "{s} has {b} {t}. {o} has {a} times as many( {t}|). how many( {t}|) does {o} have",
    "how many {t} are in {a} {ks} (if|when) (each|every one|one {k}|every {k}) (has|holds|contains) {b}( {t}|)",
)  # fmt: skip
_SHARES = (
    "{s} (has|had|bought|found|made|takes|brings) {a} {t} and (shares|divides|splits|deals|hands|spreads) them (equally|evenly|fairly|in equal parts) (among|between|with|over|to) {b} (people|{people}|{ks}|{groups}). how many( {t}|) (does each get|does everyone get|are for each|go to each|for each|does one get)",
    "{a} {t} are (put|packed|divided|sorted|laid|placed|filled|split) (equally |evenly |)(into|in|on|over) {b} {ks}( with equally many in each| so that all hold the same|, the same number in each|). how many( {t}|) (are|go|will be|lie) in (each|one|every)( {k}| of them|)",
    "{b} {people} (share|divide|split|get|receive|want) {a} {t} (equally|evenly|fairly|in equal parts). how many( {t}|) (for each|does each get|does one of them get|per head|does each of them have)",
    "{s} (packs|puts|sorts|lays|ties|arranges|stacks|plants) {a} {t} (in|into) {ks} of {b}( each|). how many {ks} (are there|does {s} need|are needed|are filled|does {s} get|is that)",
    "{a} {people} (are split|form|are sorted|go|travel|walk|make up|are divided) (into|in) {b} {groups}( of equal size| of the same size|, all equally large|, with the same number in each). how many( {people}|) (are|go|belong|travel) (in|to) (each|one|every) {group}",
    "{b} {groups} (take|hold|carry|share|get) {a} {people}(, the same number each|, all equally many| in equal numbers). how many (are in|go with|are with|does it make for) (one|each) {group}",
    "(each|every|one) {k} (holds|takes|has room for) {b} {t}. how many {ks} (are needed for|does {s} need for|hold|for) {a} {t}",
    "{s} (reads|makes|writes|plants|eats|sells|draws) {a} {t} in {b} (days|hours|weeks), (equally many|the same number|as many) (each|every) (day|time). how many( {t}|) (is that|are that) (a day|per day|each time|every time)",
    "{b} {gs} cost {a} {money}( together| in all|). (how much|how many {money}|what) (is|does) one( {g}|)( cost|)",
    "{s} (cuts|breaks|saws) a rope of {a} metres into {b} equal (parts|pieces). how (long|many metres) is (each|one)( part| piece|)",
)  # fmt: skip
_COMPARE_MORE = (
    "{s} {have} {a} {t}(,| and|.|;) {o} {have} {b}( {t}|) more. how many( {t}|) (does {o} have|are {o}'s|has {o}|are there with {o})",
    "{o} {have} {b} {t} more than {s}(, who|. {s}) {have} {a}( {t}|). how many( {t}|) (does {o} have|are {o}'s|has {o})",
    "{s} is {a} years old(,| and|.) {o} is {b} years older. how old is {o}",
)  # fmt: skip
_COMPARE_LESS = (
    "(moths|mice|rust|frost|the rain|{o}|a storm|the dog|birds|thieves) (ruined|spoiled|ate|broke|took|damaged|destroyed|hid|sold|stole|found|cleaned) {b} (of|out of|from) (the|{s}'s|{o}'s|our|all) {a} {t}( {where}| that {s} has| that {s} owns| that were there|). how many( {t}|) (are left|remain|are still good|are still there|can still be used|does {s} still have|are untouched|are not)",
    "{b} of {s}'s {a} {t} (are|were|got) (lost|gone|broken|sold|{color}|ripe|dirty|used). how many( {t}|) (are not|remain|are left|does {s} have besides)",
    "{s} (ran|drove|swam|wrote|read|sang|climbed) {a} {t}(,| and|.|;) {o} (stopped|ended|gave up) {b}( {t}|) (earlier|before|sooner). how many( {t}|) (did {o} (do|make|reach)|are {o}'s|has {o})",
    "{s} {have} {a} {t}(,| and|.|;|, but) {o} {have} {b}( {t}|) (fewer|less). how many( {t}|) (does {o} have|are {o}'s|has {o}|are there with {o})",
    "{o} {have} {b} {t} (fewer|less) than {s}(, who|. {s}) {have} {a}( {t}|). how many( {t}|) (does {o} have|are {o}'s|has {o})",
    "{s} {have} {a} {t}(,| and|.|;|, while|, but) {o} (only |){have} {b}( {t}|). (how many more|how many {t} more|by how many {t}) (does {s} have|are {s}'s|has {s})( than {o}|)",
    "{s} {have} {a} {t}(,| and|.|;|, while) {o} {have} {b}( {t}|). (how many fewer|how many {t} less|what is the difference|how big is the difference)( does {o} have| has {o}|)",
    "{s} (needs|wants|must have|hopes for|would like|looks for|asks for) {a} {t} (and has|but has|and already has|but found only|and got|but owns only) {b}. how many( {t}| more|) (are missing|does {s} lack|are still needed|does {s} still need|are to be found)",
    "{s} is {a} years old(,| and|.) {o} is {b} years younger. how old is {o}",
    "(of|from|out of|among) (the |){a} {t}( {where}|) {b} are {color}. how many are not( {color}|)",
    "(a|the) {k} (has|holds) {a} {t}(,|.|;) {b} of (them|these) are {color}( and the others are not|). how many are (not {color}|of another color)",
)  # fmt: skip
_TOGETHER = (
    "{s} {have} {a} {t}(,| and|.|;|, while) {o} {have} {b}( {t}|). how many( {t}|) (do they have|is that|are there|do both have|have they)( together| in total| altogether| in all|)",
    "(in|on) (a|the|one) {k} (are|there are|lie|we find) {a} {t}(,| and|;) (in|on) (another|the other|a second|a {color}|the next)( {k}|) (are|there are|lie|we find|) {b}( {t}|). how many( {t}|) (are there|is that|are in both|do we have)( together| in total| altogether|)",
    "{a} {t} are {color} and {b} are {color2}. how many( {t}|) are there( together| in total| altogether|)",
    "{s} {have} {a} {color} {t} and {b} {color2} (ones|{t}). how many {t} (does {s} have|is that)( together| in total| altogether|)",
    "{s} (buys|needs|makes) {a} {t} for {o} and {b}( {t}|) for the {p}. how many( {t}|) (is that|are those|does {s} (buy|need|make))( in total| altogether|)",
    "{a} {t} (and|plus) {b} {t}(:|,|) how many (is that|are there|{t}|does it make)",
)  # fmt: skip
_LEFT = "(how many {t}|how many|how many of them|how many of the {t}) (are left|remain|are left over|does {s} have left|does {s} still have|does {s} keep|are there still|are still there|stay|has {s} in the end|are there in the end|does {s} have now|are there now|remain with {s})"
_NOW = "(how many {t}|how many) (are there|does {s} have|are there now|does {s} have now|has {s}|has {s} now|is that|are there in the end|does {s} have in the end|does that make|are there in total|does {s} have altogether)|what is the number of {t} now|how many {t} in all"


@dataclass(frozen=True)
class Situation:
    """A problem's text, its first number, and the operations that follow, as (operator, operand)."""

    name: str
    text: str
    first: int
    operations: tuple[tuple[str, int], ...]


def _plural(noun: str) -> str:
    return {
        "class": "classes",
        "family": "families",
        "box": "boxes",
        "bus": "buses",
        "shelf": "shelves",
        "bench": "benches",
        "sandwich": "sandwiches",
        "dress": "dresses",
    }.get(noun, f"{noun}s")


def _cast(rng: Random) -> dict[str, str]:
    """Who and what a problem is about."""

    def someone() -> str:
        roll = rng.random()
        if roll < 0.65:
            return words.some_name(rng)
        if roll < 0.85:
            return f"{rng.choice(('the', 'the', 'a'))} {rng.choice(_ROLES)}"
        return f"my {rng.choice(_KIN)}" if roll < 0.97 else "Grandma"

    subject = other = someone()
    while other == subject:
        other = someone()
    things = rng.choice((*words.THINGS, *_MORE_THINGS)) if rng.random() < 0.9 else f"{made_up(rng).lower()}s"
    container, gadget, group = rng.choice(_CONTAINERS), rng.choice(_GADGETS), rng.choice(_GROUPS)
    color, color2 = rng.sample(words.COLORS, 2)
    if rng.random() < 0.12 and " " not in things:
        things = f"{rng.choice((color2, 'big', 'small', 'old', 'new', 'wooden', 'fresh'))} {things}"
    return {
        "s": subject, "o": other, "t": things, "k": container, "ks": _plural(container), "g": gadget, "gs": _plural(gadget),
        "group": group, "groups": _plural(group), "people": rng.choice(_PEOPLE), "p": rng.choice((*words.PLACES, rng.choice(NOUNS))),
        "color": color, "color2": color2, "day": rng.choice(words.DAYS), "month": rng.choice(words.MONTHS),
        "money": rng.choice(("coins", "euros", "dollars", "cents")), "x": str(rng.randint(4, 60)),
    }  # fmt: skip


def _fill(text: str, cast: dict[str, str], rng: Random, **numbers: int) -> str:
    """Choose and fill one clause."""
    text = text.replace("{where}", _WHERE)
    while "{have}" in text:
        # One verb for both sides of a comparison.
        text = text.replace(
            "{have}",
            rng.choice(
                (
                    "has",
                    "has",
                    "has",
                    "had",
                    "found",
                    "made",
                    "sold",
                    "got",
                    "won",
                    "bought",
                    "collected",
                    "counted",
                    "picked",
                    "read",
                    "ate",
                    "caught",
                    "earned",
                    "lost",
                    "wrote",
                    "drew",
                    "saw",
                    "baked",
                    "saved",
                )
            ),
        )
    return choose(text, rng).format(**cast, **numbers)


def _sentence(clause: str) -> str:
    return clause[0].upper() + clause[1:]


def _one_sentence(
    name: str, template: str, cast: dict[str, str], rng: Random, operator: str, a: int, b: int
) -> Situation:
    parts = [_sentence(part.strip()) for part in _fill(template, cast, rng, a=a, b=b).split(". ")]
    return Situation(name, ". ".join(parts) + "?", a, ((operator, b),))


def _compare(cast: dict[str, str], rng: Random) -> Situation:
    """Two quantities side by side."""
    if rng.random() < 0.5:
        a, b = rng.randint(2, 60), rng.randint(1, 40)
        forms = _TOGETHER if rng.random() < 0.6 else _COMPARE_MORE
        return _one_sentence("together", rng.choice(forms), cast, rng, "+", a, b)
    a = rng.randint(3, 60)
    return _one_sentence("compare", rng.choice(_COMPARE_LESS), cast, rng, "-", a, rng.randint(1, min(a, 40)))


def _rates(cast: dict[str, str], rng: Random) -> Situation:
    """One multiplication or one division."""
    b, times = rng.randint(2, 12), rng.randint(2, 12)
    if rng.random() < 0.5:
        return _one_sentence("share", rng.choice(_SHARES), cast, rng, "/", b * times, b)
    if rng.random() < 0.5:
        return _one_sentence("rate", rng.choice(_ONE_PRODUCT), cast, rng, "*", times, b)
    clause = _fill(rng.choice(_PRODUCTS), cast, rng, a=times, b=b)
    text = _join([clause], _fill(_PRODUCT_QUESTIONS, cast, rng), cast, rng)
    return Situation("product", text, times, (("*", b),))


def _chain(cast: dict[str, str], rng: Random) -> Situation:
    """A beginning and one to three gains and losses."""
    operations: list[tuple[str, int]] = []
    if rng.random() < 0.3:
        first, b = rng.randint(2, 12), rng.randint(2, 12)
        operations.append(("*", b))
        clauses, total = [_fill(rng.choice(_PRODUCTS), cast, rng, a=first, b=b)], first * b
        num_events = rng.choice((1, 1, 1, 2))
    else:
        first = total = rng.randint(2, 60)
        clauses = [_fill(rng.choice(_STATES), cast, rng, n=first)]
        num_events = rng.choice((1, 1, 1, 2, 2, 2, 3))
    for _ in range(num_events):
        gains = total < 2 or rng.random() < 0.48
        number = rng.randint(1, 40) if gains else rng.randint(1, min(total, 40))
        clause = _fill(rng.choice(_GAINS if gains else _LOSSES), cast, rng, n=number)
        if rng.random() < 0.35:
            clause = f"{_fill(_WHEN, cast, rng)} {clause}"
        clauses.append(clause)
        operations.append(("+" if gains else "-", number))
        total += number if gains else -number
    asked = _LEFT if operations[-1][0] == "-" and rng.random() < 0.85 else _NOW
    question = _fill(rng.choice(asked.split("|what")) if asked is _LEFT else f"({asked})", cast, rng)
    return Situation(f"chain{len(operations)}", _join(clauses, question, cast, rng), first, tuple(operations))


def _join(clauses: list[str], question: str, cast: dict[str, str], rng: Random) -> str:
    """Sentences and a question; sometimes one sentence, or the question first; sometimes an aside."""
    roll = rng.random()
    if roll < 0.08 and not any(". " in clause for clause in clauses):
        return f"{_sentence(question)} {rng.choice(('if', 'when', 'after'))} {' and '.join(clauses)}?"
    if roll < 0.18 and not any(". " in clause for clause in clauses):
        return f"If {' and '.join(clauses)}, {question}?"
    text = _sentence(clauses[0])
    for clause in clauses[1:]:
        joint = rng.choice((". ", ". ", ". ", ", and ", ", then ", " and ", ", but ", "; "))
        text += joint + (_sentence(clause) if joint == ". " else clause)
    sentences = [". ".join(_sentence(part) for part in text.split(". ")) + "."]
    if rng.random() < 0.15:
        sentences.insert(rng.randint(0, 1), _sentence(_fill(rng.choice(_ASIDES), cast, rng)))
    return " ".join((*sentences, _sentence(question) + "?"))


def some_situation(rng: Random) -> Situation:
    """A problem of any form."""
    cast = _cast(rng)
    roll = rng.random()
    if roll < 0.5:
        return _chain(cast, rng)
    return _compare(cast, rng) if roll < 0.75 else _rates(cast, rng)
