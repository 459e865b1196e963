"""The settings as plain values that may be shown, kept and recorded: what is secret is left out."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from appliance.config.keys import is_secret
from appliance.config.schema import Configuration

HIDDEN = "(hidden)"
MAX_FILE_BYTES = 1 << 20
_BELIEVED = ("certificate", "jwks_file", "jwks_signer_file", "body_recipients")
"""Keys, by their ends, of files with public keys: who holds the private ones is believed, or may read."""


def hide_secrets(value: Any) -> Any:
    """Settings as plain values, with what must not be repeated left out."""
    if isinstance(value, Struct):
        return {
            field.encode_name: _hide(field, getattr(value, field.name)) for field in msgspec.structs.fields(type(value))
        }
    if isinstance(value, (list, tuple)):
        return [hide_secrets(item) for item in value]
    return value


def flatten_settings(configuration: Configuration) -> Mapping[str, str]:
    """Every key with its value as JSON, `engines[0].name`; of files that are believed their content too, as `KEY sha256`."""
    return dict(_flatten("", hide_secrets(configuration)))


def _flatten(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name in sorted(value):
            yield from _flatten(f"{key}.{name}" if key else str(name), value[name])
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _flatten(f"{key}[{number}]", item)
    else:
        yield key, json.dumps(value)
        if isinstance(value, str) and key.partition("[")[0].endswith(_BELIEVED) and (digest := _digest(Path(value))):
            yield f"{key} sha256", digest


def _digest(path: Path) -> str:
    """Empty where it cannot be read: whoever needs it says so."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_FILE_BYTES)).hexdigest()
    except OSError:
        return ""


def _hide(field: msgspec.structs.FieldInfo, value: Any) -> Any:
    return HIDDEN if is_secret(field) and value is not None else hide_secrets(value)
