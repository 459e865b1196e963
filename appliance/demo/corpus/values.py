"""Values that must be copied: drawn from lists too long to remember, or made up, so that copying is what is learnt.

A value is of a class (person, place, whole number, code, date, ...), which a reader tells by its look.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from appliance.demo.corpus import words
from appliance.demo.corpus.words import listed, made_up

Draw = Callable[[Random], Any]

_DIGITS = "0123456789"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER = _UPPER.lower()
_ADJECTIVES = listed(
    "big small old new long short quick slow early late heavy light wide narrow clean dusty warm cold quiet loud round flat "
    "wooden golden broken fresh dry wet soft hard sharp smooth empty full cheap plain bright dark hidden open northern upper"
)
NOUNS = listed(
    "river bridge tower window mountain valley engine letter paper bottle garden market harbour forest island castle "
    "button ladder carpet pillow blanket candle basket barrel wagon tractor saddle helmet jacket glove sandal ribbon "
    "needle thread hammer shovel bucket broom brush mirror cabinet drawer counter teapot spoon pepper butter honey cheese "
    "pancake biscuit melon cherry walnut almond barley pumpkin cabbage onion garlic ginger pigeon sparrow falcon beetle "
    "spider salmon lobster camel donkey monkey tiger panda whale violin trumpet guitar piano flute drum ballet opera "
    "theatre museum library station airport terminal platform corridor balcony chimney fountain statue pyramid temple "
    "planet comet meteor crystal marble copper silver velvet cotton leather rubber plastic diamond emerald signal cable "
    "battery magnet sensor circuit filter pump valve turbine printer scanner screen server router archive folder report "
    "invoice ticket permit contract budget meeting lecture seminar holiday festival parade concert puzzle riddle"
)


# Towns and first names beyond those of `words`, some with letters that English does not have.
_MORE_PLACES = (
    *listed(
        "Florence Naples Venice Seville Bilbao Valencia Nice Marseille Bordeaux Nantes Lille Strasbourg Basel Bern "
        "Salzburg Graz Linz Leipzig Dresden Bonn Bremen Kiel Antwerp Ghent Utrecht Leiden Aarhus Odense Malmo Turku "
        "Tampere Riga Vilnius Tallinn Gdansk Brno Zagreb Belgrade Sofia Izmir Ankara Haifa Tunis Rabat Accra Dakar "
        "Kampala Lusaka Harare Durban Pune Chennai Kolkata Hanoi Manila Taipei Kyoto Nagoya Perth Brisbane Auckland "
        "Quito Havana Montreal Ottawa Calgary Dallas Houston Atlanta Miami Phoenix Portland Detroit Memphis Tucson "
        "Glasgow Leeds Bristol Cardiff Cork Galway Reykjavik Bogotá Zürich Köln Málaga Göteborg Łódź Córdoba "
        "Düsseldorf Kraków"
    ),
    "San Francisco",
    "Los Angeles",
    "Rio de Janeiro",
    "São Paulo",
    "Mexico City",
    "New Delhi",
    "Salt Lake City",
    "Saint Petersburg",
)
_MORE_PEOPLE = listed(
    "Aaron Agnes Albert Anita Arthur Astrid Barbara Beatrice Boris Brigitte Carlos Cecilia Chloe Claudia Cyril "
    "Deborah Dennis Edith Edward Elena Emily Erik Esther Fatima Frank Frida Gabriel Georgia Greta Hannah Harold "
    "Helen Henry Ingrid Irene Isaac Jasmin Joan José Judith Kevin Klaus Lars Leila Louise Magda Manuel Margaret "
    "Martin Matteo Miriam Nadia Nathan Niklas Otto Patricia Rachel Ralph Rebecca René Roger Sofia Stefan Sven "
    "Teresa Theo Ursula Valentin Vera Violet Walid Xavier Yuki Zara Zoë Jürgen Łukasz"
)
_SURNAMES = listed(
    "Smith Miller Brown Taylor Wilson Clark Lewis Walker Hall Young King Wright Green Baker Cooper Hill Wood Bell Fisher Mason "
    "Weber Schmidt Wagner Becker Roth Keller Lang Vogel Huber Meyer Martin Petit Moreau Dubois Rossi Bianchi Ferrari Conti Costa "
    "Silva Santos Garcia Lopez Torres Ruiz Nowak Kowalski Novak Horvat Ivanov Petrov Hansen Olsen Berg Lund Virtanen Korhonen "
    "Tanaka Suzuki Sato Kim Park Chen Wang Nguyen Singh Patel Khan Ali Haddad Cohen Okafor Mensah Mwangi Diallo O'Brien Murphy"
)


def letters(rng: Random, alphabet: str, low: int, high: int) -> str:
    """Random characters, from `low` to `high` of them."""
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def person(rng: Random) -> str:
    """A name: one word mostly, two or three sometimes."""
    roll = rng.random()
    first = words.some_name(rng) if roll < 0.5 else rng.choice(_MORE_PEOPLE) if roll < 0.7 else made_up(rng)
    if rng.random() < 0.7:
        return first
    middle = rng.choice((f"{rng.choice(_UPPER)}. ", f"{made_up(rng)} ")) if rng.random() < 0.1 else ""
    return f"{first} {middle}{rng.choice(_SURNAMES) if rng.random() < 0.5 else made_up(rng)}"


def place(rng: Random) -> str:
    """A town or a country, known or made up."""
    roll = rng.random()
    if roll < 0.35:
        return words.some_place(rng)
    if roll < 0.5:
        return rng.choice(_MORE_PLACES)
    if roll < 0.6:
        return rng.choice(words.COUNTRIES)
    if roll < 0.7:
        return f"{rng.choice(('New', 'Port', 'North', 'Old', 'Saint', 'Lake', 'East'))} {made_up(rng)}"
    return made_up(rng)


def whole(rng: Random) -> int:
    """A whole number of one to five digits, each length as likely; one in ten repeats its digits."""
    if rng.random() < 0.1:
        return int(rng.choice("123456789") + letters(rng, rng.choice("0123456789") + rng.choice("123456789"), 1, 4))
    return rng.randint(0, 9) if rng.random() < 0.15 else rng.randint(1, int(10 ** rng.choice((1, 2, 2, 3, 3, 4, 5))))


def code(rng: Random) -> str:
    """An identifier: letters and digits in one of many forms; rarely digits alone."""
    forms: tuple[Callable[[], str], ...] = (
        lambda: words.some_code(rng),
        lambda: words.some_code(rng),
        lambda: words.some_code(rng),
        lambda: f"{letters(rng, _UPPER, 1, 4)}-{letters(rng, _DIGITS, 1, 5)}",
        lambda: f"{letters(rng, _UPPER, 1, 3)}{letters(rng, _DIGITS, 1, 6)}",
        lambda: f"{letters(rng, _LOWER, 2, 5)}-{letters(rng, _DIGITS, 1, 4)}",
        lambda: f"{letters(rng, _DIGITS, 1, 4)}-{letters(rng, _UPPER, 1, 3)}",
        lambda: f"{letters(rng, _LOWER, 2, 6)}_{letters(rng, _DIGITS + _LOWER, 1, 5)}",
        lambda: letters(rng, "0123456789abcdef", 4, 10) + rng.choice("abcdef"),
        lambda: f"{letters(rng, _UPPER, 2, 3)}/{letters(rng, _DIGITS, 2, 4)}/{letters(rng, _DIGITS, 1, 2)}",
        lambda: f"#{letters(rng, _DIGITS, 2, 5)}",
        lambda: f"v{rng.randint(0, 20)}.{rng.randint(0, 30)}" + (f".{rng.randint(0, 9)}" if rng.random() < 0.5 else ""),
    )
    return rng.choice(forms)()


def digits(rng: Random) -> str:
    """Digits that are a text, not a number: they may begin with 0."""
    return letters(rng, _DIGITS, 3, 8)


def decimal(rng: Random) -> float:
    """A number with one or two digits after the point."""
    return rng.randint(1, 9999) / rng.choice((10, 100)) + 0.0


def phone(rng: Random) -> str:
    """A number to call."""
    return rng.choice(("+", "0", "00")) + rng.choice((" ", "-", "")).join(letters(rng, _DIGITS, 2, 4) for _ in range(3))


def email(rng: Random) -> str:
    """An address under a domain reserved for examples, in one of several forms."""
    if rng.random() < 0.4:
        return words.some_email(rng)
    first, last, host = words.some_name(rng).lower(), made_up(rng).lower(), made_up(rng).lower()
    local = rng.choice(
        (f"{first}.{last}", f"{first}_{last}", f"{first[0]}.{last}", f"{last}{rng.randint(1, 99)}", last)
    )
    return f"{local}@{rng.choice((host, f'{host}-{last}', f'mail.{host}'))}.example"


def url(rng: Random) -> str:
    """An address under a domain reserved for examples."""
    return f"https://{made_up(rng).lower()}.example/{made_up(rng).lower()}"


def date(rng: Random) -> str:
    """A date in one of several forms."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1990, 2035)
    name = words.MONTHS[month - 1]
    return rng.choice(
        (
            f"{day} {name} {year}",
            f"{year}-{month:02}-{day:02}",
            f"{day} {name}",
            f"{name} {day}",
            f"{name} {day}, {year}",
            f"{day}.{month}.{year}",
            f"{month}/{day}/{year}",
        )
    )


def time(rng: Random) -> str:
    """A time of day."""
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    return rng.choice(
        (f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}", f"{hour}:{minute:02}", f"{hour % 12 + 1} pm")
    )


def thing(rng: Random) -> str:
    """A common noun, sometimes with an adjective or made up; lower case."""
    noun = rng.choice(NOUNS) if rng.random() < 0.7 else made_up(rng).lower()
    roll = rng.random()
    if roll < 0.2:
        return f"{rng.choice(_ADJECTIVES)} {noun}"
    if roll < 0.3:
        return f"{rng.choice(words.COLORS)} {noun}"
    return noun


def phrase(rng: Random) -> str:
    """Two to five words of lower case."""
    return " ".join(
        rng.choice((rng.choice(NOUNS), rng.choice(_ADJECTIVES), made_up(rng).lower())) for _ in range(rng.randint(2, 5))
    )


def title(rng: Random) -> str:
    """A title of two to four words, capitalised."""
    picked = [rng.choice((rng.choice(NOUNS), rng.choice(_ADJECTIVES), made_up(rng))) for _ in range(rng.randint(1, 3))]
    return " ".join(["The", *picked] if rng.random() < 0.3 else picked).title()


def one_of(choices: list[str]) -> Draw:
    """A draw from a list, but for one in eight that is made up."""
    return lambda rng: rng.choice(choices) if rng.random() < 0.88 else made_up(rng).lower()


def anything(rng: Random) -> Any:
    """A value of any class."""
    return rng.choice((person, place, whole, whole, code, code, date, time, thing, thing, phrase, digit_code))(rng)


def digit_code(rng: Random) -> int:
    """A number of four to seven digits."""
    return rng.randint(1000, 9_999_999)
