"""`casemate quota`: how much a client, a person, a tenant or a model may take. 0 means no limit; `*` is for all others."""

import argparse

import msgspec

from appliance.cli.caller import actor
from appliance.cli.definitions import add_state_command, open_definitions, print_json, tabulate
from appliance.cli.main import EXIT_OK
from security.policy.limits import LIMIT_SUBJECTS, LimitRule, Limits
from security.registry.limits import LimitRegistry

_FIELDS = {field: field.replace("_", "-") for field in Limits.__struct_fields__}


def add_quota_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `quota` with its commands."""
    quota = subparsers.add_parser("quota", help="limits of clients, people, tenants and models", description=__doc__)
    commands = quota.add_subparsers(metavar="COMMAND", required=True)
    set_ = add_state_command(commands, "set", "set the limits of one subject, whatever they were before")
    for option in _FIELDS.values():
        set_.add_argument(f"--{option}", type=int, default=0, metavar="N", help="0 means no limit (default)")
    set_.set_defaults(handler=_set)
    remove = add_state_command(commands, "remove", "let `*`, or else the configuration, decide again")
    remove.set_defaults(handler=_remove)
    for command in (set_, remove):
        command.add_argument("subject", choices=LIMIT_SUBJECTS)
        command.add_argument("name", metavar="NAME", help="whose: an id, a tenant, a model, or * for all others")
    add_state_command(commands, "list", "list all limits").set_defaults(handler=_list)


def _set(arguments: argparse.Namespace) -> int:
    limits = Limits(**{field: getattr(arguments, field) for field in _FIELDS})
    rule = LimitRule(arguments.subject, arguments.name, limits)
    with open_definitions(arguments, may_make=True) as opened:
        LimitRegistry(opened.database).set(rule, actor=actor())
    print_json(_describe(rule)) if arguments.json else print(f"{rule.subject} {rule.name} has new limits")
    return EXIT_OK


def _remove(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        LimitRegistry(opened.database).remove(arguments.subject, arguments.name, actor=actor())
    print(f"{arguments.subject} {arguments.name} has no limits of its own any more")
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        rules = LimitRegistry(opened.database).all()
    if arguments.json:
        print_json([_describe(rule) for rule in rules])
    elif rules:
        rows = [("SUBJECT", "NAME", *(name.replace("-", " ").upper() for name in _FIELDS.values()))]
        for rule in rules:
            rows.append(
                (rule.subject, rule.name, *(str(number or "-") for number in msgspec.structs.astuple(rule.limits)))
            )
        print(tabulate(rows))
    else:
        print("There are no limits but those of the configuration.")
    return EXIT_OK


def _describe(rule: LimitRule) -> dict[str, object]:
    return {"subject": rule.subject, "name": rule.name, **msgspec.structs.asdict(rule.limits)}
