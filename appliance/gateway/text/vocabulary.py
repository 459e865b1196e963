"""Bytes of every token: the table that ids are turned into text by, without the tokenizer.

Two styles of vocabulary are read. *Byte-level* BPE (GPT-2, Llama 3, Qwen) spells every byte by a printable character.
*Byte-fallback* BPE (SentencePiece: Llama 2, Mistral) spells text as such, with U+2581 for a space, and has a token `<0xNN>`
for each byte that the vocabulary lacks. A decoder section that does anything else is refused.
"""

from typing import Any

from appliance.gateway.text.errors import ModelFolderRefused
from appliance.gateway.text.model_folder import TokenizerFile

SHOWN_MARKS = frozenset(
    mark.encode()
    for mark in (
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<think>"),
        "</think>",
        *(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
    )
)
"""Control tokens that stand in an answer's text: the marks that `gateway.tools` reads calls and reasoning by."""
_SPACE_MARK = "▁"


class Vocabulary:
    """Bytes by token id; which ids are control tokens; how a text begins.

    Attributes:
        special_ids: control tokens, which no text may become.
        silent_ids: those of them that an answer's text does not show: all but the marks of tool calls and reasoning.
        byte_fallback: the second style, in which bytes that are not UTF-8 read as one U+FFFD each.
        num_stripped: spaces taken off the very beginning of a text that starts with this vocabulary's first token.
    """

    def __init__(
        self, table: list[bytes], special_ids: frozenset[int], *, byte_fallback: bool, num_stripped: int
    ) -> None:
        self.table = table
        self.special_ids = special_ids
        self.silent_ids = frozenset(token_id for token_id in special_ids if table[token_id] not in SHOWN_MARKS)
        self.byte_fallback = byte_fallback
        self.num_stripped = num_stripped

    def __len__(self) -> int:
        return len(self.table)

    def bytes_of(self, token_id: int) -> bytes:
        """A token's bytes; ids past the table (padding of the embedding) have none."""
        return self.table[token_id] if token_id < len(self.table) else b""

    def text_of(self, token_id: int) -> str:
        """A token alone as text, for display: bytes that are no whole character become U+FFFD."""
        return self.bytes_of(token_id).decode("utf-8", "replace")

    @property
    def longest_token(self) -> int:
        """Most bytes that one token can stand for."""
        return max(len(entry) for entry in self.table)


def build_vocabulary(file: TokenizerFile) -> Vocabulary:
    """Build the table from a tokenizer's own sections.

    Raises: ModelFolderRefused for a decoder of another style.
    """
    strings = file.vocabulary()
    byte_level, num_stripped = _style(file.decoder)
    to_bytes = _byte_level_bytes if byte_level else _byte_fallback_bytes
    size = 1 + max([*strings.values(), *(token.id for token in file.added_tokens)], default=-1)
    if size > 1 << 22:
        raise ModelFolderRefused(f"tokenizer.json: a token has id {size - 1}")
    table = [b""] * size
    for string, token_id in strings.items():
        table[token_id] = to_bytes(string)
    for token in file.added_tokens:
        table[token.id] = to_bytes(token.content)
    special = frozenset(token.id for token in file.added_tokens if token.special)
    return Vocabulary(table, special, byte_fallback=not byte_level, num_stripped=num_stripped)


def _style(decoder: dict[str, Any] | None) -> tuple[bool, int]:
    """Is it byte-level, and how many leading spaces does the decoder strip?"""
    if decoder is None:
        raise ModelFolderRefused("tokenizer.json: there is no decoder section")
    steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return True, 0
    num_stripped = 0
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
                pass
            case {"type": "ByteFallback"} | {"type": "Fuse"}:
                pass
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0}:
                num_stripped = start
            case _:
                raise ModelFolderRefused(f"tokenizer.json: decoder {kinds} is not supported, at {step.get('type')}")
    if kinds not in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        raise ModelFolderRefused(f"tokenizer.json: decoder {kinds} is not supported")
    return False, num_stripped


def _byte_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    alphabet.update({chr(0x100 + offset): byte for offset, byte in enumerate(others)})
    return alphabet


_BYTE_OF = _byte_characters()


def _byte_level_bytes(string: str) -> bytes:
    """A token with a character outside the alphabet (added tokens have such) is its own text."""
    try:
        return bytes([_BYTE_OF[character] for character in string])
    except KeyError:
        return string.encode()


def _byte_fallback_bytes(string: str) -> bytes:
    if len(string) == 6 and string.startswith("<0x") and string.endswith(">"):
        try:
            return bytes([int(string[3:5], 16)])
        except ValueError:
            pass
    return string.replace(_SPACE_MARK, " ").encode()
