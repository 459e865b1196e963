"""The records of the extraction examples: their fields, the sentences that carry them, and the clauses to piece them from.

Each kind of record keeps sentences that are held out.
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
class Record:
    """A kind of record: how each field is drawn, and the sentences that carry the fields."""

    name: str
    fields: dict[str, Draw]
    sentences: tuple[str, ...]
    held_out: tuple[str, ...]


def _number(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def _one_of(choices: list[str]) -> Draw:
    return lambda rng: rng.choice(choices)


RECORDS = (
    Record(
        "person",
        {"name": words.some_name, "age": _number(3, 95), "city": words.some_place, "job": _one_of(words.JOBS)},
        (
            "{name} is {age} years old(,| and) works as a {job} (and lives in|in) {city}.",
            "{name}, {age}, is a {job} (from|in) {city}.",
            "My (friend|neighbour|cousin|colleague) {name} (lives in|comes from|moved to) {city}, is {age} years old and works as a {job}.",
            "In {city} (there is|I met|we know) a {job} (named|called) {name} who is {age} years old.",
            "(The|Our) {job} {name} from {city} turned {age} (today|last week|this year).",
            "At the age of {age}, {name} (became|is) a {job} in {city}.",
            "{name} has lived in {city} for years, earns a living as a {job} and is now {age} years old.", "Meet {name}: {age} years old, {job}, resident of {city}.",
            "(We|They|I) (took on|employ|met|interviewed|know) {name}(, | )(from|of|out of) {city}, (a|who is a) {job} (of|aged|with) {age}( years|).",
            "(Ask|Call|Look for|Send for) the {job} (over in|from|in) {city}(,|:) {name}(, | is )(aged|now|already) {age}.",
            "(Though|While|Since|Because) {name} is (only|already|just) {age}, (all of|half of|the whole of) {city} (trusts|calls|praises|knows) this {job}.",
            "(With|After|At) {age} (years|summers|birthdays) {name} (still|now|gladly) (serves|helps|works for) {city} as (a|its|their) {job}.",
            "(Nobody|No other {job}) in {city} (is like|works like|matches) {name}, (who is|aged|a {job} of) {age}.",
        ),
        ("{name} is a {age} year old {job} whose town is {city}.", "The {job} in {city}, {name}, celebrates birthday number {age}."),
    ),
    Record(
        "order",
        {"customer": words.some_name, "quantity": _number(1, 99), "product": _one_of(words.PRODUCTS), "color": _one_of(words.COLORS)},
        (
            "{customer} (orders|buys|wants|needs) {quantity} pieces of the {color} {product}.",
            "Please send {quantity} units of the {product} in {color} to {customer}.",
            "Order (from|by) {customer}: {quantity} x {product}, {color}.",
            "{customer} (ordered|bought) the {color} {product}, {quantity} (pieces|times|units).",
            "We (sold|shipped) {quantity} of the {product} in {color} to {customer} (today|yesterday|).",
            "A request came in from {customer}, who asks for the {product} in {color}, {quantity} of them.", "Ship the {color} {product} to {customer}, quantity {quantity}.",
            "(A|The|One) (box|crate|pallet|packet|truck) (with|of|carrying) {quantity} {color} (copies|samples|examples|ones) of the {product} (goes|is on its way|travels|was sent) to {customer}( today| at once|).",
            "{customer} (wrote|called|rang|mailed|says)(:| that|,) {quantity} (times|of) the {product}(,| should come| please), (all|only|everything) in {color}.",
            "(Regarding|About|As for) the {product}(,|:) {customer} (now wants|asks for|needs|takes) {quantity}, (in {color}|{color} please|all {color}).",
            "(Reserve|Prepare|Get ready) {quantity} (of the |)(items of the |){product}(,| in|, colour) {color}(,| for| to be sent to) {customer}.",
        ),
        ("Could you pack {quantity} {color} pieces of the {product}? They go to {customer}.", "{customer} has put the {product} on the list: {color}, {quantity} units."),
    ),
    Record(
        "meeting",
        {"person": words.some_name, "day": _one_of(words.DAYS), "time": words.some_time, "place": words.some_place},
        (
            "(The meeting|A meeting|Lunch) with {person} is on {day} at {time} in {place}.",
            "{person} (meets|will meet|wants to see) us in {place} on {day} at {time}.",
            "On {day} at {time} (I meet|we meet|there is a call with) {person} in {place}.",
            "Let us meet {person} in {place}, {day}, {time}.",
            "{person} comes to {place} (next|this|on) {day} at {time}.",
            "An appointment with {person} was set for {time} on {day}; it takes place in {place}.", "{day}, {time}: talk with {person}, location {place}.",
            "{person} (arrives|shows up|is expected|stands waiting|will be) (in|near|at the gates of) {place} (when it is|at|around) {time} (on|this|next) {day}.",
            "(I|We|They) (told|assured|asked) {person} (to be|to come|that we are) (at|in) {place} (by|at|before) {time}(,|;| on| -) {day}( it was| that is|).",
            "(Mark|Note|Remember) {day}(:|,) {person}(,| at) {place}(,| from) {time}( on|).",
            "{place}(,|:) {time}(,| on) {day}(.|:) {person} (wants|asked) to (talk|meet|see us).",
        ),
        ("Keep {day} {time} free, {person} visits our rooms in {place}.", "We sit down with {person} in {place} at {time}, on {day} that is."),
    ),
    Record(
        "contact",
        {"name": words.some_name, "email": words.some_email, "city": words.some_place},
        (
            "{name} from {city} (can be reached|is available|answers) at {email}.",
            "(Write to|Contact|Ask) {name} at {email}; {name} (is|works|lives) in {city}.",
            "My name is {name}, I live in {city} and my (email|address|mail address) is {email}.",
            "{name} ({city}): {email}",
            "The (email|mail address) of {name} in {city} is {email}.",
            "For questions turn to {name}, who sits in {city} and reads {email} daily.", "Send it to {email}, that is {name} in the {city} office.",
            "(When|If|In case) (something|anything|the door|the heating) (breaks|fails|is stuck), (mail|try|write) {email}(,|:) {name} (in|at|over in) {city} (will help|knows|answers).",
            "{email} (goes to|reaches|is the box of|leads to) {name}, (who|a colleague who) (sits|works|lives|is) in {city}.",
            "(A|My|The) (friend|colleague|partner|agent) from {city} (is called|is|goes by) {name}(,|:) (mail|write to|reach out to) {email}.",
            "(In|For|From) {city}(,|:) {name}(,| with| under) {email}.",
        ),
        ("Whoever has doubts should mail {email}; behind it is {name} of {city}.", "Our contact in {city}, {name}, uses the address {email}."),
    ),
    Record(
        "trip",
        {"traveller": words.some_name, "from": words.some_place, "to": words.some_place, "date": words.some_date},
        (
            "{traveller} (flies|travels|goes|drives) from {from} to {to} on {date}.",
            "On {date}, {traveller} (takes|took|booked) (a train|a flight|the bus) from {from} to {to}.",
            "(Book|I need) a (ticket|flight|train) for {traveller} from {from} to {to} on {date}.",
            "The (trip|flight|journey) of {traveller} to {to} starts in {from} on {date}.",
            "{traveller} leaves {from} on {date} and (arrives in|heads for) {to}.",
            "Departing {from} for {to} on {date}: passenger {traveller}.", "{traveller} has a seat on the train of {date} that runs between {from} and {to}.",
            "(The|A|Our) (bus|ship|ferry|train|coach|taxi) (collects|fetches|picks up|takes aboard) {traveller} (in|at) {from} on {date} (and|, then) (ends|halts|arrives|lets people out|goes on) (in|at|to) {to}.",
            "{to} (awaits|welcomes|will see|receives) {traveller} on {date}(;|,| and| after) (the|a|this) (train|plane|ship|ride) (leaves|starts|comes|departs) (from|in|out of) {from}.",
            "(Because|As|Although) {traveller} (likes|prefers|fears) (trains|ships|the sea|planes), (we|they) (travel|go|start|leave) (from|in) {from} (on|at) {date} (and|to) (reach|arrive at|see) {to}.",
            "(Next stop|Destination|Goal)(:| is) {to}(.|,) {traveller} (boarded|got on|left|started) (in|at) {from} on {date}.",
            "{traveller} (will be|arrives|is) in {to} (on|by) {date}, (leaving|after|having left|straight from) {from}.",
        ),
        ("{date}: {traveller} goes to {to}, coming from {from}.", "We drive {traveller} from {from} over to {to}, namely on {date}."),
    ),
    Record(
        "goods",
        {"product": _one_of(words.PRODUCTS), "price": _number(2, 999), "color": _one_of(words.COLORS), "stock": _number(0, 250)},
        (
            "The {color} {product} costs {price} euros and we have {stock} in stock.",
            "There are {stock} {color} pieces of the {product} left, at {price} euros each.",
            "{product}, {color}, {price} euros, {stock} in stock",
            "We (sell|offer) a {color} {product} for {price} euros; {stock} are (left|available|in stock).",
            "For {price} euros you get the {color} {product}, of which {stock} are (left|available).",
            "Our catalogue lists a {product} in {color} priced at {price} euros with {stock} available.", "Only {stock} units of the {color} {product} remain, the price is {price} euros.",
            "(Just|Merely|Still|Only) {stock} (of our|of the|of these) {color} {product} (pieces|articles|items|ones) (stand|are|wait|lie) (on the shelf|in the shop|here), (each|yours|sold) (for|at) {price}( euros|).",
            "(Pay|Give us|Spend) {price} (euros |)and (get|take|carry home) (a|the) {product} in {color}(,|;) {stock} (are there|remain|to go|can be had).",
            "(A|The|Our) {product}, (of course|as ever|naturally) {color}, (is|goes|sells) (for|at) {price}( euros|) (while|as long as|until) (the |all ){stock} (are gone|last|are sold).",
            "{price}( euros|) (buys|is the price of) (a|one) {color} {product}(,|;| and) (we keep|there are) {stock}.",
        ),
        ("You can have the {product} in {color} today, {price} euros a piece, {stock} in store.", "In store: {stock} of the {product}, colour {color}, {price} euros each."),
    ),
    Record(
        "device",
        {"host": words.made_up, "status": _one_of(["running", "stopped", "ready", "failed", "degraded", "offline"]), "code": words.some_code, "port": _number(20, 9999)},
        (
            "Host {host} on port {port} is {status} (with|and reports) code {code}.",
            "{host} is {status}, code {code}, port {port}.",
            "The (server|machine) {host} listens on port {port}, its status is {status} and its code is {code}.",
            "Code {code}: {host} (is|was) {status} on port {port}.",
            "(Alert|Notice): {host}:{port} is {status} ({code}).",
            "We see code {code} from {host}, which is {status}; it uses port {port}.", "Status of {host} is {status}, seen on port {port} with code {code}.",
            "(Since|After|From) (noon|midnight|today|Monday)(,|) {host} (answers|gives|returns|sends) {code} (to|when) (anyone|all|whoever) (calls|asks|opens) port {port}(,| and| so it) (is|counts as|we call it) {status}.",
            "{status}(!|:|,) (that is|so is|thus reads) {host} (on|at|behind) {port}(,| after| because of) {code}.",
            "(We|I|They) (found|saw|noted|got) {code} (on|at|from) {port}(,| and| then) {host} (became|is|went|turned) {status}.",
            "{host} (went|became|turned) {status} (after|when|because) {code} (came|appeared|was seen) (on|at) (port |){port}.",
        ),
        ("The monitor shows {host} as {status}: code {code}, port {port}.", "Port {port} of {host} gave us the code {code}, so it is {status}."),
    ),
    Record(
        "invoice",
        {"number": words.some_code, "customer": words.some_name, "amount": _number(5, 5000), "date": words.some_date},
        (
            "Invoice {number} for {customer} (is|amounts to|comes to) {amount} euros and is due on {date}.",
            "{customer} (pays|owes|must pay) {amount} euros for invoice {number} (by|on|until) {date}.",
            "On {date} we sent {customer} the invoice {number} over {amount} euros.",
            "The bill {number} of {date} over {amount} euros goes to {customer}.",
            "{amount} euros from {customer}, invoice {number}, {date}",
            "{customer} received a bill of {amount} euros dated {date}, its number is {number}.", "Payment of {amount} euros is expected from {customer} before {date} under number {number}.",
            "(The books|We|Accounts|Our clerk) (still |)(lack|miss|wait for|want) {amount} (euros |)(of|from|by) {customer}(;|,|.) (see|it is|the paper is) {number}(,| from| of) {date}.",
            "{number} (is dated|was issued on|came on|bears the date) {date}(,| and|;) (it |)(charges|asks|bills) {customer} (for |){amount}( euros|).",
            "{customer} (got|has|received|lost) {number}(,| on| dated) {date}(,|:| for| with) {amount}( euros|) (to pay|due|open|in all).",
            "(Regarding|About|See) {number}(:|,) {amount}( euros|)(,| to be paid) by {customer}(,| on| until) {date}.",
        ),
        ("Please pay {amount} euros until {date}, {customer}; the invoice is {number}.", "We billed {customer} on {date} with {number}, the total being {amount} euros."),
    ),
    Record(
        "pet",
        {"owner": words.some_name, "pet": words.some_name, "animal": _one_of(words.ANIMALS), "age": _number(1, 20)},
        (
            "{owner} has a {animal} (named|called) {pet} that is {age} years old.",
            "{pet} is the {age} year old {animal} of {owner}.",
            "The {animal} {pet} belongs to {owner} and is {age} years old.",
            "{owner} (brought|took) the {animal} {pet}, aged {age}, to the vet.",
            "At {owner}'s house lives {pet}, a {animal} of {age} years.", "The name of the {animal} is {pet}, it is {age} years old and its owner is {owner}.",
            "(After|For|In) {age} years (the|that|this) {animal} (of|owned by|belonging to) {owner} (hears|listens|comes) (to|when called) {pet}.",
            "(Little|Old|Young|Poor|Sweet) {pet}(,| is) (a|the|one) {animal} (that|which) {owner} (raised|keeps|bought|feeds|adopted)(,| and) (is|now|has reached) {age}( years|).",
            "{owner} (feeds|loves|raised|found|bought|trained) (a|the|this) {animal}(, |: | and calls it | called ){pet}(,| which is|, now) {age}( years old| years|).",
            "(Have you met|Look at|This is) {pet}(, |? )(the|that|a) {animal} (from|of) {owner}('s house|'s farm|)(,| is| aged) {age}( years|).",
            "(A|The) {animal} (lives|stays|sleeps) (at|with) {owner}(:|,| and is called) {pet}(,| at the age of|, aged) {age}.",
            "{owner}'s {animal} {pet} (is|turned|reached|will be) {age}( years old| years|)( today| soon|).",
        ),
        ("The vet saw {pet}, the {animal} that {owner} has had for all its {age} years.", "{owner} walks with {pet}, who is a {animal} and {age} years old."),
    ),
    Record(
        "event",
        {"event": _one_of(["concert", "workshop", "lecture", "market", "festival", "race", "exhibition", "party"]), "city": words.some_place, "date": words.some_date, "guests": _number(5, 900)},
        (
            "The {event} in {city} on {date} (had|expects|has) {guests} guests.",
            "On {date} there (is|was) a {event} in {city} with {guests} (guests|visitors|people).",
            "{guests} people (came|will come) to the {event} in {city} on {date}.",
            "{city} (hosts|hosted) a {event} for {guests} guests on {date}.",
            "For the {event} of {date}, {city} counted {guests} guests.", "A {event} with {guests} guests took place in {city}, the date was {date}.",
            "{city} (sets up|prepares|puts out|has) {guests} (seats|chairs|places|beds) for (its|the|a) {event}(,| that| which) (opens|starts|begins) on {date}.",
            "(Nobody|Few people|Who) (thought|expected|hoped) that {guests} (people |)(would come|came|fit) to the {event} (in|of) {city} on {date}.",
            "{date} (is|was|will be) the (day|date) of the {event}(:|,) {guests} (people|guests|visitors) (in|come to|fill) {city}.",
            "(The|This|A) {event} (brings|brought|drew|draws) {guests} (visitors|people|fans) to {city} (on|around) {date}.",
        ),
        ("{guests} tickets were sold for the {event} that {city} plans for {date}.", "People in {city} still talk of the {event} of {date} and its {guests} guests."),
    ),
)  # fmt: skip

CLAUSES: dict[str, tuple[str, ...]] = {
    "person": ("{name}", "{name} is {age} years old", "aged {age}", "{age} years of age", "now {age} years old", "lives in {city}", "has a home in {city}", "resident in {city}", "a {job}", "works as a {job}", "a {job} by profession", "earns money as a {job}", "name: {name}", "age: {age}", "city: {city}", "job: {job}"),
    "order": ("{customer}", "for {customer}", "{customer} asks for the {product}", "quantity {quantity}", "{quantity} of them", "{quantity} pieces", "the {product}", "in {color}", "the {color} one", "a {color} {product}", "color {color}", "customer {customer}"),
    "meeting": ("with {person}", "{person} will be there", "the person is {person}", "on {day}", "next {day}", "at {time}", "it starts at {time}", "{time} o'clock", "in {place}", "the place is {place}", "it takes place in {place}", "we go to {place}"),
    "contact": ("{name}", "this is {name}", "ask for {name}", "reads {email}", "{email}", "write to {email}", "mail goes to {email}", "in {city}", "the {city} office", "sits in {city}", "based in {city}"),
    "trip": ("{traveller}", "passenger {traveller}", "the traveller is {traveller}", "from {from}", "starting in {from}", "departing {from}", "leaving {from}", "to {to}", "for {to}", "arriving in {to}", "with destination {to}", "on {date}", "the date is {date}", "departure {date}"),
    "goods": ("a {product}", "the {product}", "one {product}", "priced at {price} euros", "for {price} euros", "the price is {price} euros", "it costs {price} euros", "in {color}", "{color}", "the color is {color}", "{stock} available", "{stock} left", "with {stock} in stock", "{stock} units remain"),
    "device": ("host {host}", "from {host}", "{host}", "on {host}", "it is {status}", "which is {status}", "status {status}", "code {code}", "with code {code}", "we see {code}", "on port {port}", "port {port}", "it uses port {port}"),
    "invoice": ("number {number}", "invoice {number}", "its number is {number}", "under {number}", "{customer}", "for {customer}", "from {customer}", "sent to {customer}", "{amount} euros", "over {amount} euros", "a sum of {amount} euros", "of {date}", "dated {date}", "due {date}", "until {date}"),
    "pet": ("{owner}", "with {owner}", "the owner is {owner}", "owned by {owner}", "{pet}", "named {pet}", "called {pet}", "the name is {pet}", "a {animal}", "the {animal}", "an animal of the kind {animal}", "{age} years old", "aged {age}", "of {age} years"),
    "event": ("a {event}", "the {event}", "an event: {event}", "in {city}", "held in {city}", "the city is {city}", "on {date}", "of {date}", "the date was {date}", "{guests} guests", "with {guests} guests", "{guests} people came", "we counted {guests} guests"),
}  # fmt: skip
