"""Other words for the same: so that a question is known by what it means and not by the verb that a template chose.

Only words that may stand for each other in most sentences share a group; a reworded sentence may be clumsy, as people's
sentences are.
"""

# A group stands on one line.
# ruff: noqa: E501

import re
from random import Random

_GROUPS = (
    "get|obtain|acquire|fetch|receive|come by|pick up|lay hands on",
    "check|verify|test|examine|inspect|confirm|look over|ascertain",
    "show|display|present|let me see|demonstrate",
    "start|launch|boot|begin|fire up|bring up|kick off|power up",
    "run|execute|operate|work with",
    "stop|halt|shut down|quit|cease",
    "use|employ|utilize|apply|work with|make use of",
    "make|create|produce|generate|build|put together",
    "need|require|want|have to have|call for",
    "find|locate|discover|look up|come across|track down",
    "tell|inform|let know|teach",
    "explain|clarify|describe|illustrate|spell out|lay out|walk me through",
    "keep|hold|retain|preserve|store",
    "store|save|keep|put away",
    "change|alter|modify|adjust|edit|amend",
    "delete|remove|erase|wipe|drop|get rid of",
    "send|transmit|submit|pass|deliver|hand over",
    "write|put down|note|jot down",
    "read|see|look at|view|study",
    "happens|occurs|takes place|goes on|comes about|is the outcome",
    "dies|crashes|goes down|breaks down|collapses|exits|falls over|gives up",
    "fails|breaks|goes wrong|does not work|malfunctions",
    "works|functions|operates|does its job",
    "work|function|operate|behave",
    "know|learn|understand|find out|be told",
    "connect|link|hook up|attach|join",
    "allow|permit|let through|enable|authorize",
    "allowed|permitted|admitted|okay|legal",
    "refuse|reject|deny|turn down|decline",
    "protected|guarded|secured|shielded|kept safe",
    "prove|demonstrate|give evidence|establish",
    "sign|put a signature on|attest",
    "load|read in|take in",
    "install|set up|put on|deploy",
    "update|upgrade|renew|refresh|modernize",
    "split|divide|distribute|partition|break up",
    "share|have in common|use together",
    "choose|pick|select|decide on",
    "supported|accepted|possible|provided|catered for",
    "support|offer|provide|come with|include",
    "several|many|multiple|a few|a number of|various|two or more",
    "quick|fast|rapid|speedy",
    "big|large|huge|sizeable",
    "small|little|tiny",
    "wrong|false|incorrect|bad|mistaken",
    "right|correct|fine|proper|in order",
    "new|fresh|recent|latest",
    "old|former|previous|earlier",
    "important|essential|crucial",
    "safe|secure|trustworthy|sound",
    "people|persons|humans|folks|individuals",
    "users|people|employees|folks|colleagues",
    "machine|computer|host|server",
    "company|firm|organization|enterprise|business",
    "question|query|matter",
    "request|query|inquiry",
    "answer|reply|response|output",
    "command|instruction|tool|program call",
    "purpose|point|aim|goal",
    "difference|distinction|contrast",
    "way|method|means|approach",
    "kind|sort",
    "part|piece|component|element",
    "during|while in|in the course of|amid",
    "before|ahead of|prior to|earlier than",
    "after|following|once past|later than",
    "without|lacking|not having|in the absence of",
    "about|regarding|concerning|on the subject of",
    "if|in case|suppose|assuming|supposing|provided",
    "when|as soon as|whenever|once|in the moment that",
    "why|for what reason|how come|what for|to what end",
    "how|in what way|in which manner|by what means",
    "how do i|how can i|how would i|what must i do to|what do i do to|is there a way to|tell me how to|how am i supposed to|what is the way to",
    "can i|may i|could i|am i able to|is it possible to|would i be able to|do i get to",
    "what is|what's|what do you call|what would be|what do people mean by|tell me what is",
    "which|what",
    "lives|resides|dwells|is at home|has a home",
    "buys|purchases|orders|acquires",
    "bought|purchased|ordered|acquired",
    "sold|traded|let go",
    "gives|hands|presents|grants",
    "gave|handed|presented|passed",
    "arrives|shows up|turns up|gets in",
    "leaves|departs|goes off|sets off|heads out",
    "travels|journeys|moves|voyages",
    "meets|encounters|runs into|gets together with",
    "named|called|by the name of|known as",
    "belongs to|is owned by|is the property of|is in the hands of",
    "costs|is priced at|goes for|comes at",
    "pays|settles|puts down",
    "wants|wishes|desires|would like|asks for",
    "expects|awaits|waits for|looks out for",
    "begins|commences|sets in|opens",
    "ends|finishes|closes|comes to an end",
    "works as|earns a living as|is employed as|serves as",
    "aged|of the age of|at the age of",
    "guests|visitors|attendees|people who came",
    "euros|coins|pounds|dollars",
    "pieces|units|items|copies",
    "remain|are left|are still there|can be had",
    "likes|loves|is fond of|enjoys|adores",
    "brought|carried|took along|delivered",
    "also|as well",
    "me|us",
    "my|our",
)
_OTHERS: dict[str, tuple[str, ...]] = {}
for _group in _GROUPS:
    _words = tuple(_group.split("|"))
    for _word in _words:
        if _word not in _OTHERS and (len(_word.split()) == 1 or _word == _words[0]):
            _OTHERS[_word] = _words
_KNOWN = re.compile(
    rf"(?<![\w/`{{-])({'|'.join(sorted(map(re.escape, _OTHERS), key=len, reverse=True))})(?![\w/`}}-])", re.I
)


def reword(text: str, rng: Random, share: float) -> str:
    """Replace this share of the words that have others for them."""

    def other(found: re.Match[str]) -> str:
        word = found.group()
        if rng.random() >= share:
            return word
        chosen = rng.choice(_OTHERS[word.lower()])
        return chosen[0].upper() + chosen[1:] if word[0].isupper() else chosen

    return _KNOWN.sub(other, text)
