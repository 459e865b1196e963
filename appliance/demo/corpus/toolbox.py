"""The tools of the corpus: their definitions, how users ask for them, what they return and how that is told.

Each tool keeps request templates that are held out.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from appliance.demo.corpus import words

Draw = Callable[[Random], Any]


@dataclass(frozen=True)
class Parameter:
    """A tool's parameter: JSON type, description, and how a value is drawn."""

    type: str
    description: str
    draw: Draw


@dataclass(frozen=True)
class Tool:
    """One tool: templates over its parameters, and a result with the sentence that reports it."""

    name: str
    description: str
    parameters: dict[str, Parameter]
    asks: tuple[str, ...]
    held_out: tuple[str, ...]
    result: dict[str, Draw]
    report: str

    def definition(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        properties = {
            name: {"type": parameter.type, "description": parameter.description}
            for name, parameter in self.parameters.items()
        }
        schema = {"type": "object", "properties": properties, "required": list(self.parameters)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }


def _text(description: str, draw: Draw) -> Parameter:
    return Parameter("string", description, draw)


def _whole(description: str, low: int, high: int) -> Parameter:
    return Parameter("integer", description, lambda rng: rng.randint(low, high))


def _phrase(rng: Random) -> str:
    """A short lower-case phrase that must be copied."""
    picks = (
        lambda: rng.choice(words.FOODS),
        lambda: f"{rng.choice(words.COLORS)} {rng.choice(words.PRODUCTS)}",
        lambda: words.made_up(rng).lower(),
        lambda: rng.choice(words.THINGS),
        lambda: f"{rng.choice(words.JOBS)} {words.made_up(rng).lower()}",
    )
    return rng.choice(picks)()


def _task(rng: Random) -> str:
    verb = rng.choice(["call", "visit", "email", "ask", "thank", "remind"])
    return rng.choice(
        (
            f"{verb} {words.some_name(rng)}",
            f"buy {rng.choice(words.THINGS)}",
            f"clean the {rng.choice(words.PRODUCTS)}",
            f"water the {rng.choice(('plants', 'flowers', 'roses'))}",
        )
    )


TOOLS = (
    Tool(
        "get_weather", "Get the current weather of a city", {"city": _text("Name of the city", words.some_place)},
        ("(What is|How is|What's) the weather (like |)in {city}( today| now|)?", "(Is it|Will it be) (raining|sunny|cold|warm|windy) in {city}( today|)?", "(Tell me|Show me|Get|Check) the weather (in|of|for) {city}.", "weather {city}", "(Do I need|Should I take) (an umbrella|a coat|a jacket) in {city}?", "How (warm|cold|hot) is it in {city}?"),
        ("I am travelling to {city}. What will the weather be?", "Look up current conditions for {city}."),
        {"temperature": lambda r: r.randint(-9, 38), "sky": lambda r: r.choice(["sunny", "cloudy", "rainy", "windy", "clear", "snowy"])},
        "The weather in {city} is {sky}, with {temperature} degrees.",
    ),
    Tool(
        "get_time", "Get the local time of a city", {"city": _text("Name of the city", words.some_place)},
        ("What time is it (now |)in {city}( now|)?", "(Tell me|Get|Show me) the (local |current |)time (in|of|for) {city}.", "time in {city}", "How late is it in {city}?", "What is the (local |current |)time in {city}?"),
        ("Which hour do the clocks in {city} show?", "I have a call with {city}, what is their time?"),
        {"time": words.some_time},
        "It is {time} in {city}.",
    ),
    Tool(
        "add", "Add two numbers", {"a": _whole("First number", 0, 9999), "b": _whole("Second number", 0, 9999)},
        ("(What is|Compute|Calculate|How much is) {a} (plus|\\+|and) {b}?", "Add {a} and {b}.", "(Sum|Add up) {a} and {b}(, please|).", "{a} plus {b}"),
        ("What do {a} and {b} make together?", "Give me the sum of {a} and {b}."),
        {"result": lambda r: r.randint(10, 9999)},
        "The result is {result}.",
    ),
    Tool(
        "multiply", "Multiply two numbers", {"a": _whole("First number", 2, 999), "b": _whole("Second number", 2, 999)},
        ("(What is|Compute|Calculate|How much is) {a} (times|\\*|multiplied by) {b}?", "Multiply {a} (by|and|with) {b}.", "{a} times {b}"),
        ("What is the product of {a} and {b}?", "Please do the multiplication of {a} and {b}."),
        {"result": lambda r: r.randint(10, 9999)},
        "The result is {result}.",
    ),
    Tool(
        "send_email", "Send an email to a person", {"to": _text("Email address", words.some_email), "subject": _text("Subject of the email", _phrase)},
        ("(Send|Write) (an email|a mail|a message) to {to} (about|with the subject|with subject) {subject}.", "(Email|Mail) {to} (about|on) {subject}.", "(Can|Could) you (send|write) (an email|a mail) to {to} about {subject}?", "(Please tell|Inform) {to} by (email|mail) about {subject}."),
        ("Drop {to} a line by email, subject {subject}.", "I want {to} to get an email that is about {subject}."),
        {"status": lambda r: "sent"},
        "The email to {to} was sent.",
    ),
    Tool(
        "create_reminder", "Create a reminder for a task at a time", {"task": _text("What to do", _task), "time": _text("Time of day", words.some_time)},
        ("Remind me to {task} at {time}.", "(Set|Create|Make|Add) a reminder (at|for) {time} to {task}.", "(Set|Create|Make) a reminder to {task} at {time}.", "At {time} (I must|I have to|remind me to) {task}.( Remind me.|)", "(Can|Could) you remind me to {task} at {time}?"),
        ("Do not let me forget to {task} at {time}.", "I need a reminder: {task}, at {time}."),
        {"status": lambda r: "created"},
        "I will remind you at {time} to {task}.",
    ),
    Tool(
        "search_documents", "Search the documents for a text", {"query": _text("Text to search for", _phrase)},
        ("(Search|Look|Look up|Search for|Find) (documents|all documents|files|the documents) (about|on|for|with) {query}.", "(Find|Search|Get) (me |)(documents|everything|something) (about|on) {query}.", "(Is there|Do we have) (a document|anything|something) (about|on) {query}?", "Which documents (mention|are about|contain) {query}?", "search {query}"),
        ("Go through our documents and see what they say about {query}.", "What have we written about {query}?"),
        {"count": lambda r: r.randint(0, 60)},
        "I found {count} documents about {query}.",
    ),
    Tool(
        "get_order_status", "Get the status of an order by its number", {"order_id": _text("Number of the order", words.some_code)},
        ("(What is|Tell me|Check|Show me) the status of (order|my order) {order_id}( please|).", "Where is (my |)(order|parcel|package) {order_id}?", "(Has|Is) (order|my order) {order_id} (arrived|shipped|been sent|on its way|ready)?", "(Track|Check|Look up) (order|my order) {order_id}.", "order {order_id}"),
        ("I am still waiting for order {order_id}. What is going on?", "How far along is {order_id}, the order that I placed?"),
        {"status": lambda r: r.choice(["shipped", "packed", "delivered", "delayed", "cancelled"])},
        "Order {order_id} is {status}.",
    ),
    Tool(
        "translate", "Translate a word into another language", {"word": _text("Word to translate", _phrase), "language": _text("Language to translate into", lambda r: r.choice(["French", "German", "Spanish", "Italian", "Dutch", "Greek", "Polish", "Swedish"]))},
        ("Translate {word} (into|to) {language}.", "(What is|How do you say|How do I say) {word} in {language}?", "(Tell me|Give me) the {language} word for {word}.", "What does {word} mean in {language}?"),
        ("I need {word} in {language}.", "In {language}, what would you call {word}?"),
        {"translation": lambda r: words.made_up(r).lower()},
        "In {language} it is {translation}.",
    ),
    Tool(
        "convert_currency", "Convert an amount of money into another currency", {"amount": _whole("Amount of money", 1, 9999), "source": _text("Currency to convert from", lambda r: r.choice(["EUR", "USD", "GBP", "JPY", "CHF"])), "target": _text("Currency to convert to", lambda r: r.choice(["SEK", "NOK", "CAD", "AUD", "INR"]))},
        ("(Convert|Change|Exchange) {amount} {source} (to|into) {target}.", "How (much|many {target}) (is|are) {amount} {source}( in {target}|)( in {target}|)?", "What is {amount} {source} in {target}?", "{amount} {source} (to|in) {target}"),
        ("I have {amount} {source}, what do I get in {target}?", "For {amount} {source}, what is the amount in {target}?"),
        {"result": lambda r: r.randint(1, 9999)},
        "{amount} {source} is {result} {target}.",
    ),
    Tool(
        "book_table", "Book a table in a restaurant", {"people": _whole("Number of people", 1, 20), "day": _text("Day of the week", lambda r: r.choice(words.DAYS)), "time": _text("Time of day", words.some_time)},
        ("(Book|Reserve) a table for {people}( people|) on {day} at {time}.", "(I need|We need|Get us|I want) a table for {people}( people|)(,| on) {day} at {time}.", "(Can|Could) you (book|reserve) a table (for|on) {day} at {time} for {people}( people|)?", "A table for {people} on {day} at {time}(, please|)."),
        ("We will be {people} people and would like to eat on {day} at {time}.", "On {day} at {time} we want dinner for {people}, please reserve."),
        {"status": lambda r: r.choice(("booked", "confirmed"))},
        "A table for {people} on {day} at {time} is {status}.",
    ),
    Tool(
        "play_music", "Play music of an artist or a style", {"query": _text("Artist or style", _phrase)},
        ("Play (some |)(music|songs) (of|by|like|from) {query}.", "Play {query}(, please|).", "(Put on|Start) (some |)(songs|music) (of|by|from) {query}.", "I (want|would like) to (hear|listen to) {query}.", "(Can|Could) you play {query}?"),
        ("Let the speakers sound with {query}.", "I am in the mood for music by {query}."),
        {"status": lambda r: "playing"},
        "Now playing {query}.",
    ),
    Tool(
        "set_temperature", "Set the temperature of a room", {"room": _text("Name of the room", lambda r: r.choice(["kitchen", "bedroom", "office", "bathroom", "hall", "cellar", "garage", "library"])), "degrees": _whole("Temperature in degrees", 10, 30)},
        ("(Set|Turn|Change) the (temperature of the |temperature in the |){room} to {degrees}( degrees|).", "(Make|Heat|I want) the {room} (to |){degrees} degrees( warm|).", "(Can|Could) you set the {room} to {degrees}( degrees|)?", "{room} to {degrees}( degrees|)"),
        ("It should be {degrees} degrees in the {room}.", "Warm the {room} up until it has {degrees} degrees."),
        {"status": lambda r: "set"},
        "The {room} is set to {degrees} degrees.",
    ),
    Tool(
        "get_user", "Look up a user by name", {"name": _text("Name of the user", words.some_name)},
        ("(Look up|Find|Get|Show me|Search) the (user|account|profile) (of |called |named |){name}.", "Who is the user {name}?", "(Show|Give) me (the account|the profile|the data|everything) of {name}.", "(Is there|Do we have) a user (called|named) {name}?", "user {name}"),
        ("What do we have on file for {name}?", "Bring up the record of the user whose name is {name}."),
        {"id": lambda r: r.randint(100, 9999)},
        "The user {name} has the id {id}.",
    ),
)  # fmt: skip
