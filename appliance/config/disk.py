"""A configuration from its file, and whether what it names on disk is there: the last look before anything is started.

For commands and the supervisor; processes are handed the bytes. It finds the slip of the pen, not the attack: what is opened
later is checked again by whoever opens it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from appliance.config.errors import ConfigurationRejected, Problem
from appliance.config.loading import parse_configuration
from appliance.config.locations import find_lines, nearest_line
from appliance.config.reading import MAX_CONFIGURATION_BYTES
from appliance.config.schema import Configuration
from audit.errors import KeyUnusable
from audit.sealing import kem_of, parse_recipient

_FILE, _FOLDER, _NOTHING = "a file", "a folder", "nothing there"


def load_configuration(path: Path) -> tuple[Configuration, bytes]:
    """Read and parse a file, and look for the files that it names.

    Returns: the configuration, and the bytes it was parsed from, which every process is handed.
    Raises: ConfigurationRejected.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIGURATION_BYTES + 1)
    except OSError as error:
        raise ConfigurationRejected(source, [Problem("", f"cannot be read: {error.strerror}")]) from None
    configuration = parse_configuration(data, path.absolute().parent, source)
    if missing := find_missing_files(configuration):
        lines = find_lines(data.decode())
        raise ConfigurationRejected(
            source, [Problem(one.key, one.message, nearest_line(lines, one.key)) for one in missing]
        )
    return configuration, data


def find_missing_files(configuration: Configuration) -> list[Problem]:
    """Model folders, certificates and keys that are not there or cannot be read."""
    return [
        *_find_missing_models(configuration),
        *_find_unreadable_tls(configuration),
        *_find_unusable_recipients(configuration),
        *_find_blocked_state(configuration),
    ]


def _find_missing_models(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        folders = {"model_path": engine.model_path, "speculative_draft_model_path": engine.speculative_draft_model_path}
        for key, path in folders.items():
            folder = Path(path)
            if path and (found := _look(folder / "config.json")) != _FILE:
                if found == _NOTHING and (found := _look(folder)) == _FOLDER:
                    found = "a folder without one"
                yield Problem(f"engines[{index}].{key}", f"expected a folder with config.json at {folder}, got {found}")


def _find_unreadable_tls(configuration: Configuration) -> Iterator[Problem]:
    tls = configuration.tls
    for name, value in (("certificate", tls.certificate), ("key", tls.key), ("ca_certificate", tls.ca_certificate)):
        if value is None:
            continue
        found = _look(Path(value))
        if found != _FILE or not os.access(value, os.R_OK):
            found = "one that cannot be read" if found == _FILE else found
            yield Problem(f"tls.{name}", f"expected a file that this user can read at {value}, got {found}")


def _find_unusable_recipients(configuration: Configuration) -> Iterator[Problem]:
    for index, path in enumerate(configuration.audit.body_recipients):
        name = f"audit.body_recipients[{index}]"
        try:
            kem = kem_of(parse_recipient(Path(path).read_bytes()))
        except OSError as error:
            yield Problem(name, f"expected a file that this user can read at {path}: {error.strerror}")
        except KeyUnusable as error:
            yield Problem(name, f"{path}: {error}")
        else:
            if configuration.fips and kem != "p256":
                yield Problem(name, f"expected a key on P-256 at {path}, as fips is set: X25519 is not approved")


def _find_blocked_state(configuration: Configuration) -> Iterator[Problem]:
    found = _look(configuration.state_path)
    if found not in (_FOLDER, _NOTHING):
        yield Problem("state_dir", f"expected a folder, or nothing yet, at {configuration.state_path}, got {found}")


def _look(path: Path) -> str:
    """What is at a path, as messages say it; where that cannot be told, why."""
    try:
        return _FOLDER if path.is_dir() else _FILE if path.exists() else _NOTHING
    except OSError as error:  # Most often a folder on the way that this user may not enter.
        return f"no answer: {error.strerror}"
