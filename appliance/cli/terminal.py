r"""What others wrote, on its way to somebody's terminal: nothing moves the cursor, or turns the direction of writing.

Control characters (C0, DEL, and C1, which some terminals obey in UTF-8) and those that Unicode calls formats, bidirectional
overrides among them, can make a line say something else than it holds, or hide those before it. JSON has an escape for each
character, and a text with escapes is equal JSON; so records are printed in ASCII alone, whatever reads them behind a pipe, as
that may be `head` or `less`. Only the very bytes of a leaf, which are hashed, and a body that was opened go to a pipe or a file
as they are.
"""

import json
import re
import sys

_NOT_PLAIN = re.compile(r"[^\n\x20-\x7e]")


def escape_json(text: str) -> str:
    r"""The same JSON in printable ASCII. Line breaks stay: in a string of JSON there are none."""
    return _NOT_PLAIN.sub(lambda found: "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1], text)


def escape_text(text: str) -> str:
    r"""One line for people: letters of all languages as they are, what is not printable by its number, such as \x9b or \u202e."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(line: str) -> None:
    """Print one line to standard output, escaped."""
    print(escape_text(line))


def show_bytes(data: bytes) -> bytes:
    """What goes to standard output of bytes that are JSON: to a terminal escaped, anywhere else as they are."""
    if not sys.stdout.isatty():
        return data
    return escape_json(data.decode("utf-8", "backslashreplace")).encode("ascii")
