"""Grade-school word problems with worked answers: one to three steps over small numbers, and bare sums.

The worked answer says what is done with each number before it states the equation, and ends with "The answer is N.".
Most problems are composed (`situations`); a family is one situation with its own phrasings, and the families of
`HELD_OUT` are never trained on.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from appliance.demo.corpus.example import ARITHMETIC, Example, dialogue
from appliance.demo.corpus.phrasing import babble, choose, roughen
from appliance.demo.corpus.situations import some_situation
from appliance.demo.corpus.words import COLORS, DAYS, NAMES, PLACES, THINGS, some_name


@dataclass(frozen=True)
class Family:
    """One situation: templates over {who}, {other}, {things}, {a}, {b}, {c}, and the operations that solve it.

    `steps` is a string of operators applied from left to right: "+" is a + b, "*-" is a * b - c.
    """

    name: str
    steps: str
    templates: tuple[str, ...]


TRAINED = (
    Family("buys", "+", (
        "{who} has {a} {things} and (buys|gets|finds|receives|picks) {b} more. How many {things} does {who} have( now| in total| altogether| in all|)?",
        "{who} had {a} {things}. Then {who} (bought|got|found|received|collected) {b} (more|other ones|more {things}). How many {things} does {who} have( now|)?",
        "{who} (owns|has|holds) {a} {things}. {other} gives {who} {b} more. How many (are there|{things} does {who} have)( now|)?",
        "{a} {things} (lie|are|stand) (on the table|in the box|on the shelf). {who} (adds|puts|brings) {b} (more|other ones). How many {things} are (there|on it|in it) now?",
        "On {day} {who} (made|baked|sold|found) {a} {things}, and on {later} {b} more. How many (is that|{things} is that)( in total| altogether|)?",
        "If {who} has {a} {things} and (buys|gets|finds) {b} more, how many {things} (does {who} have|are there)?",
        "(On {day}|In the morning|At noon|First|At first|Yesterday|Before lunch|Last week) {who} (has|had|counts|counted|owned) {a} {things}. (On {later}|In the evening|Later|Then|After that|By night|This week) {b} (more|others|extra ones) (come|came|are added|were added|have arrived|have been bought|have been found). How many {things} (are there|are there now|does {who} have|is that)( now| in total|)?",
        "{who} (keeps|stores|holds) {a} {things} (in the {place}|at home|in a {place}) and (puts|adds|brings) (in |){b} more. How many {things} (are there|does {who} keep)( now|)?",
        "(A|The) (basket|box|bag|drawer|jar) (holds|has|contains) {a} {things}. {who} (puts|adds|drops) {b} more in. (How many|What is the number of) {things} (are in it|does it hold|in it)( now|)?",
        "{a} {things} plus {b} {things}: how many {things} (is that|are there)?",
    )),
    Family("together", "+", (
        "{who} has {a} {things} and {other} has {b}. How many {things} do they have (together|in total|altogether)?",
        "{who} (picked|sold|made|found) {a} {things} and {other} (picked|sold|made|found) {b} {things}. How many {things} (is that|did they have) (together|in total|altogether)?",
        "There are {a} {things} (on the table|in the bag|in a box) and {b} (on the floor|in the basket|on the shelf). How many {things} are there( in total| altogether| in all|)?",
        "(A|The|One) (basket|box|bag|drawer|jar|{place}) (holds|has|contains) {a} {things} (of|from|by) {who} and {b} (of|from|by) {other}. (How many|How many {things}) (does it hold|are there|is that)( in total| together|)?",
        "What is the (total|sum|total number|number) of {things} (if|when) {who} has {a} and {other} has {b}?",
        "{who} and {other} (put|bring|throw) their {things} together: {a} and {b}. (What is the total|How many are there|How many {things} do they have|What is the number of {things})?",
        "{a} {things} (belong to|are owned by|come from) {who}, {b} (belong to|are owned by|come from) {other}. How many (are there|are there in total|{things} are there together)?",
    )),
    Family("gives", "-", (
        "{who} has {a} {things} and (gives|sells|lends|hands) {b} (of them |)to {other}. How many {things} (are left|does {who} have left|remain|does {who} keep)?",
        "{who} had {a} {things}. {who} (lost|ate|sold|used|gave away|dropped|threw away) {b} of them. How many (are left|{things} are left|{things} does {who} still have|remain)?",
        "There were {a} {things} in the (box|bag|basket|shop). {who} took {b}. How many (are|{things} are) (left|still there)?",
        "If {who} has {a} {things} and (loses|eats|sells|uses) {b}, how many (are left|{things} are left|does {who} have left)?",
        "(Of|From|Among) (the |){a} {things} (of {who}|in the {place}|that {who} (has|owns|bought|keeps)), {b} (are|were|got|have been) (broken|lost|sold|eaten|stolen|rotten|{color}|given away|damaged). How many (are left|{things} are left|are still good|remain|are not)?",
        "{b} of (the |){a} {things} (that {who} has|in the {place}|on the table) (are|were) (broken|lost|sold|eaten|damaged|gone|taken). How many (are left|remain|{things} are not|are there still)?",
        "{who} (starts|begins) with {a} {things} and (loses|drops|breaks|hands out|spends) {b}. (How many|How many {things}) (are left|remain|does {who} end with|has {who} in the end)?",
        "{a} {things} minus {b} {things}: how many {things} (is that|are left)?",
    )),
    Family("difference", "-", (
        "{who} has {a} {things} and {other} has {b}. How many more {things} does {who} have( than {other}|)?",
        "{who} needs {a} {things} and has {b}. How many (more |)(are missing|does {who} need)?",
        "{who} read {a} pages and {other} read {b}. How many more pages did {who} read?",
        "{who} has {a} {things}, and {other} has {b} (fewer|less). How many {things} does {other} have?",
        "There are {a} {things} in the shop, and {b} of them are (sold|rotten|old|{color}). How many are not( {color}|)?",
        "{who} (found|picked|made|sold|got|bought) {a} {things}, {other} (found|picked|made|sold|got|bought) {b} (fewer|less). How many {things} did {other} (find|pick|make|sell|get|buy)?",
        "{other} (has|owns|gets) {b} {things} (fewer|less) than {who}, who (has|owns|gets) {a}. How many (has|does) {other}( have| get|)?",
        "{b} fewer than {a} {things}: how many is that?",
    )),
    Family("packs", "*", (
        "{who} (buys|has|fills|carries) {a} (boxes|bags|packs|baskets) with {b} {things} (each|in each). How many {things} (is that|are there|does {who} have)?",
        "There are {a} (boxes|bags|rows|shelves) of {b} {things}( each|). How many {things} are there( in total| altogether| in all|)?",
        "Each (box|bag|pack) holds {b} {things}. How many {things} are in {a} (boxes|bags|packs)?",
        "{who} (makes|eats|sells|reads|buys|collects) {b} {things} (a day|each day|per day|a week|every week). How many {things} (is that|are that) in {a} (days|weeks)?",
        "One of the {things} costs {b} coins. How (much|many coins) do {a} cost?",
        "(Each|Every) (day|week|morning|evening|hour) {who} (makes|bakes|draws|picks|writes|cleans|sells) {b} {things}. How many {things} (has {who} (made|done|got)|is that|are there) (after|in) {a} (days|weeks|mornings|evenings|hours)?",
        "{who} (lays out|fills|sets|puts out|carries) {a} (plates|trays|shelves|tables) with {b} {things} on (each|each one|every one). How many {things} (are there|is that)( in all|)?",
        "{a} (children|friends|people|girls|boys) (have|bring|get|hold) {b} {things} each. How many {things} (do they have|are there|is that)( together| in total|)?",
        "{a} times {b} {things}: how many {things} is that?",
    )),
    Family("shares", "/", (
        "{who} has {a} {things} and (shares|divides|splits) them (equally|evenly) among {b} (friends|children|people). How many (does each get|{things} does each get|does everyone get)?",
        "{a} {things} are (put|packed|divided) (equally |evenly |)into {b} (boxes|bags|baskets). How many (are|{things} are) in each?",
        "{a} {things} are (given|handed out) to {b} (children|classes|teams), each gets (equally many|the same number|as many as the others). How many does (one|each) (child|class|team|) get?",
        "{who} packs {a} {things} in bags of {b}. How many bags (are there|does {who} need|are needed)?",
        "(A|The|Our) (teacher|mother|father|nurse|baker|farmer) (gives|hands|shares|deals) {a} {things} (out |)(to|among|between) {b} (groups|children|teams|classes|tables)(,| and| so that) (each|every one|all) (gets|receives|has|get) (the same|the same number|equally many|as many). How many {things} (does|has) (one|each|every) (group|child|team|class|table)( get| have|)?",
        "{b} (friends|children|teams|people) (share|divide|split) {a} {things} (equally|evenly|fairly). How many (for each|does one get|does each of them get|{things} per head)?",
        "{a} {things} divided (by|among) {b}: how many {things} (each|is that)?",
    )),
    Family("buys_gives", "+-", (
        "{who} has {a} {things}, (buys|gets|finds) {b} more and (gives|sells) {c} to {other}. How many {things} (are left|does {who} have( now|))?",
        "There are {a} {things} in the (shop|kitchen|box). {who} (brings|adds) {b}, and {other} (takes|buys|eats) {c}. How many {things} are (left|there now|in it at the end)?",
        "{who} had {a} {things}. {who} (bought|found|got) {b} more and then (lost|ate|sold|used) {c}. How many (are left|{things} does {who} have now)?",
        "(A|The) (shop|baker|kitchen|library|school|market) (has|opens with|begins with|owns) {a} {things}. (A truck|{who}|A friend|The driver) brings {b} (more|others), (and|then) (people|{other}|children|guests) (buy|take|eat|carry off|use) {c}. How many {things} (are left|are there|remain|does it have)( in the end| at night| now|)?",
        "{who} (starts|begins) with {a} {things}, (gets|finds|adds) {b} and (loses|gives away|spends|drops) {c}. How many {things} (are left|has {who}|remain)( now| in the end|)?",
    )),
    Family("gives_buys", "-+", (
        "{who} has {a} {things}, (gives|sells|lends) {b} to {other} and (buys|gets|finds) {c} more. How many {things} does {who} have( now|)?",
        "{who} had {a} {things}. {who} (lost|ate|sold|used) {b} and then (bought|found|got) {c} more. How many {things} does {who} have now?",
        "{who} (starts|begins) with {a} {things}, (loses|gives away|spends|drops) {b} and (gets|finds|adds) {c}. How many {things} (are there|has {who}|does {who} have)( now| in the end|)?",
        "{who} had {a} {things}, (spent|used|sold) {b} and (found|got|bought) {c}( more|). How many {things} does {who} have( now|)?",
    )),
    Family("packs_gives", "*-", (
        "{who} (buys|has) {a} (boxes|bags|packs) with {b} {things} each and (gives|sells) {c} {things} to {other}. How many {things} (are left|does {who} have left)?",
        "There are {a} (rows|shelves|boxes) of {b} {things}. {who} takes {c}. How many {things} (are left|remain)?",
        "{who} (lays out|fills|sets|carries|has) {a} (plates|trays|baskets|tables|bags) with {b} {things} (on each|in each|each|in every one), (but|and|then) {c} (of them |{things} |)(fall down|are lost|are eaten|break|are taken|get lost). How many {things} (are left|are still there|remain|are there now)?",
        "{a} (children|friends|people) (bring|have) {b} {things} each, and {c} (of them |{things} |)(are eaten|are lost|break|get lost|are sold). How many (are left|{things} remain|are there still)?",
    )),
    Family("packs_more", "*+", (
        "{who} has {a} (boxes|bags|packs) with {b} {things} each and {c} (single|loose|more) {things}. How many {things} does {who} have( in total| altogether|)?",
        "{who} buys {a} (boxes|bags|packs) of {b} {things} and finds {c} more. How many {things} (is that|does {who} have)( in total| altogether|)?",
        "{a} (children|friends|people) (bring|have) {b} {things} each, and {who} (brings|adds|has) {c} more. How many {things} (are there|is that)( in total|)?",
    )),
)  # fmt: skip

HELD_OUT = (
    Family("visitors", "+", (
        "Grandmother has {a} {things} on the table when {who} comes with another {b}. How many {things} lie there now?",
    )),
    Family("two_boxes", "+", (
        "In a red box there are {a} {things}, and in a blue box there are {b}. How many {things} do both boxes hold together?",
    )),
    Family("storm", "-", (
        "{who} had {a} {things} in the garden, but a storm destroyed {b} of them. How many {things} are still there?",
    )),
    Family("team", "-", ("{who} scored {a} points and {other} scored {b} points less. How many points did {other} score?",)),
    Family("cook", "*", (
        "A cook needs {b} {things} for one cake. How many {things} does the cook need for {a} cakes?",
    )),
    Family("seats", "/", (
        "{a} guests sit down at {b} tables, and every table has the same number of guests. How many guests sit at one table?",
    )),
    Family("farm", "+-", (
        "On a farm {who} gathers {a} {things} on the first day and {b} on the second, and then sells {c}. How many {things} does {who} keep?",
    )),
    Family("garage", "*-", (
        "In the garage stand {a} boxes, and in each of them are {b} {things}. {who} throws {c} of the {things} away. How many are left?",
    )),
)  # fmt: skip


def _numbers(steps: str, rng: Random) -> tuple[int, int, int]:
    """Draw operands so that every intermediate result is a whole number from 0 to 120."""
    a, b = rng.randint(2, 30), rng.randint(2, 20)
    if steps[0] == "-":
        a = rng.randint(3, 40)
        b = rng.randint(1, min(a, 20))
    elif steps[0] == "*":
        a, b = rng.randint(2, 10), rng.randint(2, 10)
    elif steps[0] == "/":
        b = rng.randint(2, 10)
        a = b * rng.randint(2, 10)
    first = _apply(steps[0], a, b)
    c = rng.randint(1, max(1, min(first, 20))) if steps[1:] == "-" else rng.randint(1, 20)
    return a, b, c


def _apply(operator: str, left: int, right: int) -> int:
    actions: dict[str, Callable[[], int]] = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left // right,
    }
    return actions[operator]()


_SAID = {"+": "Add {b}", "-": "Take away {b}", "*": "Take it {b} times", "/": "Divide by {b}"}


def _worked(first: int, operations: Iterable[tuple[str, int]]) -> tuple[str, int]:
    """One line of words and equation for each operation, and the final number."""
    result, sentences = first, [f"Start with {first}."]
    for operator, operand in operations:
        after = _apply(operator, result, operand)
        sentences.append(f"{_SAID[operator].format(b=operand)}: {result} {operator} {operand} = {after}.")
        result = after
    sentences.append(f"The answer is {result}.")
    return " ".join(sentences), result


def problem(kind: str, family: Family, rng: Random, names: Callable[[], str], *, noisy: bool = False) -> Example:
    """A problem of one family."""
    a, b, c = _numbers(family.steps, rng)
    who = names()
    other = names()
    while other == who:
        other = names()
    template = choose(rng.choice(family.templates), rng)
    if noisy and rng.random() < 0.35:
        template = babble(template, rng)
    text = template.format(
        who=who,
        other=other,
        things=rng.choice(THINGS),
        a=a,
        b=b,
        c=c,
        place=rng.choice(PLACES),
        day=rng.choice(DAYS[:3]),
        later=rng.choice(DAYS[3:]),
        color=rng.choice(COLORS),
    )
    worked, result = _worked(a, zip(family.steps, (b, c), strict=False))
    return dialogue(ARITHMETIC, f"{kind}/{family.name}", text, worked, result)


def _bare(rng: Random) -> Example:
    """A sum without a story, of up to three numbers."""
    steps = rng.choice("++--**/")
    a, b, _ = _numbers(steps, rng)
    if steps in "+-" and rng.random() < 0.6:
        a, b = sorted((rng.randint(0, 120), rng.randint(0, 99)), reverse=True)
    operations = [(steps, b)]
    word = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[steps]
    text = f"{a} {rng.choice((steps, steps, word))} {b}"
    if steps in "+*" and rng.random() < 0.2:
        c = rng.randint(1, 30)
        operations.append(("+", c))
        text += f" {rng.choice(('+', 'plus'))} {c}"
    question = (
        choose("(What is|How much is|Compute|Calculate|Work out|Tell me|)", rng)
        + f" {text}"
        + rng.choice(("?", "", " ?", " =", "."))
    )
    worked, result = _worked(a, operations)
    return dialogue(ARITHMETIC, "arithmetic/bare", question.strip(), worked, result)


def _composed(rng: Random) -> Example:
    situation = some_situation(rng)
    text = situation.text
    if rng.random() < 0.15:
        text = babble(text, rng)
    worked, result = _worked(situation.first, situation.operations)
    return dialogue(ARITHMETIC, f"arithmetic/{situation.name}", text, worked, result)


def arithmetic_example(rng: Random) -> Example:
    """A training example."""
    roll = rng.random()
    if roll < 0.12:
        return _bare(rng)
    if roll < 0.75:
        example = _composed(rng)
    else:
        example = problem("arithmetic", rng.choice(TRAINED), rng, lambda: some_name(rng), noisy=True)
    question = example.messages[0].content
    if rng.random() < 0.2:
        question = roughen(question, rng)
    return dialogue(ARITHMETIC, example.family, question, example.messages[1].content, example.expected)


def held_out_problems(rng: Random) -> Iterator[Example]:
    """25 problems of each held-out family."""
    for family in HELD_OUT:
        for _ in range(25):
            yield problem("held-out", family, rng, lambda: rng.choice(NAMES))
