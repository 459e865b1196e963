"""`casemate init`: tell a new host whom it may believe.

Roots are believed only if their SHA-256 is the one given, which must have come another way than the file: read out over the
telephone, printed on the delivery note, sent by somebody else.
"""

import argparse
from pathlib import Path

from appliance.cli.caller import actor
from appliance.cli.main import EXIT_OK
from appliance.cli.role_files import put_into_force
from appliance.cli.state import add_state_options, find_state
from appliance.errors import CommandFailed
from appliance.models.places import open_outbox, open_store, open_trust


def add_init_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `init`."""
    init = subparsers.add_parser("init", help="tell a new host whom it may believe", description=__doc__)
    add_state_options(init)
    init.add_argument("--root", type=Path, metavar="FILE", help="the vendor's root: who may sign software")
    init.add_argument("--root-sha256", metavar="HEX", help="its digest, from another source")
    init.add_argument("--customer-root", type=Path, metavar="FILE", help="your own root: who may sign roles and models")
    init.add_argument("--customer-root-sha256", metavar="HEX", help="its digest, from another source")
    init.add_argument("--roles", type=Path, metavar="FILE", help="the role file, signed under your own root")
    init.set_defaults(handler=_init)


def _init(arguments: argparse.Namespace) -> int:
    state = find_state(arguments)
    trust = open_trust(state)
    pairs = (
        ("vendor", arguments.root, arguments.root_sha256, "--root"),
        ("customer", arguments.customer_root, arguments.customer_root_sha256, "--customer-root"),
    )
    if arguments.root is None and arguments.customer_root is None:
        raise CommandFailed("expected --root with --root-sha256, --customer-root with --customer-root-sha256, or both")
    for _, path, sha256, option in pairs:
        if (path is None) != (sha256 is None):
            raise CommandFailed(f"{option} goes with {option}-sha256: a root is not believed by itself")
    if arguments.roles is not None and arguments.customer_root is None:
        raise CommandFailed("--roles goes with --customer-root: role files are signed under it")
    for owner, path, sha256, _ in pairs:
        if path is not None:
            trust.pin_root("vendor" if owner == "vendor" else "customer", path.read_bytes(), sha256)
            digest = f"sha256:{sha256.lower().removeprefix('sha256:')}"
            open_outbox(state).put(
                "key_rotated", name=f"{owner} root", digest=digest, actor=actor(), facts={"stage": "believed"}
            )
            print(f"believed   {owner} root sha256:{sha256}")
    open_store(state).prepare()
    if arguments.roles is not None:
        roles = put_into_force(state, arguments.roles.read_bytes())
        print(f"in force   role file version {roles.version}, {len(roles.people)} people")
    return EXIT_OK
