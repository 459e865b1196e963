"""Scenes: records that are only trained on, most with two values of one class, so that a value's role is read from its verb.

Who gives and who gets, where a way begins and ends, the old and the new number: a look does not tell them apart. Every
scene is told with either of the two first.
"""

# A template stands on one line, however long it is.
# ruff: noqa: E501

from random import Random
from typing import Any

from appliance.demo.corpus import values, words
from appliance.demo.corpus.records import Draw, Record


def _from(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high) if rng.random() < 0.8 else values.whole(rng)


def _item(rng: Random) -> Any:
    return rng.choice((rng.choice(words.PRODUCTS), rng.choice(values.NOUNS), values.thing(rng)))


def _beast(rng: Random) -> str:
    return rng.choice(words.ANIMALS) if rng.random() < 0.7 else rng.choice(values.NOUNS)


_ROOMS = words.listed("kitchen hall cellar attic office library garage studio workshop stable")
_SUBJECTS = words.listed(
    "algebra chemistry drawing history music geography physics dancing chess pottery cooking biology"
)

SCENES = (
    Record(
        "gift",
        {"giver": values.person, "receiver": values.person, "item": _item, "date": values.date},
        (
            "{giver} (gave|handed|brought|passed|lent|mailed|left) {receiver} (a|the|this|that) {item} on {date}.",
            "{receiver} (got|received|was given|accepted|was handed) (a|the|this) {item} from {giver} on {date}.",
            "On {date} (a|the|one) {item} (went|passed|was handed over|moved) from {giver} to {receiver}.",
            "(It was|That was) {giver} who (gave|sent|brought) the {item} to {receiver}(,| on|; date) {date}.",
            "The {item} that {receiver} (has had|keeps|owns) since {date} (came|was a present|is|stems) from {giver}.",
            "{receiver} (thanked|thanks|wrote to) {giver} for the {item} (of|received on|from) {date}.",
            "(To|For) {receiver}(,|:) (a|the|one) {item}(,| sent) (by|from) {giver}(,| on| dated) {date}.",
            "(From|By) {giver}(,|:) (a|the|one) {item} (to|for) {receiver}(,| on| dated) {date}.",
            "{giver} (parted with|gave up|gave away) (a|the) {item} on {date}, and {receiver} (has it now|took it|is happy with it).",
            "{giver}'s {item} (belongs to|is with|went to) {receiver} since {date}.",
        ),
        (),
    ),
    Record(
        "family",
        {"parent": values.person, "child": values.person, "age": _from(1, 60), "city": values.place},
        (
            "{parent} (lives|stays|is) in {city} with (a|the) (daughter|son|child) {child}, (aged|now|who is) {age}.",
            "{child} is {age} and (lives|grows up|stays) with (mother|father|parent) {parent} in {city}.",
            "{parent} (raised|brought up|had) {child} in {city}(;|, and|.) {child} is {age}( now|).",
            "{child}, {age}( years old|), (is a child of|was born to|calls) {parent} (in|of|from) {city}.",
            "(Young|Little|Old) {child} (has seen|has lived|counts) {age} (summers|springs|years|winters)(,|;) (the mother|the father|the parent) {parent} (works|lives) in {city}.",
            "(The mother|The father|The parent) of {child} is {parent}(,|;) (both|all) (of|in|from) {city}(,|;) {child} (turned|is|reached) {age}.",
            "In {city} {parent} (has|takes care of|teaches|leads) {child}, who (turned|will be|is) {age}.",
            "{age} years ago {parent} (had|gave birth to|welcomed) {child} in {city}.",
        ),
        (),
    ),
    Record(
        "beast",
        {"owner": values.person, "pet": values.person, "animal": _beast, "age": _from(1, 25)},
        (
            "{owner} (walks|brushes|washes|hides|sold|lost|misses) (a|the|this|that) {animal}(;|, |. )(its name is|it is called|it goes by|it hears|everybody calls it) {pet}(,|;| and) (it is|it has|now) {age}( years old| years|).",
            "{pet}(,| is| -) (the|a|that) {animal}(,| and) {age}( years old| years of age|)(,|;) (sleeps|lives|eats|stays|hides|plays) (with|near|beside|at the home of) {owner}.",
            "{age} years (old|of age)(,| is) {pet}(,|:) (the|a) {animal} (of|from|kept by|raised by|owned by) {owner}.",
            "(For|Since|Over) {age} years {owner} (has had|has kept|has fed|has owned|took care of) (a|the) {animal} (named|called|by the name of|with the name) {pet}.",
            "{owner} and {pet}(,|:) (a person and|one human and|the keeper and) (a|the) {animal} (of|aged|with) {age}( years|).",
            "{owner} (calls|whistles for|shouts for|looks for) {pet}(,| -) (the|a) {animal} (of|aged|with) {age}( years|).",
            "{pet} (barks|bites|sings|jumps|runs|hides) (when|whenever|as soon as) {owner} (comes|calls|leaves|sleeps)(;|.|,) (the|this|that) {animal} is {age}( years old|).",
            "(The|Our|A) vet (looked at|saw|weighed|treated) {pet}(,|:) (a|the) {animal} (of|aged) {age}( years|)(,| that| which) {owner} (brought|carried in|owns).",
            "(Nobody|No one) but {owner} may (feed|touch|hold|ride) {pet}(,| as| because) (the|this|a) {animal} (is|of|has) {age}( years|).",
            "Name(:|) {pet}(,|;) (kind|animal|species)(:|) {animal}(,|;) age(:|) {age}(,|;) (owner|keeper)(:|) {owner}.",
            "{owner} (has|owns|bought|got) {pet} when (the|that) {animal} was (small|young|a baby)(,|;|.) (today|now) it (is|has) {age}( years|).",
            "(One|Some|That) {animal} of {age}( years|)(,|:) {pet}(,|:) (is|was) (found|seen|fed|lost) (by|with) {owner}.",
        ),
        (),
    ),
    Record(
        "ride",
        {"driver": values.person, "from": values.place, "to": values.place, "time": values.time},
        (
            "{driver} (drives|rides|rolls|hurries|sails|walks|flies) (out of|away from|from|off from) {from} (to|toward|for|into) {to} at {time}.",
            "At {time} {driver} (turns up|arrives|lands|steps out|gets off|ends the ride|halts|stops) in {to}(,| after| having| coming from) (leaving |the road from |a start in |){from}.",
            "(The|A|Our) (bus|tram|boat|taxi|ship|plane|lorry) of {driver} (starts|sets out|sets sail|departs|rolls out|takes off|begins) (in|at|from) {from} (at|around) {time} (and|, then|;) (ends|stops|halts|lands|docks|arrives) (in|at) {to}.",
            "{to} (is the goal|is where it ends|is the last stop|is the end of the line)(,| for {driver}| of {driver})(;|,| and) (the start is|it begins in|it all starts in|the first stop is) {from}(,| at) {time}(.|, says {driver}.)",
            "(Between|On the way between) {from} and {to} (sits|drives|rides) {driver}(,| from| since) {time}.",
            "(All|Everybody|The guests) (gets on|climbs aboard|is picked up|meets|boards) in {from} at {time}(,|;|and) {driver} (takes|brings|carries|drives) (them|us|all) to {to}.",
            "{driver} (was|is|waits) in {from} (until|till) {time} (and|, then) (moves|goes|heads|leaves|travels) (on |)(to|for) {to}.",
            "{driver} (reaches|sees|enters|gets to|makes it to) {to} (at|by) {time}(,| having left| after leaving| straight out of| from) {from}.",
            "(Start|From|Departure|Origin)(:|) {from}(,|;) (end|to|arrival|destination)(:|) {to}(,|;) (driver|at the wheel)(:|) {driver}(,|;) {time}.",
            "{to} (waits for|expects|awaits|looks out for) {driver} at {time}(;|,|.) (the way|the ride|the trip|the boat|the train) (began|begins|started|sets off|leaves) (in|at|from) {from}.",
        ),
        (),
    ),
    Record(
        "sale",
        {"seller": values.person, "buyer": values.person, "item": _item, "price": _from(1, 9999)},
        (
            "{seller} (sold|sells|let go of|parts with) (a|the|this) {item} (to|, and the taker is) {buyer} for {price}( euros| dollars| coins|).",
            "{buyer} (bought|buys|took|got|acquired) (a|the|this) {item} (from|off) {seller} for {price}( euros| dollars|).",
            "{buyer} (paid|pays|hands|gave|owes) {seller} {price}( euros| dollars|) for (a|the) {item}.",
            "{seller} (got|takes|received|asks|wants) {price}( euros| dollars|) from {buyer} for (a|the) {item}.",
            "For {price}( euros| dollars|) (a|the) {item} (moved|changed|went) from {seller} to {buyer}.",
            "(The|A) {item} of {seller} (is|was) {buyer}'s for {price}( euros| dollars|).",
            "(Seller|Sold by)(:|) {seller}(,|;) (buyer|bought by)(:|) {buyer}(,|;) {item}(,|;) {price}.",
            "{price}( euros| dollars|) (was|is|were) what {buyer} (had to pay|gave|spent) when {seller} (offered|sold|put up) the {item}.",
        ),
        (),
    ),
    Record(
        "lesson",
        {"teacher": values.person, "student": values.person, "subject": lambda rng: rng.choice(_SUBJECTS), "hours": _from(1, 40)},
        (
            "{teacher} (teaches|taught|shows|explains to) {student} {subject} for {hours} hours.",
            "{student} (learns|studies|takes|picked up) {subject} (from|with|under) {teacher}(,| for| in) {hours} hours.",
            "{hours} hours of {subject} (with|given by|by) {teacher} (for|are planned for|went to) {student}.",
            "{student} (has|sits in|attends|visits) {hours} (hours|lessons) of {subject}(,| and| where) {teacher} (is in charge|teaches|leads|stands at the board).",
            "(Under|Thanks to) {teacher}(,|) {student} (mastered|passed|understood) {subject} in {hours} hours.",
            "In {subject}(,|) {student} (needs|takes|wants) {hours} hours(;|,| and) {teacher} (gives|offers|holds) them.",
        ),
        (),
    ),
    Record(
        "shift",
        {"worker": values.person, "start": values.time, "end": values.time, "day": lambda rng: rng.choice(words.DAYS)},
        (
            "{worker} (works|is on duty|serves|watches) from {start} (to|until|till) {end} on {day}.",
            "On {day} {worker} (begins|starts|comes in|opens up) at {start} and (ends|stops|leaves|goes home|closes) at {end}.",
            "{worker} (stays|works|is here) until {end} on {day}, (having begun|starting|after a start) at {start}.",
            "{day}(,|:) {start} - {end}(,|:) {worker}.",
            "(The|A) shift of {worker} on {day} (ends|is over|closes) at {end}(;|,| and) (it begins|it starts|the start is) at {start}.",
            "Between {start} and {end} (on|this|next) {day} (ask|call|see|find) {worker}.",
        ),
        (),
    ),
    Record(
        "stay",
        {"guest": values.person, "arrival": values.date, "departure": values.date, "room": values.whole},
        (
            "{guest} (arrives|comes|checks in|moves in) on {arrival} and (leaves|departs|checks out|moves out|goes) on {departure}, room {room}.",
            "Room {room} (is|was) (taken|booked|kept) (by|for) {guest} from {arrival} (to|until|till) {departure}.",
            "{guest} (has|takes|gets|sleeps in) room {room} until {departure}(,| coming| starting| from) (on |){arrival}.",
            "(On|Before) {departure} {guest} (gives back|leaves|hands over) room {room}, (taken|entered|used) (since|on) {arrival}.",
            "{arrival} to {departure}(:|,) {guest}(,|;) (room |number ){room}.",
        ),
        (),
    ),
    Record(
        "change",
        {"name": values.thing, "old": values.whole, "new": values.whole, "date": values.date},
        (
            "(On|Since|From) {date} (the |){name} (rose|fell|went|moved|changed|climbed) from {old} to {new}.",
            "(The |){name} (is|was set to|reads|shows|became) {new} (since|as of|on) {date}(,|;) (before|until then|earlier) it (was|read|stood at) {old}.",
            "{old} (was|is) the old (figure|value|number) of {name}, {new} (is |)the new one(,| since| as of) {date}.",
            "(We|They|Somebody) (replaced|changed|swapped) {old} (by|for|with|to) {new} (at|for|in) (the |){name} on {date}.",
            "(Instead of|Not|No longer) {old}(,|) (but |){new} (is|holds|counts) for (the |){name} (from|since|on) {date}( on|).",
        ),
        (),
    ),
    Record(
        "game",
        {"home": values.place, "visitor": values.place, "home_goals": _from(0, 9), "visitor_goals": _from(0, 9)},
        (
            "{home} (played|plays|met|hosted) {visitor} (and it ended|and the score is|with the result) {home_goals} to {visitor_goals}.",
            "{home} - {visitor} {home_goals}:{visitor_goals}",
            "{visitor} (came|travelled|went) to {home} and (scored|shot|made) {visitor_goals}(,|;| while| and) {home} (scored|shot|made|had) {home_goals}.",
            "{home_goals} (goals|points) (for|by) {home} and {visitor_goals} (for|by) (the guests|the visitors|the guest team) (from|of) {visitor}.",
            "(The hosts|The home team) (of|from) {home} (made|scored|got) {home_goals}(,|;| and) {visitor}(, the guests,|, as visitors,|) (made|scored|got) {visitor_goals}.",
        ),
        (),
    ),
    Record(
        "letter",
        {"sender": values.person, "recipient": values.person, "city": values.place, "code": values.code},
        (
            "{sender} (wrote|sent a letter|writes|mails|sent news|posted a card) to {recipient} in {city}(,| under| with) (the sign |the number |code |){code}.",
            "{recipient} (reads|opens|got|holds|answers) (a letter|news|a card|the mail) {code} from {sender} (in|at|out of) {city}.",
            "(Letter|Mail|Parcel|Card) {code}(:|,) (from |by |){sender} (to|for) {recipient}(,|;) {city}.",
            "To {recipient}, {city}(.|:|,) {sender} (says|writes|sends) {code}.",
            "In {city} {recipient} (waits|looks|asks) for {code}(,| which) {sender} (sent|promised|mailed|wrote).",
            "{sender} (could not|did not|will) (reach|find|meet) {recipient} in {city}(,| so| and| hence) {code} (was returned|came back|stays|is lost|will be sent).",
        ),
        (),
    ),
    Record(
        "house",
        {"tenant": values.person, "landlord": values.person, "rent": _from(50, 3000), "city": values.place},
        (
            "{tenant} (rents|lives in|took) (a house|a flat|two rooms|an attic) (of|from|owned by) {landlord} in {city} for {rent}( euros|)( a month|).",
            "{landlord} (lets|rents out|owns|gives) (a house|a flat|rooms) in {city} (to|, and) {tenant} (pays|, who pays|, paying|for) {rent}.",
            "{tenant} (pays|owes|sends) {landlord} {rent}( euros|)( every month| a month|) for (a home|a flat|a room) in {city}.",
            "{landlord} (gets|takes|collects|wants) {rent}( euros|) from {tenant} for (the flat|the house) in {city}.",
            "In {city}, {tenant} (sleeps|lives|stays) under the roof of {landlord} for {rent}.",
        ),
        (),
    ),
    Record(
        "measure",
        {"room": lambda rng: rng.choice(_ROOMS), "width": values.whole, "height": values.whole, "color": lambda rng: rng.choice(words.COLORS)},
        (
            "The {color} {room} (measures|is|has) {width} (wide|in width|across) and {height} (high|tall|in height).",
            "{height} high and {width} wide(,|:) (this|that) is the {color} {room}.",
            "(Our|The) {room} (was painted|is|became|turned) {color}(,|;| and) (its width is|it is as wide as) {width}(,|;| and) (its height is|as high as) {height}.",
            "{width} by {height}(,|:) {color}(,|:) the {room}.",
            "(Paint|Make|Keep) the {room} {color}(.|,|;) (width|It is wide:) {width}(,|;) (height|and high:) {height}.",
        ),
        (),
    ),
    Record(
        "job",
        {"name": values.person, "boss": values.person, "job": lambda rng: rng.choice(words.JOBS), "salary": _from(100, 9000)},
        (
            "{name} (works|serves|toils|is employed) as a {job} for {boss} and (earns|gets|takes home) {salary}( euros|).",
            "{boss} (hired|employs|pays|took on|trusts) {name}(,| as) (a|the|our) {job}(,| for| at| with) {salary}( euros|)( a month|).",
            "(A|The) {job} (named|called) {name} (gets|receives|earns) {salary}( euros|) from {boss}.",
            "{name} (reports|answers|listens) to {boss}(,| as| being) (a|the) {job}(,| on| paid) {salary}.",
            "(The boss|The head|The chief) is {boss}(,|;| and) {name}(,| is) (a|the) {job}(,| with| for| paid) {salary}.",
            "{salary}( euros|) (is|was|goes to|reaches) {name}(,| as) (a|the|our) {job}(,| under| paid by| from) {boss}.",
        ),
        (),
    ),
)  # fmt: skip
