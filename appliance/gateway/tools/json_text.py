"""One JSON object (RFC 8259), read character by character: where it ends, and when it cannot be one any more.

Streaming parsers need that before there is a whole text to parse. Nothing is built: the text itself is what is passed on.
"""

MAX_DEPTH = 64
MAX_NUMBER_CHARS = 4096
"""Longer ones are a model that goes on and on; programs have bounds as well, Python 4,300 digits."""
_SPACE = " \t\n\r"
_LITERALS = ("true", "false", "null")
_ESCAPES = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"
_NUMBER_CHARS = "0123456789+-.eE"


class JsonObjectScanner:
    """State of one object.

    Attributes:
        depth: arrays and objects that are open.
        done: the object is whole.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.done = False
        self._stack: list[str] = []
        self._expects = "object"
        """object, key, first_key, colon, value, first_value, comma; or what is open: string, escape, hex, word, number."""
        self._is_key = False
        self._word = ""
        self._num_hex = 0

    def step(self, character: str) -> bool:
        """Take one character; False if no object can have it here, and then the scanner is of no more use."""
        if self.done:
            return False
        if self._expects in ("string", "escape", "hex"):
            return self._in_string(character)
        if self._expects == "word":
            self._word += character
            if self._word in _LITERALS:
                self._expects = "comma"
            return any(literal.startswith(self._word) for literal in _LITERALS)
        if self._expects == "number":
            if character in _NUMBER_CHARS:
                self._word += character
                return len(self._word) <= MAX_NUMBER_CHARS
            if not _is_number(self._word):
                return False
            self._expects = "comma"
        return True if character in _SPACE else self._structural(character)

    def _in_string(self, character: str) -> bool:
        if self._expects == "hex":
            self._num_hex -= 1
            if self._num_hex == 0:
                self._expects = "string"
            return character in _HEX
        if self._expects == "escape":
            self._expects, self._num_hex = ("hex", 4) if character == "u" else ("string", 0)
            return character in _ESCAPES or character == "u"
        if character == "\\":
            self._expects = "escape"
        elif character == '"':
            self._expects = "colon" if self._is_key else "comma"
        return character >= " "

    def _structural(self, character: str) -> bool:
        expects = self._expects
        if character in "}]":
            return self._close(character)
        if expects in ("key", "first_key"):
            self._expects, self._is_key = "string", True
            return character == '"'
        if expects == "colon":
            self._expects = "value"
            return character == ":"
        if expects == "comma":
            self._expects = "key" if self._stack[-1] == "}" else "value"
            return character == ","
        return self._begin_value(character, only_object=expects == "object")

    def _begin_value(self, character: str, *, only_object: bool) -> bool:
        if character == "{" or (character == "[" and not only_object):
            self._stack.append("}" if character == "{" else "]")
            self._expects = "first_key" if character == "{" else "first_value"
            self.depth += 1
            return self.depth <= MAX_DEPTH
        if only_object:
            return False
        if character == '"':
            self._expects, self._is_key = "string", False
            return True
        self._word = character
        self._expects = "number" if character in "-0123456789" else "word"
        return self._expects == "number" or character in "tfn"

    def _close(self, character: str) -> bool:
        allowed = ("comma", "first_key", "first_value")
        if self._expects not in allowed or not self._stack or self._stack.pop() != character:
            return False
        self.depth -= 1
        self._expects = "comma"
        self.done = self.depth == 0
        return True


def _is_number(word: str) -> bool:
    """RFC 8259 section 6: no leading zeros or plus, digits on both sides of the point."""
    digits = word.removeprefix("-")
    mantissa, mark, exponent = digits.replace("E", "e").partition("e")
    whole, point, fraction = mantissa.partition(".")
    if not (whole.isdigit() and (whole == "0" or whole[0] != "0")):
        return False
    if point and not fraction.isdigit():
        return False
    return not mark or (exponent[1:] if exponent[:1] in ("+", "-") else exponent).isdigit()
