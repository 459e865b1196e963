"""`casemate audit`: verify the log, prove, show, find and export its records, witness it, open what is sealed, decide together.

Most of it reads files and needs no running appliance; with a copy of the folder and the log's key anybody can do the same. What
asks an appliance has `--url` (`remote`). Each group of commands is a module: `verifying`, `records`, `searching`, `looking_up`,
`replaying`, `exporting`, `forwarding`, `witnessing`, `rotating`, `bodies`, `governing`; `arguments` has what they share, and
`announcing` tells the log of records that leave it, before they do.
"""

from appliance.cli.audit.bodies import add_body_commands
from appliance.cli.audit.exporting import add_export_commands
from appliance.cli.audit.forwarding import add_forward_commands
from appliance.cli.audit.governing import add_govern_commands
from appliance.cli.audit.looking_up import add_lookup_commands
from appliance.cli.audit.records import add_record_commands
from appliance.cli.audit.replaying import add_replay_commands
from appliance.cli.audit.rotating import add_rotate_commands
from appliance.cli.audit.searching import add_search_commands
from appliance.cli.audit.verifying import add_verify_commands
from appliance.cli.audit.witnessing import add_witness_commands
from appliance.cli.commands import Commands


def add_audit_commands(subparsers: Commands) -> None:
    """Add `audit` with its commands."""
    audit = subparsers.add_parser(
        "audit",
        help="verify the log, prove that a record is in it",
        description="Most of these read files and need no running appliance; with a copy of the log's folder and its key anybody"
        " can do the same. What asks an appliance has --url.",
    )
    commands = audit.add_subparsers(metavar="COMMAND", required=True)
    for add_commands in (
        add_verify_commands,
        add_record_commands,
        add_search_commands,
        add_lookup_commands,
        add_replay_commands,
        add_export_commands,
        add_forward_commands,
        add_witness_commands,
        add_rotate_commands,
        add_body_commands,
        add_govern_commands,
    ):
        add_commands(commands)
