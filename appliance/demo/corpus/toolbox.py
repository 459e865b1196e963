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
        ("(What is|How is|What's) the weather (like |)in {city}( today| now|)?", "(Is it|Will it be) (raining|sunny|cold|warm|windy) in {city}( today|)?", "(Tell me|Show me|Get|Check) the weather (in|of|for) {city}.", "weather {city}", "(Do I need|Should I take) (an umbrella|a coat|a jacket) in {city}?", "How (warm|cold|hot) is it in {city}?", "(What|Which) weather (does|will) {city} have( today| tomorrow|)?", "(I am|We are|She is) (going|flying|travelling|moving) to {city}.( What is the weather there?| How is the weather?| What should I wear?|)", "(Does|Will) it (rain|snow) in {city}( today| tonight|)?", "(Conditions|Forecast|Temperature) (in|for|of) {city}( please|)(.|?|)", "(I want|I need|I would like) (to know |)the (weather|forecast|temperature) (in|for|of) {city}.", "I am travelling to {city}. What will the weather be?", "Look up current conditions for {city}.", "(Is|Will) {city} (be |)(wet|dry|sunny|hot|freezing|stormy|grey|foggy)( today| tomorrow| now| this evening|)?", "(Should|Must|Do) (I|we|they) (pack|bring|take|wear) (boots|sunglasses|gloves|shorts|a scarf|a hat|a raincoat) (for|to|in) {city}?", "{city}(:|,| -) (how is the sky|sun or clouds|any rain|what about the weather|is it warm|hot or cold|forecast)( today| tomorrow|)?", "(How|What) (does the sky look|are the conditions|will tomorrow be like|is it like outside) (in|over|at|around) {city}?"),
        ("How does the sky look over {city} today, what weather is it?", "My aunt lives in {city}. What weather do they have?"),
        {"temperature": lambda r: r.randint(-9, 38), "sky": lambda r: r.choice(["sunny", "cloudy", "rainy", "windy", "clear", "snowy"])},
        "The weather in {city} is {sky}, with {temperature} degrees.",
    ),
    Tool(
        "get_time", "Get the local time of a city", {"city": _text("Name of the city", words.some_place)},
        ("What time is it (now |)in {city}( now|)?", "(Tell me|Get|Show me) the (local |current |)time (in|of|for) {city}.", "time in {city}", "How late is it in {city}?", "What is the (local |current |)time in {city}?", "(What|Which) (hour|time) (is it|do the clocks show|do they have|does the clock show) in {city}( now|)?", "(I have|We have) a (call|meeting) (with|in) {city}(.|,) (What is their time?|What time is it there?|How late is it there?)", "(Is it|Do they have) (morning|evening|night|noon) in {city}( now|)?", "(I want|I need|I would like) (to know |)the (clock time|time|hour|local time) (in|of) {city}.", "clock {city}", "Which hour do the clocks in {city} show?", "I have a call with {city}, what is their time?", "(If|When) (I|we) (call|ring|visit|write to) (somebody|people|a friend|the office) in {city}( now|)(,|) (what hour|what time|how late) (is it there|will it be|do they have)?", "(What|Which) (does|do) (a clock|the clocks|watches|people's watches) (say|read|show) (over |)(in|at) {city}( right now| at the moment|)?", "(Are|Would) (people|shops|offices) in {city} (still |already |)(asleep|awake|open|at work)( by the clock| at this hour|)?", "{city}(:|,) (what time|the hour|local time|how late)( please|)?", "(How|So how) late (do they have it|is the hour|is it now) (over |)in {city}?"),
        ("Are people in {city} asleep, what time do they have?", "Give me the hour of the day in {city}."),
        {"time": words.some_time},
        "It is {time} in {city}.",
    ),
    Tool(
        "add", "Add two numbers", {"a": _whole("First number", 0, 9999), "b": _whole("Second number", 0, 9999)},
        ("(What is|Compute|Calculate|How much is) {a} (plus|\\+|and) {b}?", "Add {a} and {b}.", "(Sum|Add up) {a} and {b}(, please|).", "{a} plus {b}", "(What|How much) do {a} and {b} (make|give|sum to)( together| in total|)?", "(Give|Tell) me the (sum|total) of {a} and {b}.", "(I have|There are) {a} and {b}(.|,) (what is the total|what is the sum|add them)?", "{a} \\+ {b}( =|)", "(Put|Count) {a} and {b} together.", "What do {a} and {b} make together?", "Give me the sum of {a} and {b}.", "(Two|These) (numbers|prices|amounts|bills|weights)(:|,) {a} and {b}.( All in all?| How much altogether?| What is it together?| Combined?|)", "(Combine|Join|Total|Tally|Lump together|Take together) {a} (and|with) {b}.", "(To|On top of) {a}(,| I) (add|put|come|goes) {b}(:|,|.) (what is that|how much|the result)?", "(If|When) (I|you) (pay|take|have|spend) {a} and (then |){b}, (how much|what) (is that|does it come to|is the whole)?"),
        ("Please compute the total of {a} and {b}.", "How much is it if I add {b} onto {a}? First {a}, then {b}."),
        {"result": lambda r: r.randint(10, 9999)},
        "The result is {result}.",
    ),
    Tool(
        "multiply", "Multiply two numbers", {"a": _whole("First number", 2, 999), "b": _whole("Second number", 2, 999)},
        ("(What is|Compute|Calculate|How much is) {a} (times|\\*|multiplied by) {b}?", "Multiply {a} (by|and|with) {b}.", "{a} times {b}", "(What is|Give me|Tell me) the product of {a} and {b}.", "(Do|Make|Please do) (the|a) multiplication (of|with) {a} and {b}.", "{a} (x|\\*) {b}", "(How much|What) (is|are) {a} (rows of|groups of|boxes of) {b}?", "(I have|There are) {a} and {b}, (multiply them|what is the product)?", "What is the product of {a} and {b}?", "Please do the multiplication of {a} and {b}.", "(The|What is the) (area|surface|size) of (a room|a wall|a garden|a rectangle) (of|with|that is) {a} (by|times|x) {b}?", "{a} (boxes|bags|rows|shelves|trays|lorries)(,| with) {b} (in each|each|in every one|apiece)(:|,|.) (how many|the product|what is that|multiply)?", "(Take|Count|Use) {a} (exactly |){b} times.", "(Each|One) of {a} (people|boxes|rows) (has|pays|holds) {b}(:|,|.) (how much|how many|compute it|what is the product)?", "(Scale|Increase|Blow up) {a} by (a factor of|the factor) {b}."),
        ("Let me know what you get for {a} multiplied with {b}.", "I want the product: {a} and {b}."),
        {"result": lambda r: r.randint(10, 9999)},
        "The result is {result}.",
    ),
    Tool(
        "send_email", "Send an email to a person", {"to": _text("Email address", words.some_email), "subject": _text("Subject of the email", _phrase)},
        ("(Send|Write) (an email|a mail|a message) to {to} (about|with the subject|with subject) {subject}.", "(Email|Mail) {to} (about|on) {subject}.", "(Can|Could) you (send|write) (an email|a mail) to {to} about {subject}?", "(Please tell|Inform) {to} by (email|mail) about {subject}.", "(Drop|Send|Write) {to} (a line|a note|an email|a mail|a short email)( by email|)(,|:) (subject|about|the subject is|on) {subject}.", "(I want|I need|Let) {to} (to get|to receive|get|receive) (an email|a mail|a message) (about|on|with the subject) {subject}.", "(The|An) email (about|on) {subject} (goes|should go|must go) to {to}.", "mail to {to}: {subject}", "(Contact|Message|Notify) {to} about {subject}( by email|).", "Drop {to} a line by email, subject {subject}.", "I want {to} to get an email that is about {subject}.", "(Let|Make sure) {to} (know|hears|learns|reads) (in a mail|by email|by mail) (that it is about|with the subject|about|concerning) {subject}.", "(Draft|Prepare|Write down|Type|Fire off) (a mail|an email|a message)(:|.|,) (Recipient|Addressee|To|For|It goes to)(:|) {to}(,|.|;) (Title|Topic|Subject|Heading|Subject line)(:|) {subject}.", "(Subject|Title|Topic|Heading)(:|) {subject}(,|.|;) (to|recipient|for|send it to)(:|) {to}.", "(An email|A mail|A letter) (called|titled|about|on) {subject} (must|should|has to) (reach|go to|be sent to) {to}."),
        ("Get a mail out to {to}, its subject should be {subject}.", "There is news on {subject}; send an email with it to {to}."),
        {"status": lambda r: "sent"},
        "The email to {to} was sent.",
    ),
    Tool(
        "create_reminder", "Create a reminder for a task at a time", {"task": _text("What to do", _task), "time": _text("Time of day", words.some_time)},
        ("Remind me to {task} at {time}.", "(Set|Create|Make|Add) a reminder (at|for) {time} to {task}.", "(Set|Create|Make) a reminder to {task} at {time}.", "At {time} (I must|I have to|remind me to) {task}.( Remind me.|)", "(Can|Could) you remind me to {task} at {time}?", "(Do not|Never|Please do not) let me forget (to|that I must) {task} at {time}.", "(I need|I want|Make me|Give me) a reminder(:| for| to) {task}(,| at| at the time) {time}.", "(Ring|Wake|Alert|Notify) me at {time}(,|:| so that I can| to) {task}.", "(My task|The task|Task) at {time}(:| is to) {task}.( Remind me.|)", "reminder {time} {task}", "Do not let me forget to {task} at {time}.", "I need a reminder: {task}, at {time}.", "(Nudge|Ping|Tell|Poke|Shout at) me (when it is|when the clock says|as soon as it is) {time}(,|:) (because|since|so that|for) I (must|have to|want to|should) {task}.", "(At|When it is|Around) {time} (I must|I have to|it is time to|I should) {task}(,|.|:) (please remind me|do remind me|remind me|tell me then).", "(I|We) (tend to forget|always forget|forget) to {task}(,|.|:) (remind me|set a reminder|ring) at {time}.", "{task} at {time}(:|,|.) (set a reminder|reminder please|remind me)."),
        ("Tell me at {time} that I have to {task}.", "Put a reminder in for {time}, I want to {task}."),
        {"status": lambda r: "created"},
        "I will remind you at {time} to {task}.",
    ),
    Tool(
        "search_documents", "Search the documents for a text", {"query": _text("Text to search for", _phrase)},
        ("(Search|Look|Look up|Search for|Find) (documents|all documents|files|the documents) (about|on|for|with) {query}.", "(Find|Search|Get) (me |)(documents|everything|something) (about|on) {query}.", "(Is there|Do we have) (a document|anything|something) (about|on) {query}?", "Which documents (mention|are about|contain) {query}?", "search {query}", "(Go|Look) through (our|the|all) (documents|files|papers) (and see what they say|and find what is there|for everything) (about|on) {query}.", "(What|Where) (have we|do our files|did we|do the documents) (written|say|write|have) (about|on) {query}?", "(I am looking for|I need|I want) (documents|files|papers|texts|something written) (about|on|with) {query}.", "(Do|Does) (our documents|any document|any file) (say|mention|contain) (something about |){query}?", "(Papers|Files|Documents) (about|on) {query}( please|)(.|)", "Go through our documents and see what they say about {query}.", "What have we written about {query}?", "(Is|Are|Does|Was) {query} (mentioned|found|in|named|appear|discussed|described) (anywhere |somewhere |)(in |)(our|the|any) (files|papers|archive|documents|records|notes)?", "(Comb|Browse|Scan|Check|Go through|Examine) (our|the|all) (archive|files|papers|records|notes|library) (for|after|about) {query}.", "{query}(:|,|?) (what do we have on file|any papers|anything in the archive|search our files|find it in the documents).", "(Where|In which file|In what document) (do|does|did) (we|somebody|it|anyone) (write|say|mention|talk) (about |of |){query}?", "(Pull|Bring|Fetch) (up |)(everything|all papers|what there is) (we have |)(about|on|for) {query}."),
        ("Dig out all documents in which {query} comes up.", "Somebody wrote about {query} in our documents, can you search it?"),
        {"count": lambda r: r.randint(0, 60)},
        "I found {count} documents about {query}.",
    ),
    Tool(
        "get_order_status", "Get the status of an order by its number", {"order_id": _text("Number of the order", words.some_code)},
        ("(What is|Tell me|Check|Show me) the status of (order|my order) {order_id}( please|).", "Where is (my |)(order|parcel|package) {order_id}?", "(Has|Is) (order|my order) {order_id} (arrived|shipped|been sent|on its way|ready)?", "(Track|Check|Look up) (order|my order) {order_id}.", "order {order_id}", "(I am|We are|I have been) (still |)waiting for (order|parcel|package|my order) {order_id}.( What is going on?| Where is it?| What happened?|)", "(How far|How long|When) (is|will|does) (order |){order_id}( along| arrive| take| come|), (the order|which|the parcel) (that I placed|I ordered|I paid)?", "(I ordered|I bought|We placed) {order_id}.( Where is it now?| What is its status?| Has it left?|)", "(Any news|Something new|What is new) (on|about|with) (order|my order|number) {order_id}?", "status {order_id}", "I am still waiting for order {order_id}. What is going on?", "How far along is {order_id}, the order that I placed?", "(Is|Was|Has|Did) {order_id} (already |)(left|leave|gone|on the road|shipped|sent|delivered|packed|handed over)( the warehouse|)( yet|)?", "(They|You|The shop) (promised|said|told me) {order_id} (would come|would be here|arrives) (yesterday|today|last week)(,|.|:) (check|look|where is it|what is wrong)( please|).", "(When|How soon) (do I get|can I expect|will I see|comes|arrives) (order |parcel |){order_id}?", "(Somebody|A customer|My wife) (asks|wants to know|called) about (order |parcel |delivery |){order_id}(.|:|,) (Where is it?|Is it on its way?|What do I say?|Look it up.)"),
        ("Can you see how order {order_id} is doing?", "Customer asks: has number {order_id} been shipped? It is an order."),
        {"status": lambda r: r.choice(["shipped", "packed", "delivered", "delayed", "cancelled"])},
        "Order {order_id} is {status}.",
    ),
    Tool(
        "translate", "Translate a word into another language", {"word": _text("Word to translate", _phrase), "language": _text("Language to translate into", lambda r: r.choice(["French", "German", "Spanish", "Italian", "Dutch", "Greek", "Polish", "Swedish"]))},
        ("Translate {word} (into|to) {language}.", "(What is|How do you say|How do I say) {word} in {language}?", "(Tell me|Give me) the {language} word for {word}.", "What does {word} mean in {language}?", "(I need|I want|Give me) {word} in {language}( please|).", "(In|Into) {language}(,|:) (what is|what would you call|how do you say|translate) {word}?", "(How|What) (would|do|does) (people|they|one|someone) (say|call) {word} in {language}?", "{word} in {language}", "(Turn|Put|Change) {word} into {language}.", "I need {word} in {language}.", "In {language}, what would you call {word}?", "(How|What) (does|would|do) (a|the) {language} (speaker|person|native|teacher) (say|call|name|write) {word}?", "{word}(:|,| -) (what is it|how is it said|say it|the same|please) in {language}( please|)(.|?|)", "(Someone|My guest|She|A tourist) (only |)(speaks|understands|knows) {language}(.|,|:|;) (how do I say|what is|tell them|say) {word}( to them|)?", "(The|A|Which) {language} (term|expression|word|translation)(:| for| of) {word}( please|)(?|.|)", "{word} (as|the way) (it is said|they say it|one says it|people put it) in {language}( please|)."),
        ("Which word do they use for {word} when they speak {language}?", "Please give me a translation of {word} to {language}."),
        {"translation": lambda r: words.made_up(r).lower()},
        "In {language} it is {translation}.",
    ),
    Tool(
        "convert_currency", "Convert an amount of money into another currency", {"amount": _whole("Amount of money", 1, 9999), "source": _text("Currency to convert from", lambda r: r.choice(["EUR", "USD", "GBP", "JPY", "CHF"])), "target": _text("Currency to convert to", lambda r: r.choice(["SEK", "NOK", "CAD", "AUD", "INR"]))},
        ("(Convert|Change|Exchange) {amount} {source} (to|into) {target}.", "How (much|many {target}) (is|are) {amount} {source}( in {target}|)( in {target}|)?", "What is {amount} {source} in {target}?", "{amount} {source} (to|in) {target}", "(I have|We got|There are) {amount} {source}(,|.) (what do I get in|how much is that in|give me that in) {target}?", "(For|With) {amount} {source}(,|) (what is the amount in|how much do I get in|what is it in) {target}?", "(Swap|Turn|Trade|Make) {amount} {source} (for|into) {target}.", "(What|How much) {target} (do I get|is it|are) for {amount} {source}?", "{amount} {source} = how many {target}?", "I have {amount} {source}, what do I get in {target}?", "For {amount} {source}, what is the amount in {target}?", "(Express|Give|State|Show|Put) {amount} {source} (as|in|in units of) {target}.", "(The|My|A) (bank|friend|hotel|shop) (wants|has|found|owes me) {amount} {source}(.|,|:) (what|how much) (is that|does that make|would I get) in {target}?", "{source} {amount}(:|,|=|->) {target}?", "(How many|How much) {target} (would|does|will) (the bank give me|I get|one get|it make) (for|from) {amount} {source}?"),
        ("My bill is {amount} {source}, tell me the sum in {target}.", "Work out {amount} {source} in the currency {target}."),
        {"result": lambda r: r.randint(1, 9999)},
        "{amount} {source} is {result} {target}.",
    ),
    Tool(
        "book_table", "Book a table in a restaurant", {"people": _whole("Number of people", 1, 20), "day": _text("Day of the week", lambda r: r.choice(words.DAYS)), "time": _text("Time of day", words.some_time)},
        ("(Book|Reserve) a table for {people}( people|) on {day} at {time}.", "(I need|We need|Get us|I want) a table for {people}( people|)(,| on) {day} at {time}.", "(Can|Could) you (book|reserve) a table (for|on) {day} at {time} for {people}( people|)?", "A table for {people} on {day} at {time}(, please|).", "(We will be|We are|There are) {people} (people|persons|guests)(,| and) (we |)(would like to|want to|will|and) eat on {day} at {time}.", "(On {day} at {time}|At {time} on {day}) (we want|we need|I want|please) (dinner|lunch|a table|seats) for {people}( people|)(, please reserve|, please book|).", "(Dinner|Lunch|Table|Seats) for {people}(,| on| for) {day}(,| at) {time}( please|).", "(I would like|We would like) to (eat|dine|reserve|book) (with|for) {people} people on {day} at {time}.", "(Keep|Hold|Save) (a table|seats|{people} seats) (for {people}|for us {people}|) on {day} at {time}.", "We will be {people} people and would like to eat on {day} at {time}.", "On {day} at {time} we want dinner for {people}, please reserve.", "(Find|Get|Look for|Secure|Arrange) (us|me|them) (a place to eat|somewhere to sit|seats|a table|room) (for|with) {people}(,| on) {day}(,| at| around) {time}.", "(Is|See if|See whether|Ask if) (there is |there |they have )(room|space|a free table) for {people} (at|from) {time} (on|this|next) {day}(,| and) (reserve it|book it|take it)( please|).", "(My|Our|The) (family|team|group|party) of {people} (is hungry|comes|wants to eat|arrives) (on |)(this |){day}(,| at) {time}(.|:|,) (Book something|reserve|get us seats)( please|).", "{day}(,| at) {time}(,|:) (dinner|lunch|restaurant|table)(,| for) {people}."),
        ("{people} of us come on {day} at {time}, book us a table.", "Can we get a table in the restaurant on {day}, {time}, {people} guests?"),
        {"status": lambda r: r.choice(("booked", "confirmed"))},
        "A table for {people} on {day} at {time} is {status}.",
    ),
    Tool(
        "play_music", "Play music of an artist or a style", {"query": _text("Artist or style", _phrase)},
        ("Play (some |)(music|songs) (of|by|like|from) {query}.", "Play {query}(, please|).", "(Put on|Start) (some |)(songs|music) (of|by|from) {query}.", "I (want|would like) to (hear|listen to) {query}.", "(Can|Could) you play {query}?", "(Let|Make) (the speakers|the radio|us|me) (sound with|hear|play|listen to) {query}.", "(I am|We are) in the mood for (music by|songs by|some|) {query}.", "(I|We) (feel like|like|love) {query}(.|,) (Play it.|put it on|play some)", "(Music|Songs|A song) (by|of|from|:) {query}( please|).", "(Give|Sing) (me|us) (some |){query} (music|songs|to listen to).", "Let the speakers sound with {query}.", "I am in the mood for music by {query}.", "(My|Our|The) (ears|guests|party|friends|kids) (want|need|ask for|long for|demand) {query}(,| -|) (now|loud|please|turn it up|right away|)(.|!|)", "{query}(,|!|:) (turn it up|louder|on the speakers|play that|let it sound)( please|)(.|!|)", "(Fill|Flood) (the room|the house|the air) with {query}.", "(Nothing but|Only|Just|A little|More) {query} (for me|tonight|today|will do|on the radio)( please|)(.|!|)"),
        ("How about some music of {query}?", "Turn on the music, I want {query}."),
        {"status": lambda r: "playing"},
        "Now playing {query}.",
    ),
    Tool(
        "set_temperature", "Set the temperature of a room", {"room": _text("Name of the room", lambda r: r.choice(["kitchen", "bedroom", "office", "bathroom", "hall", "cellar", "garage", "library"])), "degrees": _whole("Temperature in degrees", 10, 30)},
        ("(Set|Turn|Change) the (temperature of the |temperature in the |){room} to {degrees}( degrees|).", "(Make|Heat|I want) the {room} (to |){degrees} degrees( warm|).", "(Can|Could) you set the {room} to {degrees}( degrees|)?", "{room} to {degrees}( degrees|)", "(It|The {room}) (should|must|has to) (be|have) {degrees} degrees( in the {room}|)( please|).", "(Warm|Heat|Cool) the {room} (up |)(until it has|to|till it has) {degrees} degrees.", "(I want|I need|We want) {degrees} degrees in the {room}.", "(The |)temperature (in|of) the {room}(:| should be| to) {degrees}( degrees|).", "(Put|Bring|Get) the {room} (at|to|up to) {degrees}( degrees|).", "It should be {degrees} degrees in the {room}.", "Warm the {room} up until it has {degrees} degrees.", "{degrees}( degrees|) (in|for) the {room}(,| that) (please|is what I want|suits me|will do).", "(It is|I find it|Everybody finds it) (too |so |)(cold|hot|chilly|warm|fresh|icy) in the {room}(,|:|.) (make it|bring it to|set|go for|we need|I prefer|let it be) {degrees}( degrees|).", "(Raise|Lower) (the temperature|the thermostat|the radiator) (in|of|for) the {room} to {degrees}( degrees|).", "(Thermostat|Heater|Radiator|Climate)(,| of the| in the|:) {room}(,|:| to| at) {degrees}( degrees|)."),
        ("My {room} is cold, {degrees} degrees would be good.", "Adjust the heating of the {room}: {degrees} degrees."),
        {"status": lambda r: "set"},
        "The {room} is set to {degrees} degrees.",
    ),
    Tool(
        "get_user", "Look up a user by name", {"name": _text("Name of the user", words.some_name)},
        ("(Look up|Find|Get|Show me|Search) the (user|account|profile) (of |called |named |){name}.", "Who is the user {name}?", "(Show|Give) me (the account|the profile|the data|everything) of {name}.", "(Is there|Do we have) a user (called|named) {name}?", "user {name}", "(What|Which data) do we (have|know|hold) (on file |)(for|about|of) {name}?", "(Bring|Pull|Call) up the (record|account|profile|data) of (the user |)(whose name is |named |){name}.", "(I need|I want|Get me) (the |)(user data|record|account|user|details) (of|for|about) {name}.", "(Does|Is) {name} (have an account|a user|registered|in our system)?", "(Details|Account|Profile|Record)(:| of| for) {name}", "What do we have on file for {name}?", "Bring up the record of the user whose name is {name}.", "(Somebody|A person|A caller|Someone) (called|named|by the name of) {name} (says they have|claims to have|asks about|lost) (an account|a login|a profile)(.|,|:) (Look|Check|Is that so?|Is it true?|Find it)( please|).", "(Pull|Open|Get|Read) the (file|sheet|data|entry|card) (on|of|about|for) {name}.", "(Do|Have) we (know|registered|store|have) (a |some |)(person |)(called |named |){name}( among our users| as a user| in the system|)?", "{name}(:|,|?) (which account|user data|what user is that|profile please|do we know this user)."),
        ("Check our users for somebody with the name {name}.", "Show the user record that belongs to {name}."),
        {"id": lambda r: r.randint(100, 9999)},
        "The user {name} has the id {id}.",
    ),
)  # fmt: skip
