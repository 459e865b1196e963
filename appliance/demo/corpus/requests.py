"""More wordings of requests for the tools, and more tools: only trained on, never measured.

`MORE_ASKS` widens how people ask for the tools of `toolbox`, `MORE_TOOLS` are others, many of them over numbers, and
`ALIASES` gives known tools and parameters the other names under which people know them.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from random import Random

from appliance.demo.corpus import values
from appliance.demo.corpus.toolbox import Parameter, Tool


def _text(description: str, draw: values.Draw) -> Parameter:
    return Parameter("string", description, draw)


def _number(description: str, low: int, high: int) -> Parameter:
    return Parameter(
        "integer", description, lambda rng: rng.randint(low, high) if rng.random() < 0.8 else values.whole(rng)
    )


def _status(*choices: str) -> dict[str, values.Draw]:
    return {"status": lambda rng: rng.choice(choices)}


MORE_ASKS: dict[str, tuple[str, ...]] = {
    "get_weather": (
        "What is the weather (like |)in {city}( today| tomorrow| now| right now|)?",
        "(What's|How's) the weather (like |)in {city}( today| tomorrow|)?",
        "(Can|Could) you (tell me|check|look up) (what the weather is like|the weather|how the weather is) in {city}( today|)?",
        "(Will|Would) I (freeze|sweat|get wet|need a coat) (in|at) {city}( today| tomorrow|)?",
        "(How many degrees|What temperature) (is it|are there|does it have|do they have) in {city}( today| now|)?",
        "(Sun|Rain|Snow|Wind|Fog|Storm)(,| or not|) in {city}( today| tomorrow|)?",
    ),
    "get_time": (
        "What time is it in {city}( now| right now|)?",
        "(What's|Whats) the time in {city}( now|)?",
        "(Can|Could) you tell me (what time it is|how late it is|the time) in {city}( now|)?",
        "(Should|Can|May) I (still |)(call|ring|phone|wake) (my aunt|them|the office|a friend) in {city}(?|,) (What time do they have?|what is the time there?|how late is it?)",
        "(It is noon here|Here it is late|We just had lunch)(.|,|;) (And in|What about|how late is it in|what time is it in) {city}?",
    ),
    "add": (
        "(First|Here|Once) (came|comes|came in) {a}(,|;|.) (then|later|next|afterwards) {b}(:|,|.|;) (what is the sum|how much is it all|the total please|add it up)(?|.)",
        "(Our|The|My) (till|purse|account|box) (has|holds|had|shows) {a}(,|;| and) {b} (comes|come|is put|goes|flows) (in|on top|to it)(:|.|,) (What now?|How much is it then?|What does it hold?|New total?)",
        "(If|When) {a} (meets|joins|grows by|is increased by|gets|rises by) {b}(,|) what (comes out|results|is it|do I get)?",
        "(Increase|Raise|Extend) {a} by {b}.",
        "{a} (and then |and another |and also |and ){b} (more|)(,|:|=) (makes|is|gives)( what|)?",
        "(Someone|A friend|My sister) (owes me|gave me|paid) {a}(,|;| and) (someone else|another one|my brother) {b}(,|.|:) (how much altogether|what do both make|sum it up|both together)(?|.)",
        "(Bookkeeping|Accounts|For the books)(:|,) {a} (and|with|,) {b}(:|,|.) (sum|total|in all)(?|.|)",
        "(My|The) (two|both) (bills|halves|parts|lists|counts) (are|have|say|show) {a} and {b}(.|,|;) (How many in all|What is the whole|Add them)(?|.)",
        "(Work out|Find|Determine|Tell me|I need|Show) (what |)(the sum of |){a}( and| plus|, and) {b}( makes| gives| come to|)( please|).",
        "(Let me see|So|Well)(,|:) {a}(,|;) (plus|and|then) {b}(?|.|)",
    ),
    "multiply": (
        "(How much|What) is {a} (lots of|times as much as|bags at|tickets at) {b}?",
        "{a} (people|friends|workers|buyers) (pay|give|bring|earn) {b} (each|apiece|per head)(,|:|.|;) (what comes in|how much is that|multiply)(?|.)",
        "(The product|Times|Multiplication)(:| of|) {a}(,| and| by) {b}(?|.|)",
        "(If|When) {a} is (taken|multiplied|repeated) {b} (times|-fold)(,|) what (comes out|is it)?",
        "{b} (per|each|a) (box|day|head|hour|row)(,|:|;) {a} (boxes|days|heads|hours|rows)(.|:|,) (How much?|what is it in all, multiplied?|multiply)",
    ),
    "send_email": (
        "(Would you|Please|Kindly) (send|mail|forward) {subject} to {to}(.|?|)",
        "(Let|Have) {to} (know|hear) about {subject}(,| -) (by mail|in an email|per email).",
        "(New|One) (mail|email|message)(:|,) {to}(,|;|:) {subject}.",
    ),
    "create_reminder": (
        "(Please |)(remember|remind me|ping me|alert me)(:|,|) {task}(,| at| when it is| by) {time}.",
        "{time}(:|,| -) {task}(.|,|!) (Remind me|A reminder please|Do not let me forget).",
    ),
    "search_documents": (
        "(Can|Could) you (search|look through|check) (the documents|our files|the papers) for {query}?",
        "(Anything|Something|What) (on|about) {query} in (the|our) (documents|files|papers)?",
        "(Look|Search) for {query} in (the|our|all) (documents|files|papers).",
    ),
    "get_order_status": (
        "(Can|Could) you (check|look up|tell me) (the status of|where|what happened to) (order|my order) {order_id}( is|)?",
        "(My|The) (order|parcel|delivery)( number|) (is|:|has the number) {order_id}(.|,|;) (Where is it|How is it going|What is its status)?",
        "{order_id}(:|,|?) (where is it|shipped or not|what is its status|has it been sent|did it leave).",
        "(Is|Was) {order_id} (put|loaded|brought|seen) (on|onto|into) (a|the) (van|ship|plane|train)( yet| already|)?",
    ),
    "translate": (
        "(Translate|Please translate|Can you translate) (the word |)(\"{word}\"|'{word}'|{word}) (to|into) {language}(.|?|)",
        "Translate (this|the following) (to|into) {language}: {word}",
        "(How|What) do (you|I|we) (say|call) (\"{word}\"|{word}|a {word}) in {language}?",
        "{language}(:|,| for|) {word}(,| please|?|.)",
        "(What's|What is) the {language} (word |term |)for (\"{word}\"|{word})?",
    ),
    "convert_currency": (
        "(How much|What) is {amount} {source} (worth |)in {target}( today| now|)?",
        "(Please |)convert {amount} {source} (to|into) {target}(.|)",
        "{amount} {source}(:|,|;) (the same|its worth|the value) in {target}(?|.)",
    ),
    "book_table": (
        "(Please |)(book|reserve|get) (a |me a |us a )table for {people}( people| persons| guests|)(,| on| this| next) {day}(,| at| around) {time}(.|)",
        "{people} (guests|people|seats|of us)(,|:) {day}(,|;|:) {time}(.|,|:) (Book|Reserve|Is there a table)(.|?)",
    ),
    "play_music": (
        "(Please |)(play|put on|start) {query}( for me| now|)(.|)",
        "(I'd|I would) like (to hear |some |){query}( please|)(.|)",
        "(Could|Can) (you|we) (have|hear|get|put on) (some |){query}( please|)?",
    ),
    "set_temperature": (
        "(Can|Could|Would) you (make|turn|set|bring) the {room} (up to|down to|to) {degrees}( degrees|)?",
        "(I am|We are|She is) (cold|freezing|hot|sweating|shivering) in the {room}(,|.|:|;) {degrees}( degrees|) (would be|is|will be) (better|right|good|nice)(.|)",
        "(How about|What about|Let us have|Let us try) {degrees}( degrees|) (in|for) the {room}(?|.)",
        "The {room} (is|feels|gets) (too |so |)(warm|cold|hot|cool)(,|.|:|;) {degrees}( degrees|) (please|are enough|would do|is better)(.|)",
        "(At|By) night the {room} (needs|should have|may have|gets) {degrees}( degrees|)(.|)",
        "(Guests|The baby|My mother|Somebody) (will sleep|sits|works|comes) in the {room}(,|:|;|.) (so |)(make it|set it to|heat it to|we need) {degrees}( degrees|)(.|)",
        "{room}(:|,| -|) {degrees}( degrees|)( please|)(.|)",
        "(Keep|Hold|Leave) the {room} (at|on) {degrees}( degrees|)(.|)",
        "(From now on|Tonight|Today|In winter)(,|) {degrees}( degrees|) in the {room}(.|)",
        "(Not|No) (more|less|warmer|colder) than {degrees}( degrees|) in the {room}(,|) (please|I say|set it so)(.|)",
    ),
    "get_user": (
        "(Can|Could) you (look up|find|check|show me) (the user |the account of |){name}?",
        "(What|Who) is {name} (in our system|among our users|as a user)?",
        "(I would like|I need|I want) to (see|know) (the account|the user|the profile) (of |){name}.",
    ),
}  # fmt: skip

MORE_TOOLS = (
    Tool(
        "subtract", "Subtract the second number from the first", {"a": _number("First number", 0, 9999), "b": _number("Second number", 0, 9999)},
        ("(What is|How much is|Compute) {a} (minus|-|less) {b}?", "Subtract {b} from {a}.", "(Take|Deduct) {b} (away |)from {a}.", "{a} (-|minus) {b}", "(From|Of) {a}(,|) {b} (is|are|goes|go) (gone|away|lost)(:|,|.) (what remains|how much is left)?", "What is the difference (between|of) {a} and {b}?", "(I had|We had|There were) {a} and (spent|lost|used|gave away) {b}(:|,|.) (what is left|the rest)?", "(Lower|Decrease|Reduce) {a} by {b}."),
        (), {"result": lambda rng: rng.randint(0, 9999)}, "The result is {result}.",
    ),
    Tool(
        "divide", "Divide the first number by the second", {"a": _number("Number to divide", 2, 9999), "b": _number("Number to divide by", 2, 99)},
        ("(What is|How much is|Compute) {a} (divided by|over|/) {b}?", "Divide {a} by {b}.", "{a} / {b}", "(Split|Share|Cut) {a} (into|among|between) {b}( parts| people| equal parts|)(:|,|.) (how much each|what does one get|what is it)?", "How (many times|often) (does|goes|is) {b} (fit |go |contained |)in(to|) {a}?"),
        (), {"result": lambda rng: rng.randint(0, 999)}, "The result is {result}.",
    ),
    Tool(
        "set_volume", "Set the loudness of a speaker", {"device": _text("Name of the speaker", values.thing), "percent": _number("Loudness in per cent", 0, 100)},
        ("(Set|Turn|Put|Bring) the {device} (up to|down to|to|at) {percent}( percent|).", "(Make|I want) the {device} (as loud as|play at|sound at|at) {percent}( percent|).", "{device}(:|,| -) (volume|loudness) {percent}( percent|)( please|).", "The {device} is too (loud|quiet)(,|.|;|:) {percent}( percent|) (please|is enough|is better|would do).", "(Volume|Loudness) of the {device}(:|,| to| at) {percent}."),
        (), _status("set"), "The {device} is set to {percent} per cent.",
    ),
    Tool(
        "set_light", "Set the brightness of a lamp in a room", {"room": _text("Name of the room", values.thing), "brightness": _number("Brightness from 0 to 100", 0, 100)},
        ("(Set|Turn|Dim|Put) the (light|lamp|lights) in the {room} (to|at|down to|up to) {brightness}( percent|).", "(It is|I find it) too (dark|bright) in the {room}(,|.|;|:) (make it|set the lights to|the lamp to|light at) {brightness}( percent|).", "(Light|Lamp|Brightness)(,|:| in the| of the) {room}(,|:| to| at) {brightness}.", "{brightness}( percent|) light in the {room}(,| please|).", "{room} lights {brightness}"),
        (), _status("set"), "The light in the {room} is at {brightness}.",
    ),
    Tool(
        "set_timer", "Start a timer", {"minutes": _number("Minutes to wait", 1, 180)},
        ("(Set|Start|Make) a timer (for|of|to) {minutes} minutes.", "(Wake|Call|Ring|Tell) me in {minutes} minutes.", "timer {minutes}", "(My|The) (egg|cake|tea|pizza|bread) (needs|takes|is done in) {minutes} minutes(.|,|;|:) (Set a timer|ring then|tell me|start the clock)(.|)", "{minutes} minutes(,| from now|:) (starting now|timer please|count down)(.|)"),
        (), _status("started"), "The timer rings in {minutes} minutes.",
    ),
    Tool(
        "get_distance", "Get the distance between two cities", {"start": _text("City where the way starts", values.place), "goal": _text("City where the way ends", values.place)},
        ("How far is (it |)from {start} to {goal}?", "(What is|Tell me|Get) the distance (from|between) {start} (to|and) {goal}.", "(How many (miles|kilometres) (is it|are there|lie)|How long is the way|How long is the road) (from|between) {start} (to|and) {goal}?", "(I drive|I walk|We go) from {start} to {goal}(.|,|:) (How far is it|how long is the way|what is the distance)?", "(To|Until) {goal} (from|starting in) {start}(:|,) how far?", "{start} to {goal} distance"),
        (), {"km": lambda rng: rng.randint(5, 9000)}, "From {start} to {goal} it is {km} km.",
    ),
    Tool(
        "book_ticket", "Book a ticket for a trip", {"origin": _text("City of departure", values.place), "destination": _text("City of arrival", values.place), "date": _text("Date of the trip", values.date)},
        ("(Book|Get|Buy|Reserve) (me |us |)a (ticket|seat|flight|train) from {origin} to {destination} (on|for) {date}.", "(I need|I want|We have) to (go|travel|fly|get) (from {origin} to {destination}|to {destination} from {origin}) on {date}.", "{origin} to {destination}(,|:) {date}(, please|. Book it.|)", "On {date}(,|) (a ticket|one seat|a flight) to {destination}(,|) (leaving|departing|starting) (from|in) {origin}.", "(I am in|I live in|We start in) {origin}(,|.| and) (want|have|need|I must go|bring me) to {destination} on {date}."),
        (), _status("booked", "confirmed"), "The ticket from {origin} to {destination} on {date} is {status}.",
    ),
    Tool(
        "send_message", "Send a text message to a person", {"person": _text("Name of the person", values.person), "text": _text("What the message says", values.phrase)},
        ("(Text|Message|Write) {person}(:|,) {text}", "(Tell|Answer|Write to) {person}(:| that|) {text}.", "(Send|Write) (a message|a text|an sms) to {person}(:| saying| that says|,) {text}.", "{person} (should|must|has to) (read|hear|get)(:|) {text}.", "Send {text} to {person} (as a message|as a text|by phone)."),
        (), _status("sent"), "The message to {person} was sent.",
    ),
    Tool(
        "get_price", "Get the price of a product", {"product": _text("Name of the product", values.thing)},
        ("(What does|How much does) (a|the) {product} cost?", "(What is|Tell me|Show) the price of (a|the) {product}.", "How (much|expensive) is (a|the|one) {product}?", "price {product}", "(I want|I would like|I need) (a|the) {product}(,|.|:) (how much is it|what is the price|what do I pay)?", "{product}(:|,) how much?"),
        (), {"price": lambda rng: rng.randint(1, 999)}, "The {product} costs {price} euros.",
    ),
    Tool(
        "get_population", "Get the number of people who live in a place", {"place": _text("City or country", values.place)},
        ("How many people (live|are there|reside) in {place}?", "(What is|Tell me|Get) the population of {place}.", "population {place}", "(How big|How large) is (the population of |){place}( by people| counted in heads|)?", "(The number of|Count the) (people|inhabitants) (of|in) {place}( please|)."),
        (), {"people": lambda rng: rng.randint(900, 9_000_000)}, "In {place} live {people} people.",
    ),
    Tool(
        "open_ticket", "Open a ticket for a fault", {"machine": _text("Name of the machine", values.code), "fault": _text("What is wrong", values.phrase)},
        ("(Open|File|Create|Write) a ticket (for|about|on) {machine}(:|,| with the fault| because of) {fault}.", "{machine} (is broken|has a fault|does not work|fails)(:|,|;) {fault}.( Open a ticket.| Please file it.|)", "(There is|We have) {fault} (on|at|in) {machine}(.|,|;) (Open a ticket|Make a ticket|File this)(.| please.)", "Ticket(:|,) {machine}(,|;|:) {fault}."),
        (), _status("opened"), "A ticket for {machine} was opened.",
    ),
    Tool(
        "transfer_money", "Transfer money to a person", {"amount": _number("Amount in euros", 1, 9999), "to": _text("Name of the receiver", values.person)},
        ("(Send|Transfer|Pay|Give|Wire) {amount}( euros|) to {to}.", "(Send|Pay|Give) {to} {amount}( euros|).", "{to} (gets|should get|is owed|is waiting for|needs) {amount}( euros|)( from me|)(.|, please pay.)", "I owe {to} {amount}( euros|)(.|,|:) (Pay it|send it|transfer it)(.|)", "{amount}( euros|) (for|to) {to}(, please|)."),
        (), _status("done", "queued"), "{amount} euros to {to}: {status}.",
    ),
    Tool(
        "roll_dice", "Roll some dice", {"count": _number("How many dice", 1, 12), "sides": _number("Sides of a die", 4, 100)},
        ("(Roll|Throw|Cast) {count} dice (with|of) {sides} sides( each|).", "(Roll|Throw) {count}d{sides}.", "{count} dice(,|:) {sides} sides( each|)( please|).", "(I need|Give me|Let us have) a (roll|throw) of {count} (dice|{sides}-sided dice)( with {sides} sides|)."),
        (), {"result": lambda rng: rng.randint(1, 99)}, "The dice show {result}.",
    ),
)  # fmt: skip

# Other names of tools, and of their parameters with what describes them.
ALIASES: dict[str, tuple[str, ...]] = {
    "get_weather": ("weather", "get_current_weather", "weather_lookup", "current_weather", "getWeather", "fetch_weather", "weather_forecast"),
    "get_time": ("time", "get_current_time", "current_time", "getTime", "clock", "local_time"),
    "add": ("sum", "addition", "plus", "add_numbers", "sum_numbers"),
    "multiply": ("product", "times", "multiplication", "multiply_numbers"),
    "send_email": ("email", "sendEmail", "mail", "send_mail"),
    "create_reminder": ("remind", "set_reminder", "add_reminder", "createReminder"),
    "search_documents": ("search", "searchDocuments", "find_documents", "document_search"),
    "get_order_status": ("order_status", "track_order", "getOrderStatus", "check_order"),
    "translate": ("translate_word", "translation", "translate_text"),
    "convert_currency": ("currency", "exchange", "convert_money", "convertCurrency"),
    "book_table": ("reserve_table", "reservation", "bookTable", "restaurant_booking"),
    "play_music": ("music", "play", "playMusic", "play_song"),
    "set_temperature": ("temperature", "thermostat", "set_thermostat", "setTemperature"),
    "get_user": ("user", "find_user", "lookup_user", "getUser", "user_lookup"),
}  # fmt: skip
_PARAMETER_ALIASES: dict[str, tuple[tuple[str, str], ...]] = {
    "city": (("location", "City and country, such as Rome, Italy"), ("location", "The city and state"), ("place", "Where"), ("town", "Name of the town"), ("location", "City name")),
    "a": (("x", "First number"), ("first", "The first number"), ("left", "Left operand"), ("number1", "A number")),
    "b": (("y", "Second number"), ("second", "The second number"), ("right", "Right operand"), ("number2", "Another number")),
    "to": (("recipient", "Who gets it"), ("address", "Email address of the recipient")),
    "subject": (("title", "Title of the message"), ("topic", "What it is about")),
    "query": (("text", "What to look for"), ("q", "Query"), ("term", "The term")),
    "order_id": (("id", "Id of the order"), ("number", "Order number")),
    "word": (("text", "The text"), ("phrase", "What to translate")),
    "language": (("target_language", "Language of the result"), ("target", "The target language")),
    "people": (("guests", "How many guests"), ("count", "Number of seats")),
    "degrees": (("temperature", "Degrees Celsius"), ("value", "Temperature"), ("target", "Wanted temperature")),
    "room": (("zone", "Which room"), ("location", "The room")),
    "name": (("username", "Name of the user"), ("user", "Who")),
    "task": (("text", "What to be reminded of"), ("title", "The task")),
    "time": (("at", "When"), ("clock", "Time of day")),
}  # fmt: skip


def rename(tool: Tool, rng: Random) -> tuple[Tool, dict[str, str]]:
    """The tool under another name, with other parameters; and the new name of each parameter."""
    names = {name: name for name in tool.parameters}
    parameters: dict[str, Parameter] = {}
    for name, parameter in tool.parameters.items():
        description = parameter.description
        if name in _PARAMETER_ALIASES and rng.random() < 0.5:
            other, said = rng.choice(_PARAMETER_ALIASES[name])
            if other not in tool.parameters and other not in parameters:
                names[name], description = other, said
        parameters[names[name]] = Parameter(parameter.type, description, parameter.draw)
    name = rng.choice(ALIASES[tool.name]) if rng.random() < 0.6 else tool.name
    report = tool.report
    for old, new in names.items():
        report = report.replace("{" + old + "}", "{" + new + "}")
    description = tool.description if rng.random() < 0.7 else name.replace("_", " ").capitalize()
    return Tool(name, description, parameters, (), (), tool.result, report), names
