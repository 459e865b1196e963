"""By which configuration the appliance was started last, so that a start can say what of it is another.

    state/run/configuration.json     the digest of its file, and its settings by key, without secrets

It is read at the start and written when the record that tells the difference is durable: a start that ends before leaves the
difference to the next one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.statement.files import write_file


@dataclass(frozen=True, slots=True)
class Remembered:
    """A configuration that the appliance was started by."""

    digest: str = ""
    """Of its file; empty where nobody remembers one."""
    settings: Mapping[str, str] | None = None
    """None where nobody remembers them."""

    def changes_to(self, settings: Mapping[str, str]) -> dict[str, tuple[str, str]] | None:
        """What is another now, as it was and is; None where that is not known."""
        before = self.settings
        if before is None:
            return None
        keys = sorted(before.keys() | settings.keys())
        return {
            key: (before.get(key, ""), settings.get(key, "")) for key in keys if before.get(key) != settings.get(key)
        }


def recall_configuration(state: Path) -> Remembered:
    """That of the start before; what cannot be read is not remembered."""
    try:
        found = json.loads(_path(state).read_bytes())
        settings = {str(key): str(value) for key, value in found["settings"].items()}
        return Remembered(str(found["digest"])[:80], settings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Remembered()


def remember_configuration(state: Path, digest: str, settings: Mapping[str, str]) -> None:
    """For the next start, durably. Raises: StartRefused."""
    document = {"digest": digest, "settings": dict(settings)}
    write_file(_path(state), json.dumps(document, indent=1, sort_keys=True).encode())


def _path(state: Path) -> Path:
    return state / "run" / "configuration.json"
