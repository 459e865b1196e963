"""Text to token ids, by the `tokenizers` library without its notion of added tokens.

The library gets a copy of `tokenizer.json` with no added tokens and no post-processor: it cannot turn text into a control
token. Which control tokens belong into a prompt is decided here, from trusted text only (`special_tokens`), and the ids that
the post-processor would put around a text (`<s>`, in most) are known by number.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer as RawTokenizer

from appliance.gateway.text.errors import ModelFolderRefused, TextRefused
from appliance.gateway.text.model_folder import OnRead, load_tokenizer_file
from appliance.gateway.text.special_tokens import Segment, SpecialTokens
from appliance.gateway.text.vocabulary import Vocabulary, build_vocabulary


class Tokenizer:
    """One model's tokenizer. Not safe for concurrent use from threads that also change it; nothing here does."""

    def __init__(
        self,
        raw: RawTokenizer,
        vocabulary: Vocabulary,
        special: SpecialTokens,
        prefix: Sequence[int],
        suffix: Sequence[int],
    ) -> None:
        self.vocabulary = vocabulary
        self.special = special
        self._raw = raw
        self._prefix = list(prefix)
        self._suffix = list(suffix)
        self._longest_token = vocabulary.longest_token

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of text in which nothing is a control token."""
        ids = self._encode(text)
        if self.vocabulary.special_ids.isdisjoint(ids):
            return ids
        # Some vocabularies can spell a control token by ordinary merges. Cut the text inside each, so that no merge can.
        return [token_id for piece in self._cut(text) for token_id in self._encode_piece(piece)]

    def encode_prompt(self, text: str) -> list[int]:
        """A whole prompt as text: with what the tokenizer itself puts before and after one."""
        return [*self._prefix, *self.encode_plain(text), *self._suffix]

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """A rendered chat: control tokens by id, the rest as text. The template has put its own beginning."""
        ids: list[int] = []
        for segment in segments:
            if segment.token_id is None:
                ids.extend(self.encode_plain(segment.text))
            else:
                ids.append(segment.token_id)
        return ids

    def verify_may_fit(self, text: str, context_length: int, parameter: str) -> None:
        """Refuse text that cannot fit, before it is tokenized at all.

        Raises: TextRefused.
        """
        if len(text) > context_length * self._longest_token:
            raise TextRefused(
                "context_length_exceeded",
                f"{parameter} has {len(text)} characters, which cannot fit into the model's {context_length} tokens",
                parameter=parameter,
            )

    def _encode(self, text: str) -> list[int]:
        """Only batches let other threads run: `encode` holds the interpreter, a tenth of a second for 120,000 characters."""
        (encoding,) = self._raw.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def _cut(self, text: str) -> list[str]:
        marked = self.special.break_control(text, "\ufdd0") if "\ufdd0" not in text else "\ufdd0".join(text)
        return [piece for piece in marked.split("\ufdd0") if piece]

    def _encode_piece(self, piece: str) -> list[int]:
        ids = self._encode(piece)
        if self.vocabulary.special_ids.isdisjoint(ids):
            return ids
        raise TextRefused("invalid_text", f"the tokenizer turns {piece[:32]!r} into a control token")


def load_tokenizer(folder: Path, on_read: OnRead | None = None) -> Tokenizer:
    """Load a model folder's tokenizer.

    Raises: ModelFolderRefused.
    """
    content, file = load_tokenizer_file(folder, on_read)
    vocabulary = build_vocabulary(file)
    prefix, suffix = _template_ids(file.post_processor)
    return Tokenizer(_without_added_tokens(content), vocabulary, SpecialTokens(file.added_tokens), prefix, suffix)


def _without_added_tokens(content: bytes) -> RawTokenizer:
    sections = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    sections["added_tokens"] = msgspec.Raw(b"[]")
    sections["post_processor"] = sections["truncation"] = sections["padding"] = msgspec.Raw(b"null")
    try:
        return RawTokenizer.from_buffer(msgspec.json.encode(sections))
    except Exception as error:  # the library raises plain Exception for every malformed section
        raise ModelFolderRefused(f"tokenizer.json: {error}") from error


def _template_ids(post_processor: dict[str, Any] | None) -> tuple[list[int], list[int]]:
    """Ids that the post-processor puts before and after one sequence.

    Raises: ModelFolderRefused for a kind that we do not know.
    """
    if post_processor is None:
        return [], []
    steps = post_processor["processors"] if post_processor.get("type") == "Sequence" else [post_processor]
    prefix: list[int] = []
    suffix: list[int] = []
    for step in steps:
        match step:
            case {"type": "ByteLevel"}:
                pass
            case {"type": "TemplateProcessing", "single": list(single), "special_tokens": dict(special)}:
                before = True
                for item in single:
                    if "Sequence" in item:
                        before = False
                    else:
                        (prefix if before else suffix).extend(special[item["SpecialToken"]["id"]]["ids"])
            case _:
                raise ModelFolderRefused(f"tokenizer.json: post-processor {step.get('type')!r} is not supported")
    return prefix, suffix
