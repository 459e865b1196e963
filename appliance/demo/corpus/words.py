"""Words that the templates draw from: common first names, places, things; and made-up values that must be copied.

Made-up words exist so that a model learns to copy what stands in the prompt instead of what it has seen before. They
come from syllables or from single letters, and name nobody.
"""

from random import Random


def listed(text: str) -> list[str]:
    """The words of a text, as a list."""
    return text.split()


NAMES = listed(
    "Anna Ben Carla David Emma Felix Grace Hugo Ida Jack Karin Leo Mia Nora Oscar Paula Quinn Rosa Sam "
    "Tina Uma Victor Wendy Yusuf Zoe Adam Bella Chen Diana Elias Fiona George Hana Ivan Julia Kofi Lena "
    "Mark Nina Omar Priya Ravi Sara Tom Lucas Maria Peter Laura Simon Olivia Noah Ella Max Clara Ali "
    "Amina Daniel Eva Finn Lucy Paul Ruth Tobias Alice Bob James John Kate Linda Mary Nick Robert Susan "
    "Thomas Walter Yara Jonas Marta Pedro Aisha Bruno Celia Dora Emil"
)
CITIES = [
    *listed(
        "Paris Berlin London Madrid Rome Vienna Oslo Lisbon Prague Dublin Athens Cairo Lima Tokyo Delhi "
        "Boston Chicago Zurich Munich Milan Seoul Toronto Sydney Nairobi Lagos Bogota Hamburg Porto Krakow "
        "Geneva Lyon Turin Bergen Helsinki Warsaw Budapest Stockholm Copenhagen Amsterdam Brussels Karlsruhe "
        "Heidelberg Seattle Denver Austin Osaka Mumbai Bangkok"
    ),
    "New York",
    "Cape Town",
    "Buenos Aires",
    "San Diego",
    "Hong Kong",
    "Tel Aviv",
]
COUNTRIES = listed(
    "France Germany Spain Italy Norway Portugal Ireland Greece Egypt Peru Japan India Canada Kenya Brazil "
    "Mexico Poland Austria Sweden Denmark Finland Chile Ghana Turkey"
)
JOBS = listed(
    "teacher nurse baker engineer doctor farmer pilot painter lawyer driver cook carpenter gardener "
    "plumber librarian chemist architect singer writer tailor"
)
COLORS = listed("red blue green yellow black white orange purple brown pink grey silver")
THINGS = listed(
    "apples pears oranges plums lemons books pencils marbles stamps coins cards stickers shells buttons "
    "balloons candles cookies muffins eggs flowers tulips roses stones toys cars balls cups plates "
    "bottles boxes carrots potatoes tomatoes peaches cherries beads keys pens crayons nuts"
)
PRODUCTS = listed(
    "laptop phone chair table lamp desk jacket bicycle camera printer monitor keyboard mouse backpack "
    "watch kettle toaster sofa mirror drill hammer ladder tent clock router"
)
PLACES = listed(
    "cellar kitchen garden shop school garage attic barn cupboard drawer basket house room yard office market"
)
MONTHS = listed("January February March April May June July August September October November December")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
FOODS = listed("pizza soup salad pasta bread rice cake cheese curry pancakes sushi stew omelette noodles")
ANIMALS = listed("cat dog rabbit horse bird mouse fox bear duck goat owl hedgehog squirrel turtle")

_ONSETS = listed("b br c ch d dr f g gr h j k kl l m n p pl r s sp st t tr v w z")
_VOWELS = listed("a e i o u ai ea oo")
_CODAS = ["", "", "n", "r", "l", "s", "m", "t", "x", "nd", "rk", "sk"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def made_up(rng: Random) -> str:
    """A capitalised made-up word of two or three syllables, or sometimes of random letters."""
    if rng.random() < 0.15:
        return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(3, 5))).capitalize()
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((2, 2, 3))))
    return "".join(syllables).capitalize()


def some_name(rng: Random) -> str:
    """A first name: mostly a common one, sometimes made up."""
    return rng.choice(NAMES) if rng.random() < 0.85 else made_up(rng)


def some_place(rng: Random) -> str:
    """A town: a known or a made-up one."""
    return rng.choice(CITIES) if rng.random() < 0.75 else made_up(rng)


def some_code(rng: Random) -> str:
    """An identifier such as `KX-4821` or `b7d2`."""
    form = rng.randrange(3)
    if form == 0:
        return "".join(rng.choice(_LETTERS).upper() for _ in range(2)) + "-" + str(rng.randint(100, 9999))
    if form == 1:
        return "".join(rng.choice("0123456789abcdef") for _ in range(4))
    return rng.choice(_LETTERS).upper() + str(rng.randint(10, 9999))


def some_email(rng: Random) -> str:
    """An address under a domain reserved for examples."""
    return f"{some_name(rng).lower()}@{made_up(rng).lower()}.example"


def some_date(rng: Random) -> str:
    """A date such as `14 March 2024` or `2024-03-14`."""
    if rng.random() < 0.5:
        return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1990, 2030)}"
    return f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def some_time(rng: Random) -> str:
    """A time of day such as `14:30`."""
    return f"{rng.randint(0, 23):02}:{rng.choice((0, 15, 30, 45)):02}"
