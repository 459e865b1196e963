"""What the commands that change definitions share: which database, who does it, how a table looks.

They work on the database itself, whether the appliance runs or not: policy sees a change within a second. Each change
leaves a row from which policy appends to the audit log.
"""

import argparse
import datetime
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from appliance.cli.commands import Commands, add_command
from appliance.cli.terminal import escape_json, escape_text
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed
from appliance.policy.locations import DATABASE_FILE, database_of, load_credentials_key
from appliance.policy.ownership import claim_definitions
from security.acting import acting_as_owner
from security.registry.database import Database


class Opened:
    """The definitions of one appliance, and the key of their hashes."""

    def __init__(self, database: Database, state: Path) -> None:
        self.database = database
        self._state = state

    @property
    def credentials_key(self) -> bytes:
        """Raises: KeyUnusable."""
        return load_credentials_key(self._state)


def add_state_command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a command that names an appliance and can print JSON."""
    command = add_command(commands, name, summary)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--state", type=Path, metavar="DIR", help="the state directory")
    where.add_argument(
        "--config", metavar="FILE", help="the configuration that names it; else casemate.toml is looked for"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


@contextmanager
def open_definitions(
    arguments: argparse.Namespace, *, may_make: bool = False, takes_over: bool = False
) -> Iterator[Opened]:
    """Open the definitions that the arguments name.

    Args:
        takes_over: whatever is there may be another appliance's: it is about to be replaced.
    Raises: CommandFailed, RegistryUnusable, KeyUnusable.
    """
    state, location = find_place(arguments)
    if not may_make and isinstance(location, Path) and not location.is_file():
        raise CommandFailed(f"{state} has no definitions; `casemate client create NAME` makes them")
    # Root works as policy's user in policy's folder: SQLite opens journals by name, and who owns the folder says what is there.
    with acting_as_owner(location.parent) if isinstance(location, Path) else nullcontext():
        database = Database.open(location)
        try:
            if isinstance(location, str) and not takes_over:
                claim_definitions(database, location, load_credentials_key(state))
            yield Opened(database, state)
        finally:
            database.close()


def find_place(arguments: argparse.Namespace) -> tuple[Path, Path | str]:
    """The state directory, and the file or URL of the definitions: from --state or from a configuration."""
    if arguments.state is not None:
        state: Path = arguments.state.absolute()
        return state, state / DATABASE_FILE
    path = find_configuration_file(arguments.config)
    if path is None:
        raise CommandFailed("which appliance? name its --state DIR or --config FILE")
    configuration, _data = load_configuration(path)
    return configuration.state_path, database_of(configuration)


def split_models(text: str | None) -> tuple[str, ...] | None:
    """Names of models, separated by commas; None: all."""
    if text is None:
        return None
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    print(escape_json(json.dumps(value)))


def tabulate(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first being the heading; escaped, as their cells hold what others wrote."""
    rows = [[escape_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def date_of(at: int | None) -> str:
    """A day in UTC."""
    return "-" if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")
