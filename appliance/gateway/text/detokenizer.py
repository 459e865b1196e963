"""Token ids to text, a few at a time, in whole characters only.

What has come out so far is a prefix of what the whole would give: a character is held back until its last byte is here, and
bytes that cannot become one read as U+FFFD. The result equals the `tokenizers` library's decoding of the whole, but for one
case: that library destroys a run of byte tokens altogether if any byte of it is wrong, characters before it included, which
cannot be undone in a stream; here they stand.
"""

import codecs
from collections.abc import Iterable

from appliance.gateway.text.vocabulary import Vocabulary


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """As byte-fallback decoding does: one U+FFFD for every byte, not one a sequence."""
    assert isinstance(error, UnicodeDecodeError)
    return "�" * (error.end - error.start), error.end


codecs.register_error("casemate-each-byte", _replace_each_byte)
_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """State of one text that grows. Control tokens give no text."""

    def __init__(self, vocabulary: Vocabulary, *, at_start: bool) -> None:
        """Begin a text.

        Args:
            at_start: the first token begins a text of its own, so that a space which the vocabulary puts before every
                first word is taken off; False if the text goes on after a prompt.
        """
        self._vocabulary = vocabulary
        self._decoder = _new_decoder("casemate-each-byte" if vocabulary.byte_fallback else "replace")
        self._to_strip = vocabulary.num_stripped if at_start else 0

    def feed(self, token_id: int) -> str:
        """The text that is certain now that one more token is known; often none."""
        vocabulary = self._vocabulary
        if token_id in vocabulary.silent_ids:
            return ""
        data = vocabulary.bytes_of(token_id)
        # Where no character is begun, bytes that are ASCII are whole characters, and nearly all tokens are.
        text = data.decode("ascii") if data.isascii() and not self._decoder.buffer else self._decoder.decode(data)
        return self._strip(text) if self._to_strip else text

    def finish(self) -> str:
        """What was held back: U+FFFD for an incomplete character."""
        return self._strip(self._decoder.decode(b"", final=True))

    def _strip(self, text: str) -> str:
        while self._to_strip and text:
            if text[0] != " ":
                self._to_strip = 0
                break
            text = text[1:]
            self._to_strip -= 1
        return text


def detokenize(vocabulary: Vocabulary, token_ids: Iterable[int], *, at_start: bool = True) -> str:
    """The text of a whole sequence."""
    detokenizer = Detokenizer(vocabulary, at_start=at_start)
    pieces = [detokenizer.feed(token_id) for token_id in token_ids]
    return "".join([*pieces, detokenizer.finish()])
