"""Which state folder a command is about: `--state`, else that of the configuration, else `state` here."""

import argparse
import os
from pathlib import Path

from appliance.config import Configuration
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed


def add_state_options(command: argparse.ArgumentParser) -> None:
    """Add `--state` and `--config`, of which one may be given."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--state", type=Path, metavar="DIR", help="the state directory (default: state)")
    where.add_argument("--config", metavar="FILE", help="the configuration that names it")


def find_state(arguments: argparse.Namespace) -> Path:
    """The state folder; it may not be there yet.

    Raises: ConfigurationRejected; CommandFailed for root on somebody else's state: what root makes there its owner cannot read.
    """
    configuration = _find_configuration(arguments)
    state: Path = arguments.state or (configuration.state_path if configuration is not None else Path("state"))
    verify_owner(state)
    return state


def is_fips(arguments: argparse.Namespace) -> bool:
    """Whether the configuration says `fips = true`; where a command is given the state alone, nobody says so.

    Raises: ConfigurationRejected.
    """
    configuration = _find_configuration(arguments)
    return configuration is not None and configuration.fips


def _find_configuration(arguments: argparse.Namespace) -> Configuration | None:
    path = None if arguments.state is not None else find_configuration_file(arguments.config)
    return load_configuration(path)[0] if path is not None else None


def verify_owner(state: Path) -> None:
    """Check that what a command makes below a state folder will be its owner's.

    Raises: CommandFailed for root on somebody else's state: what root makes there its owner cannot read.
    """
    if os.geteuid() == 0 and state.is_dir() and (owner := state.stat().st_uid) != 0:
        raise CommandFailed(f"{state} belongs to uid {owner}: run this as that user, or its files will be root's")
