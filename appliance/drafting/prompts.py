"""The prompts that a head is trained and measured on: a file of JSON lines, made token ids as the gateway would.

A line has `messages`, and perhaps `tools`, as `/v1/chat/completions` takes them; or `prompt`, as `/v1/completions` does: a
text or token ids. `kind` groups the figures of the report; `held_out` keeps a prompt out of training. Where no line says so,
every `HELD_OUT_EVERY`th is held out.

What it refuses: a line that serving would refuse, or that leaves the model no room to answer, by its number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from appliance.errors import CommandFailed
from appliance.gateway.api.chat_request import parse_chat_request, template_variables
from appliance.gateway.errors import GatewayFault
from appliance.gateway.settings import GatewaySettings
from appliance.gateway.text.errors import TextRefused
from appliance.gateway.text.template import ChatTemplate, load_chat_template
from appliance.gateway.text.tokenizer import Tokenizer, load_tokenizer

HELD_OUT_EVERY = 20
_MAX_CHARS = 1 << 24
_TEMPLATE_TIMEOUT_S = 5.0

_TokenIds = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]


class PromptLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    prompt: str | _TokenIds | None = None
    kind: Annotated[str, msgspec.Meta(max_length=64)] = ""
    held_out: bool | None = None

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("expected either messages or prompt")
        if self.tools is not None and self.messages is None:
            raise ValueError("tools go with messages")


@dataclass(frozen=True)
class Prompt:
    """A prompt as the engine takes it."""

    token_ids: list[int]
    kind: str


@dataclass(frozen=True)
class PromptSet:
    """What is learnt from, and what is only measured."""

    training: list[Prompt]
    held_out: list[Prompt]


def load_prompts(path: Path, model: Path, *, vocab_size: int, max_tokens: int) -> PromptSet:
    """Read a file of prompts for the model in a folder.

    Args:
        max_tokens: of a prompt.
    Raises: CommandFailed, naming the line; ModelFolderRefused for the model.
    """
    return _divide(path, *_load(path, model, vocab_size, max_tokens))


def load_token_ids(path: Path, model: Path, *, vocab_size: int, max_tokens: int) -> list[list[int]]:
    """All prompts of such a file, held out or not; arguments and errors as `load_prompts`."""
    _, prompts = _load(path, model, vocab_size, max_tokens)
    return [prompt.token_ids for prompt in prompts]


def _load(path: Path, model: Path, vocab_size: int, max_tokens: int) -> tuple[list[PromptLine], list[Prompt]]:
    tokenizer = load_tokenizer(model)
    template = load_chat_template(model, tokenizer, max_chars=_MAX_CHARS, timeout_s=_TEMPLATE_TIMEOUT_S)
    lines = list(_read_lines(path))
    if not lines:
        raise CommandFailed(f"{path}: holds no prompt")
    prompts = []
    for number, line in lines:
        try:
            token_ids = _token_ids(line, tokenizer, template)
        except (GatewayFault, TextRefused) as error:
            raise CommandFailed(f"{path}:{number}: {error}") from error
        if not 0 < len(token_ids) <= max_tokens:
            raise CommandFailed(f"{path}:{number}: expected 1 to {max_tokens} tokens, found {len(token_ids)}")
        if max(token_ids) >= vocab_size:
            raise CommandFailed(f"{path}:{number}: token {max(token_ids)} is not among the model's {vocab_size}")
        prompts.append(Prompt(token_ids, line.kind))
    return [line for _, line in lines], prompts


def _read_lines(path: Path) -> Iterator[tuple[int, PromptLine]]:
    """The lines that are not blank, with their numbers."""
    decoder = msgspec.json.Decoder(PromptLine)
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        if not text.strip():
            continue
        try:
            yield number, decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandFailed(f"{path}:{number}: {error}") from error


def _token_ids(line: PromptLine, tokenizer: Tokenizer, template: ChatTemplate) -> list[int]:
    """Raises: GatewayFault, TextRefused."""
    if isinstance(line.prompt, list):
        return line.prompt
    if line.prompt is not None:
        return tokenizer.encode_prompt(line.prompt)
    body = {"model": "target", "messages": line.messages} | ({} if line.tools is None else {"tools": line.tools})
    request = parse_chat_request(body, GatewaySettings())
    variables = template_variables(request, template.variables, reasons=True)
    return template.render(request.messages, request.described_tools, variables=variables)


def _divide(path: Path, lines: list[PromptLine], prompts: list[Prompt]) -> PromptSet:
    """Raises: CommandFailed where either part would be empty."""
    says = any(line.held_out is not None for line in lines)
    flags = [
        bool(line.held_out) if says else place % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        for place, line in enumerate(lines)
    ]
    training = [prompt for prompt, is_held_out in zip(prompts, flags, strict=True) if not is_held_out]
    held_out = [prompt for prompt, is_held_out in zip(prompts, flags, strict=True) if is_held_out]
    if not training or not held_out:
        raise CommandFailed(
            f"{path}: {len(training)} prompts to learn from and {len(held_out)} held out: both are needed"
            + ("" if says else f" (every {HELD_OUT_EVERY}th is held out where no line says held_out)")
        )
    return PromptSet(training, held_out)
