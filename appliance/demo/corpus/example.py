"""One example of the corpus: a conversation, or a plain text, with what the evaluation expects.

An example knows its kind, the template family it was made from and, where it is to be scored, the expected result. The
corpus hash is taken over its canonical form, so that the corpus can be compared anywhere without storing it.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Kind = str
PRODUCT, ARITHMETIC, EXTRACTION, TOOL, STORY, SMALLTALK = (
    "product",
    "arithmetic",
    "extraction",
    "tool",
    "story",
    "smalltalk",
)
# The telling of a tool's result; only the development set measures it.
RESULT = "result"


@dataclass(frozen=True)
class Message:
    """One turn: role is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation whose assistant turns are to be learnt; or, without messages, a plain text.

    `expected` is what the last assistant turn is scored by: a list of facts for product and results, a number for
    arithmetic, an object for extraction and tool calls.
    """

    kind: Kind
    family: str
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""
    expected: Any = field(default=None, compare=False)

    def canonical(self) -> bytes:
        """The bytes that the corpus hash covers."""
        turns = [[message.role, message.content] for message in self.messages]
        return json.dumps([self.kind, self.family, turns, self.tools, self.text], ensure_ascii=False).encode() + b"\n"


def corpus_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over the canonical forms in order, as 64 hex digits."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.canonical())
    return digest.hexdigest()


def dialogue(kind: Kind, family: str, question: str, answer: str, expected: Any = None) -> Example:
    """An example of one question and its answer."""
    return Example(kind, family, (Message("user", question), Message("assistant", answer)), expected=expected)
