"""The served models out of their folders: tokenizer, chat template, defaults. At start; nothing is read from disk later."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from appliance.errors import StartRefused
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.settings import GatewaySettings
from appliance.gateway.text.template import load_chat_template
from appliance.gateway.text.tokenizer import load_tokenizer
from appliance.gateway.tools.forms import find_forms
from appliance.models.naming import naming_model
from runtime.weights.config import load_model_config

Verify = Callable[[Path, Mapping[str, bytes], bool], None]
"""Called with a folder and files read from it, by name; raises to refuse the model. Once for each
file, before it is parsed, with `is_all` false; once for all of them, with `is_all` true."""


def load_models(folders: Iterable[tuple[str, Path]], settings: GatewaySettings, verify: Verify | None = None) -> Models:
    """Load what is served, by name; several engines may serve one model, from one folder.

    Raises: StartRefused, CheckpointRejected.
    """
    served: dict[str, ServedModel] = {}
    origins: dict[str, Path] = {}
    for name, folder in folders:
        if origins.setdefault(name, folder) != folder:
            raise StartRefused(f"the model name {name} is given to two folders: {origins[name]} and {folder}")
        if name not in served:
            with naming_model(folder):
                served[name] = load_model(name, folder, settings, verify)
    return Models(list(served.values()))


def load_model(name: str, folder: Path, settings: GatewaySettings, verify: Verify | None = None) -> ServedModel:
    """Load one model's text side.

    Raises: StartRefused, CheckpointRejected, and what `verify` raises.
    """
    contents: dict[str, bytes] = {}

    def note(file: str, content: bytes) -> None:
        contents[file] = content
        if verify is not None:
            verify(folder, {file: content}, False)

    tokenizer = load_tokenizer(folder, note)
    # Characters are at least a byte of the body each, but a template may repeat what it was given.
    max_chars = 2 * settings.max_body_bytes
    template = load_chat_template(
        folder, tokenizer, max_chars=max_chars, timeout_s=settings.template_timeout_s, on_read=note
    )
    forms = find_forms(template.sources, settings.tool_call_parser.get(name), settings.reasoning_parser.get(name))
    config = load_model_config(folder)
    if verify is not None:
        verify(folder, {**contents, **dict(config.files)}, True)
    return ServedModel(name, int(time.time()), tokenizer, template, config.generation, forms, config.hidden_size)
