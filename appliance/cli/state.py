"""Which state folder a command is about: `--state`, else that of the configuration, else `state` here."""

import argparse
import getpass
from pathlib import Path

from appliance.config import load_configuration
from appliance.config.environment import find_configuration_file


def add_state_options(command: argparse.ArgumentParser) -> None:
    """Add `--state` and `--config`, of which one may be given."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--state", type=Path, metavar="DIR", help="the state directory (default: state)")
    where.add_argument("--config", metavar="FILE", help="the configuration that names it")


def find_state(arguments: argparse.Namespace) -> Path:
    """The state folder; it may not be there yet. Raises: ConfigurationRejected."""
    if arguments.state is not None:
        state: Path = arguments.state
        return state
    path = find_configuration_file(arguments.config)
    return load_configuration(path)[0].state_path if path is not None else Path("state")


def current_user() -> str:
    """The system's user, as far as a command can know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
