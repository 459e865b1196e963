"""The tokenizer's files in a model folder, read strictly and sparingly.

`tokenizer.json` of a large model is tens of megabytes of merges. Only the sections needed here are decoded; the rest goes
to the `tokenizers` library as it stands. What is of a kind that is not handled exactly is refused at start, by name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from appliance.gateway.text.errors import ModelFolderRefused

MAX_TOKENIZER_BYTES = 128 << 20
MAX_TEMPLATE_BYTES = 1 << 20

OnRead = Callable[[str, bytes], None]
"""Called with the name and the bytes of each file that is read, so that a caller can check what was really taken."""


class AddedToken(msgspec.Struct, frozen=True):
    """A token outside the model's own vocabulary, or a control token within it."""

    id: int
    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]


class TokenizerFile(msgspec.Struct):
    """The sections of `tokenizer.json` that the gateway looks into."""

    model: msgspec.Raw
    added_tokens: list[AddedToken] = []
    decoder: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None

    def vocabulary(self) -> dict[str, int]:
        """Token strings of the model section, decoded on demand: nothing keeps it.

        Raises: ModelFolderRefused for anything but BPE.
        """
        try:
            model = msgspec.json.decode(self.model, type=_Model)
        except msgspec.DecodeError as error:
            raise ModelFolderRefused(f"tokenizer.json: model section: {error}") from error
        if model.type != "BPE":
            raise ModelFolderRefused(f"tokenizer.json: model type {model.type!r} is not supported, expected 'BPE'")
        return model.vocab


class ChatTemplates(msgspec.Struct, frozen=True):
    """Templates by name (`default`, `tool_use`) and the token strings that they may name."""

    sources: dict[str, str]
    bos_token: str = ""
    eos_token: str = ""


def load_tokenizer_file(folder: Path, on_read: OnRead | None = None) -> tuple[bytes, TokenizerFile]:
    """Read `tokenizer.json`: its bytes, and the decoded sections.

    Raises: ModelFolderRefused.
    """
    content = _read(folder / "tokenizer.json", MAX_TOKENIZER_BYTES, on_read)
    try:
        return content, msgspec.json.decode(content, type=TokenizerFile)
    except msgspec.DecodeError as error:
        raise ModelFolderRefused(f"{folder / 'tokenizer.json'}: {error}") from error


def load_chat_templates(folder: Path, on_read: OnRead | None = None) -> ChatTemplates:
    """Read the chat templates: `chat_template.jinja`, or the entry of `tokenizer_config.json`; there may be none.

    Raises: ModelFolderRefused.
    """
    config = _load_config(folder / "tokenizer_config.json", on_read)
    template_file = folder / "chat_template.jinja"
    sources: dict[str, str] = {}
    entry = config.get("chat_template")
    if template_file.is_file():
        try:
            sources["default"] = _read(template_file, MAX_TEMPLATE_BYTES, on_read).decode()
        except UnicodeDecodeError as error:
            raise ModelFolderRefused(f"{template_file}: not UTF-8") from error
    elif isinstance(entry, str):
        sources["default"] = entry
    elif isinstance(entry, list):
        sources = {str(item["name"]): str(item["template"]) for item in entry if isinstance(item, dict)}
    elif entry is not None:
        raise ModelFolderRefused(f"{folder / 'tokenizer_config.json'}: chat_template is neither text nor a list")
    return ChatTemplates(sources, _token_text(config.get("bos_token")), _token_text(config.get("eos_token")))


def _load_config(path: Path, on_read: OnRead | None) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(_read(path, MAX_TEMPLATE_BYTES * 16, on_read), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ModelFolderRefused(f"{path}: {error}") from error


def _token_text(entry: Any) -> str:
    """Token entries are written as text, or as an object with `content` (transformers 4 and 5 differ)."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else ""


def _read(path: Path, limit: int, on_read: OnRead | None) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise ModelFolderRefused(f"{path}: {size} bytes, at most {limit} are read")
        content = path.read_bytes()
    except OSError as error:
        raise ModelFolderRefused(f"{path}: {error.strerror}") from error
    if on_read is not None:
        on_read(path.name, content)
    return content
