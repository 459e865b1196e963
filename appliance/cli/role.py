"""`casemate role`: who has which role. A privileged role needs two people where `policy.two_person_grants` is set."""

import argparse

from appliance.cli.caller import actor
from appliance.cli.definitions import add_state_command, open_definitions, print_json, split_models, tabulate
from appliance.cli.main import EXIT_OK
from security.clients import Client
from security.errors import ClientRejected, MalformedDocument
from security.registry.roles import Principal, RoleRegistry
from security.registry.rows import describe
from security.scopes import Role, parse_role


def add_role_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `role` with its commands."""
    role = subparsers.add_parser("role", help="who has which role", description=__doc__)
    commands = role.add_subparsers(metavar="COMMAND", required=True)
    grant = add_state_command(commands, "grant", "give a client or person a role, or ask a second person for it")
    grant.add_argument("name", metavar="ID", help="a client's id, a person's login or id")
    grant.add_argument("role", metavar="ROLE", help=", ".join(Role))
    grant.set_defaults(handler=_grant)
    approve = add_state_command(commands, "approve", "agree, as the second person, to the role that waits")
    approve.add_argument("name", metavar="ID")
    approve.add_argument(
        "role",
        metavar="ROLE",
        nargs="?",
        help="the role that you agree to; another one that waits meanwhile is refused",
    )
    approve.set_defaults(handler=_approve)
    refuse = add_state_command(commands, "refuse", "take back or refuse the role that waits")
    refuse.add_argument("name", metavar="ID")
    refuse.set_defaults(handler=_refuse)
    add_state_command(commands, "pending", "list the roles that wait for a second person").set_defaults(
        handler=_pending
    )
    models = add_state_command(commands, "models", "say which models a role may use")
    models.add_argument("role", metavar="ROLE")
    models.add_argument("--models", help="names separated by commas (default: all)")
    models.set_defaults(handler=_models)


def _grant(arguments: argparse.Namespace) -> int:
    role = _parse_role(arguments.role)
    with open_definitions(arguments) as opened:
        return _say(arguments, RoleRegistry(opened.database).grant(arguments.name, role, actor=actor()))


def _approve(arguments: argparse.Namespace) -> int:
    role = None if arguments.role is None else _parse_role(arguments.role)
    with open_definitions(arguments) as opened:
        return _say(arguments, RoleRegistry(opened.database).approve(arguments.name, actor=actor(), role=role))


def _refuse(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        return _say(arguments, RoleRegistry(opened.database).refuse(arguments.name, actor=actor()))


def _pending(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        pending = RoleRegistry(opened.database).pending()
    if arguments.json:
        print_json([describe(one) for one in pending])
    elif pending:
        rows = [("ID", "ROLE", "ASKED FOR", "BY")]
        for one in pending:
            asked = one.pending_role or one.role
            rows.append((_id_of(one), one.role, asked, one.pending_by or one.granted_by))
        print(tabulate(rows))
    else:
        print("Nothing waits for a second person.")
    return EXIT_OK


def _models(arguments: argparse.Namespace) -> int:
    role, models = _parse_role(arguments.role), split_models(arguments.models)
    with open_definitions(arguments) as opened:
        RoleRegistry(opened.database).set_models(role, models, actor=actor())
    words = "all models" if models is None else ", ".join(models) or "no model"
    print_json({"role": role, "models": models}) if arguments.json else print(f"{role} may use {words}")
    return EXIT_OK


def _parse_role(text: str) -> Role:
    try:
        return parse_role(text)
    except MalformedDocument as error:
        raise ClientRejected(str(error)) from None


def _say(arguments: argparse.Namespace, principal: Principal) -> int:
    if arguments.json:
        print_json(describe(principal))
    elif principal.pending_role is not None:
        print(f"{_id_of(principal)}: {principal.pending_role} waits for a second person")
    else:
        print(f"{_id_of(principal)} has the role {principal.role}")
    return EXIT_OK


def _id_of(principal: Principal) -> str:
    return principal.client_id if isinstance(principal, Client) else principal.login
