"""`casemate lend-users`: the service that lends the appliance its processes' users, so that nothing else needs power over users.

For `casemate-users.service`, as the user of the appliance and with CAP_SETUID and CAP_SETGID. Every command that this user runs
borrows from it, and can then work on files of all roles.
"""

import argparse
from pathlib import Path

from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.config.environment import find_notify_socket
from appliance.supervisor.announcements import Announcer
from security.sandbox.lending import SOCKET, lend_for_ever, listen
from security.sandbox.users import DEFAULT_FIRST_UID


def add_lending_commands(subparsers: Commands) -> None:
    """Add `lend-users`."""
    lend = add_command(subparsers, "lend-users", "lend the appliance its processes' users", _lend)
    lend.description = __doc__
    lend.add_argument(
        "--first-uid",
        type=int,
        default=DEFAULT_FIRST_UID,
        metavar="UID",
        help=f"confinement.first_uid of the configuration (default: {DEFAULT_FIRST_UID})",
    )
    lend.add_argument(
        "--socket", type=Path, default=SOCKET, metavar="PATH", help=f"where to listen (default: {SOCKET})"
    )


def _lend(arguments: argparse.Namespace) -> int:
    with listen(arguments.socket) as listener, Announcer(find_notify_socket()) as announcer:
        announcer.tell_ready()
        lend_for_ever(listener, arguments.first_uid)
    return EXIT_OK
