"""`casemate user`: the people who may sign in: create, list, disable, and give one a new first password."""

import argparse
import sys

from appliance.cli.caller import actor
from appliance.cli.definitions import (
    add_state_command,
    date_of,
    open_definitions,
    print_json,
    split_models,
    tabulate,
)
from appliance.cli.main import EXIT_OK
from security.errors import ClientRejected, MalformedDocument
from security.registry.rows import describe
from security.registry.users import UserRegistry
from security.scopes import Role, parse_role
from security.users import NewUser, User, UserDefinition


def add_user_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `user` with its commands."""
    user = subparsers.add_parser("user", help="the people who may sign in", description=__doc__)
    commands = user.add_subparsers(metavar="COMMAND", required=True)
    create = add_state_command(commands, "create", "register a person and print a first password, once")
    create.add_argument("--name", help="how the person is called (default: the login)")
    create.add_argument("--role", default=Role.USER.value, help=f"one of {', '.join(Role)} (default: user)")
    create.add_argument("--tenant", default="default", help="whose they are (default: default)")
    create.add_argument("--models", help="models that they may use, separated by commas (default: all)")
    create.set_defaults(handler=_create)
    add_state_command(commands, "list", "list everybody").set_defaults(handler=_list)
    disable = add_state_command(commands, "disable", "no more sign-in; every token is void")
    disable.set_defaults(handler=_disable)
    enable = add_state_command(commands, "enable", "undo disable, and what failures or idle days have locked")
    enable.set_defaults(handler=_enable)
    reset = add_state_command(commands, "reset", "a new first password and authenticator, printed once")
    reset.set_defaults(handler=_reset)
    for command in (create, reset):
        command.add_argument("--no-totp", action="store_true", help="a password alone; for role user only")
    for command in (create, disable, enable, reset):
        command.add_argument("login", metavar="LOGIN")


def _create(arguments: argparse.Namespace) -> int:
    try:
        role = parse_role(arguments.role)
    except MalformedDocument as error:
        raise ClientRejected(str(error)) from None
    _verify_factor(arguments, role)
    definition = UserDefinition(
        login=arguments.login,
        name=arguments.name or arguments.login,
        role=role,
        tenant=arguments.tenant,
        models=split_models(arguments.models),
    )
    definition.verify()
    with open_definitions(arguments, may_make=True) as opened:
        registry = UserRegistry(opened.database, opened.credentials_key)
        new = registry.create(definition, actor=actor(), totp=not arguments.no_totp)
    return _print_new(arguments, new)


def _reset(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        registry = UserRegistry(opened.database, opened.credentials_key)
        found = registry.find(arguments.login)
        if found is not None:
            _verify_factor(arguments, found.role)
        new = registry.reset(arguments.login, actor=actor(), totp=not arguments.no_totp)
    return _print_new(arguments, new)


def _verify_factor(arguments: argparse.Namespace, role: Role) -> None:
    if arguments.no_totp and role is not Role.USER:
        raise ClientRejected(f"role {role}: needs a second factor")


def _list(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        users = UserRegistry(opened.database, b"").all()
    if arguments.json:
        print_json([describe(user) for user in users])
    elif users:
        rows = [("ID", "LOGIN", "NAME", "ROLE", "TENANT", "CREATED", "STATE")]
        rows += [
            (one.user_id, one.login, one.name, one.role, one.tenant, date_of(one.created_at), _state(one))
            for one in users
        ]
        print(tabulate(rows))
    else:
        print("There is nobody yet; `casemate user create LOGIN` registers a person.")
    return EXIT_OK


def _disable(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        user = UserRegistry(opened.database, b"").disable(arguments.login, actor=actor())
    return _say(arguments, user, "is disabled")


def _enable(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        user = UserRegistry(opened.database, b"").enable(arguments.login, actor=actor())
    return _say(arguments, user, "is enabled")


def _state(user: User) -> str:
    waits = user.needs_approval or user.pending_role is not None
    return "disabled" if user.disabled_at is not None else "waits for approval" if waits else "active"


def _say(arguments: argparse.Namespace, user: User, words: str) -> int:
    if arguments.json:
        print_json(describe(user))
    else:
        print(f"{user.login} {words}")
    return EXIT_OK


def _print_new(arguments: argparse.Namespace, new: NewUser) -> int:
    if arguments.json:
        print_json({**describe(new.user), "password": new.password, "totp_uri": new.totp_uri})
        return EXIT_OK
    print(f"user_id:  {new.user.user_id}")
    print(f"login:    {new.user.login}")
    print(f"password: {new.password}")
    if new.totp_uri is not None:
        print(f"totp:     {new.totp_uri}")
    sys.stdout.flush()
    sys.stderr.write(
        "Hand these over now: they are not shown again. The password must be changed at the first sign-in.\n"
    )
    if new.user.needs_approval:
        sys.stderr.write(
            f"The role {new.user.role} waits for a second person: `casemate role approve {new.user.login}`\n"
        )
    return EXIT_OK
