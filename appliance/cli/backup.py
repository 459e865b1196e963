"""`casemate state`: back up the definitions and keys of an appliance into one file, and restore them. The log is copied as
it is.
"""

import argparse
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from appliance.cli.caller import actor
from appliance.cli.definitions import add_state_command, find_place, open_definitions, print_json
from appliance.cli.main import EXIT_OK
from appliance.errors import CommandFailed
from appliance.models.places import open_outbox
from appliance.policy.backup import read_backup, restore_files, write_backup
from security.registry.archive import export_definitions, import_definitions


def add_backup_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `state` with its commands."""
    state = subparsers.add_parser("state", help="back up and restore definitions and keys", description=__doc__)
    commands = state.add_subparsers(metavar="COMMAND", required=True)
    backup = add_state_command(commands, "backup", "write definitions and keys into one file; the appliance may run")
    backup.set_defaults(handler=_backup)
    restore = add_state_command(
        commands, "restore", "bring definitions and keys back from a file; the appliance must not run"
    )
    restore.add_argument("--replace", action="store_true", help="lose the definitions and keys that are there")
    restore.set_defaults(handler=_restore)
    for command in (backup, restore):
        command.add_argument("file", type=Path, metavar="FILE")


def _backup(arguments: argparse.Namespace) -> int:
    state, _location = find_place(arguments)
    with open_definitions(arguments) as opened:
        definitions = export_definitions(opened.database)
    names = write_backup(arguments.file, state, definitions, partial(_announce, state, arguments.file))
    if arguments.json:
        print_json({"file": str(arguments.file), "members": names})
    else:
        print(f"{arguments.file}: {len(names)} members")
        sys.stderr.write("It holds every signing key: whoever reads it can make tokens. Keep it as you keep those.\n")
    return EXIT_OK


def _announce(state: Path, file: Path, sha256: str, num_members: int) -> None:
    """Leave word for the log of who takes every key, before they have them."""
    facts: dict[str, str | int] = {"file": str(file.absolute()), "num_members": num_members}
    open_outbox(state).put(
        "state_backed_up", name="definitions and keys", digest=f"sha256:{sha256}", actor=actor(), facts=facts
    )


def _restore(arguments: argparse.Namespace) -> int:
    state, _location = find_place(arguments)
    definitions, files = read_backup(arguments.file)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _stopped(state):
        restore_files(state, files, replace=arguments.replace)
        with open_definitions(arguments, may_make=True, takes_over=True) as opened:
            import_definitions(opened.database, definitions, actor=actor(), replace=arguments.replace)
    print_json({"restored": sorted(files)}) if arguments.json else print(f"restored into {state}")
    return EXIT_OK


@contextmanager
def _stopped(state: Path) -> Iterator[None]:
    """Hold the state directory's lock. Raises: CommandFailed while an appliance runs on it."""
    with open(state / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed(f"an appliance runs on {state}: stop it first") from None
        yield
