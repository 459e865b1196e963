"""A command below another one: how its parser is made."""

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    handler: Callable[[argparse.Namespace], int] | None = None,
    *,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """A command with its line in the list of commands, of which its own help makes a sentence.

    Args:
        handler: does what the arguments say and gives the exit code; None: whoever asks sets it.
    """
    command = commands.add_parser(
        name, aliases=aliases, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    if handler is not None:
        command.set_defaults(handler=handler)
    return command
