"""`casemate client`: create, list, disable clients, and give one a new secret.

It works on the registry's file, whether the appliance runs or not: authority and policy see a change within a second. Each
change leaves a row from which the authority appends to the audit log.
"""

import argparse
import datetime
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

from appliance.authority.credentials import CLIENTS_FILE, open_registry
from appliance.cli.main import EXIT_OK
from appliance.config import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed
from security.clients import Client, ClientDefinition, IssuedSecret
from security.errors import ClientRejected, MalformedDocument
from security.registry import ClientRegistry
from security.scopes import GRANTABLE, Role, format_scopes, parse_role, parse_scopes


def add_client_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `client` with its commands."""
    client = subparsers.add_parser("client", help="the clients that may ask for tokens", description=__doc__)
    commands = client.add_subparsers(metavar="COMMAND", required=True)
    create = _add_command(commands, "create", "register a client and print its id and secret, once")
    create.add_argument("name", help="what people call it")
    create.add_argument("--role", default=Role.USER.value, help=f"one of {', '.join(Role)} (default: user)")
    create.add_argument("--tenant", default="default", help="whose client it is (default: default)")
    create.add_argument("--scopes", help="scopes separated by spaces or commas (default: all that the role may have)")
    create.add_argument("--models", help="models that it may use, separated by commas (default: all)")
    create.set_defaults(handler=_create)
    listing = _add_command(commands, "list", "list all clients")
    listing.set_defaults(handler=_list)
    disable = _add_command(commands, "disable", "give a client no more tokens, and refuse the requests of those it has")
    disable.add_argument("client_id", metavar="ID")
    disable.set_defaults(handler=_disable)
    rotate = _add_command(commands, "rotate", "replace a client's secret and print the new one, once")
    rotate.add_argument("client_id", metavar="ID")
    rotate.set_defaults(handler=_rotate)


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--state", type=Path, metavar="DIR", help="the state directory")
    where.add_argument(
        "--config", metavar="FILE", help="the configuration that names it; else casemate.toml is looked for"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _create(arguments: argparse.Namespace) -> int:
    definition = _parse_definition(arguments)
    definition.verify()  # Before a state directory is made for nothing.
    registry = _open(arguments, may_make=True)
    try:
        issued = registry.create(definition, actor=_actor())
    finally:
        registry.close()
    _print_secret(issued, as_json=arguments.json)
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    registry = _open(arguments)
    try:
        clients = registry.all()
    finally:
        registry.close()
    if arguments.json:
        print(json.dumps([_describe(client) for client in clients]))
    elif clients:
        print(_tabulate(clients))
    else:
        print("There are no clients yet; `casemate client create NAME` makes one.")
    return EXIT_OK


def _disable(arguments: argparse.Namespace) -> int:
    registry = _open(arguments)
    try:
        client = registry.disable(arguments.client_id, actor=_actor())
    finally:
        registry.close()
    print(json.dumps(_describe(client)) if arguments.json else f"{client.client_id} is disabled")
    return EXIT_OK


def _rotate(arguments: argparse.Namespace) -> int:
    registry = _open(arguments)
    try:
        issued = registry.rotate(arguments.client_id, actor=_actor())
    finally:
        registry.close()
    _print_secret(issued, as_json=arguments.json)
    return EXIT_OK


def _parse_definition(arguments: argparse.Namespace) -> ClientDefinition:
    """Raises: ClientRejected."""
    try:
        role = parse_role(arguments.role)
        scopes = None
        if arguments.scopes is not None:
            scopes = parse_scopes(" ".join(arguments.scopes.replace(",", " ").split()))
    except MalformedDocument as error:
        hint = ", ".join(sorted({scope.value for granted in GRANTABLE.values() for scope in granted}))
        raise ClientRejected(f"{error} (scopes: {hint})") from None
    models = None
    if arguments.models is not None:
        models = tuple(dict.fromkeys(name.strip() for name in arguments.models.split(",") if name.strip()))
    return ClientDefinition(name=arguments.name, role=role, tenant=arguments.tenant, scopes=scopes, models=models)


def _open(arguments: argparse.Namespace, *, may_make: bool = False) -> ClientRegistry:
    state = _find_state(arguments)
    if not may_make and not (state / "authority" / CLIENTS_FILE).is_file():
        raise CommandFailed(f"{state} has no client registry; `casemate client create NAME` makes one")
    return open_registry(state)


def _find_state(arguments: argparse.Namespace) -> Path:
    """The state directory, from --state or from a configuration."""
    if arguments.state is not None:
        state: Path = arguments.state
        return state.absolute()
    path = find_configuration_file(arguments.config)
    if path is None:
        raise CommandFailed("which appliance? name its --state DIR or --config FILE")
    configuration, _data = load_configuration(path)
    return configuration.state_path


def _actor() -> str:
    """The system's user, by the kernel's word and not by a variable."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _describe(client: Client) -> dict[str, Any]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "role": client.role,
        "tenant": client.tenant,
        "scopes": format_scopes(client.scopes),
        "models": client.models,
        "created_at": client.created_at,
        "secret_created_at": client.secret_created_at,
        "disabled_at": client.disabled_at,
    }


def _print_secret(issued: IssuedSecret, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**_describe(issued.client), "client_secret": issued.secret}))
        return
    print(f"client_id:     {issued.client.client_id}")
    print(f"client_secret: {issued.secret}")
    sys.stdout.flush()
    sys.stderr.write("Keep the secret now: it is stored nowhere and not shown again.\n")


def _tabulate(clients: list[Client]) -> str:
    rows = [("ID", "NAME", "ROLE", "TENANT", "SCOPES", "MODELS", "CREATED", "STATE")]
    for client in clients:
        models = "all" if client.models is None else ",".join(client.models) or "none"
        created = datetime.datetime.fromtimestamp(client.created_at, datetime.UTC).strftime("%Y-%m-%d")
        state = "disabled" if client.is_disabled else "active"
        scopes = format_scopes(client.scopes)
        rows.append((client.client_id, client.name, client.role, client.tenant, scopes, models, created, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
