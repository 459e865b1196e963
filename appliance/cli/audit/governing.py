"""`casemate audit rules`, `retention`, `hold`, `lift`, `agree-rotation`, `vouch-time`, `confirm`, `refuse`: what two people decide.

Each asks the appliance with the token of a person who signed in: an auditor or an administrator proposes, and a person of the
other role confirms within a week. Both steps are records.
"""

import argparse
import json
from typing import Any

from appliance.cli.audit.arguments import WrongUsage, set_handler
from appliance.cli.audit.remote import RemoteLog, add_remote, open_remote
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.cli.terminal import escape_json, say


def add_govern_commands(commands: Commands) -> None:
    """Add all."""
    rules = add_command(commands, "rules", "print the retention, the holds, and the proposals that wait")
    retention = add_command(commands, "retention", "propose how many days sealed bodies can be opened")
    retention.add_argument("retention_days", metavar="DAYS", type=int)
    hold = add_command(commands, "hold", "propose a legal hold: nothing of a period is destroyed")
    hold.add_argument("--from", dest="from_day", metavar="DAY", required=True, help="the first day, such as 2026-11-01")
    hold.add_argument("--to", dest="to_day", metavar="DAY", required=True, help="the last day")
    hold.add_argument("--tenant", default="", help="of this tenant only")
    lift = add_command(commands, "lift", "propose that a hold ends")
    lift.add_argument("hold_id", metavar="HOLD")
    rotation = add_command(commands, "agree-rotation", "propose that this log is closed, and another continues it")
    time = add_command(commands, "vouch-time", "propose that the appliance's clock is right, after a stop of days")
    proposals = {"retention": retention, "hold": hold, "lift": lift, "rotation": rotation, "time": time}
    for kind, command in proposals.items():
        command.add_argument("--reason", required=True, help="why; it is in the record")
        command.set_defaults(kind=kind)
        add_remote(command)
        set_handler(command, _propose)
    confirm = add_command(commands, "confirm", "confirm a proposal of the other role")
    refuse = add_command(commands, "refuse", "refuse a proposal, or take one's own back")
    for command, word in ((confirm, "confirm"), (refuse, "refuse")):
        command.add_argument("proposal", metavar="PROPOSAL")
        command.set_defaults(word=word)
        add_remote(command)
        set_handler(command, _decide)
    add_remote(rules)
    set_handler(rules, _show)


def _propose(arguments: argparse.Namespace) -> int:
    names = ("retention_days", "tenant", "from_day", "to_day", "hold_id")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name, None)}
    answer = _remote(arguments).post(
        "/audit/rules/propose", {"kind": arguments.kind, "reason": arguments.reason, **given}
    )
    say(f"proposed    {answer['changed']}")
    say(f"A person of the other role confirms it: casemate audit confirm {answer['changed']}")
    return EXIT_OK


def _decide(arguments: argparse.Namespace) -> int:
    answer = json.loads(_remote(arguments).post_nothing(f"/audit/rules/{arguments.word}/{arguments.proposal}"))
    say(f"{'in force' if arguments.word == 'confirm' else 'refused':11} {answer['changed']}")
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    rules: dict[str, Any] = json.loads(_remote(arguments).get("/audit/rules"))["rules"]
    print(escape_json(json.dumps(rules, indent=2, sort_keys=True)))
    return EXIT_OK


def _remote(arguments: argparse.Namespace) -> RemoteLog:
    remote = open_remote(arguments)
    if remote is None:
        raise WrongUsage("this needs --url: the rules are the appliance's to keep")
    return remote
