"""`casemate client`: create, list, change and disable clients, and give one a new secret."""

import argparse
import sys
from pathlib import Path
from typing import get_args

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
from appliance.errors import CommandFailed
from security.clients import AuthMethod, Client, ClientDefinition, IssuedSecret
from security.errors import ClientRejected, MalformedDocument
from security.oauth.client_keys import find_certificates, parse_client_keys
from security.registry.clients import ClientRegistry
from security.registry.rows import describe
from security.scopes import GRANTABLE, Role, format_scopes, parse_role, parse_scopes


def add_client_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `client` with its commands."""
    client = subparsers.add_parser("client", help="the clients that may ask for tokens", description=__doc__)
    commands = client.add_subparsers(metavar="COMMAND", required=True)
    _add_create(commands)
    add_state_command(commands, "list", "list all clients").set_defaults(handler=_list)
    disable = add_state_command(commands, "disable", "give a client no more tokens, and void those that it has")
    disable.set_defaults(handler=_disable)
    enable = add_state_command(commands, "enable", "undo disable; tokens of before stay void")
    enable.set_defaults(handler=_enable)
    rotate = add_state_command(commands, "rotate", "replace a client's secret and print the new one, once")
    rotate.set_defaults(handler=_rotate)
    models = add_state_command(commands, "models", "say which models a client may use")
    models.add_argument("--models", help="names separated by commas (default: all)")
    models.set_defaults(handler=_models)
    keys = add_state_command(
        commands, "keys", "replace the public keys or certificates by which a client authenticates"
    )
    keys.add_argument("--jwks", type=Path, metavar="FILE", required=True, help="a JWK Set")
    keys.set_defaults(handler=_keys)
    for command in (disable, enable, rotate, models, keys):
        command.add_argument("client_id", metavar="ID")


def _add_create(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    create = add_state_command(commands, "create", "register a client and print its id and secret, once")
    create.add_argument("name", help="what people call it")
    create.add_argument("--role", default=Role.USER.value, help=f"one of {', '.join(Role)} (default: user)")
    create.add_argument("--tenant", default="default", help="whose client it is (default: default)")
    create.add_argument("--scopes", help="scopes separated by spaces or commas (default: all that the role may have)")
    create.add_argument("--models", help="models that it may use, separated by commas (default: all)")
    create.add_argument(
        "--application", action="store_true", help="it acts for the people who sign in with it, never for itself"
    )
    create.add_argument("--auth", default="client_secret", choices=get_args(AuthMethod), help="how it authenticates")
    create.add_argument("--jwks", type=Path, metavar="FILE", help="its public keys or self-signed certificates")
    create.add_argument(
        "--tls-subject",
        metavar="NAME",
        help="its certificate's subject (CN=billing,O=Acme) or dns:, uri:, ip: or email: and a name, for tls_client_auth",
    )
    create.add_argument(
        "--redirect-uri", action="append", default=[], metavar="URI", help="where a browser comes back to (repeatable)"
    )
    create.set_defaults(handler=_create)


def _create(arguments: argparse.Namespace) -> int:
    definition = _parse_definition(arguments)
    definition.verify()  # Before a state directory is made for nothing.
    with open_definitions(arguments, may_make=True) as opened:
        issued = ClientRegistry(opened.database, opened.credentials_key).create(definition, actor=actor())
    _print_secret(issued, as_json=arguments.json)
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        clients = ClientRegistry(opened.database, b"").all()
    if arguments.json:
        print_json([describe(client) for client in clients])
    elif clients:
        print(_tabulate(clients))
    else:
        print("There are no clients yet; `casemate client create NAME` makes one.")
    return EXIT_OK


def _disable(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        client = ClientRegistry(opened.database, b"").disable(arguments.client_id, actor=actor())
    return _say(arguments, client, "is disabled")


def _enable(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        client = ClientRegistry(opened.database, b"").enable(arguments.client_id, actor=actor())
    return _say(arguments, client, "is enabled")


def _models(arguments: argparse.Namespace) -> int:
    models = split_models(arguments.models)
    with open_definitions(arguments) as opened:
        client = ClientRegistry(opened.database, b"").set_models(arguments.client_id, models, actor=actor())
    return _say(arguments, client, f"may use {'all models' if models is None else ', '.join(models) or 'no model'}")


def _keys(arguments: argparse.Namespace) -> int:
    jwks = _read_keys(arguments.jwks)
    with open_definitions(arguments) as opened:
        client = ClientRegistry(opened.database, b"").set_keys(arguments.client_id, jwks, actor=actor())
    waits = (
        f" and waits for a second person: `casemate role approve {client.client_id}`" if client.needs_approval else ""
    )
    return _say(arguments, client, f"has new keys{waits}")


def _rotate(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        issued = ClientRegistry(opened.database, opened.credentials_key).rotate(arguments.client_id, actor=actor())
    _print_secret(issued, as_json=arguments.json)
    return EXIT_OK


def _parse_definition(arguments: argparse.Namespace) -> ClientDefinition:
    """Raises: ClientRejected, CommandFailed."""
    try:
        role = parse_role(arguments.role)
        scopes = None
        if arguments.scopes is not None:
            scopes = parse_scopes(" ".join(arguments.scopes.replace(",", " ").split()))
    except MalformedDocument as error:
        hint = ", ".join(sorted({scope.value for granted in GRANTABLE.values() for scope in granted}))
        raise ClientRejected(f"{error} (scopes: {hint})") from None
    return ClientDefinition(
        name=arguments.name,
        role=role,
        tenant=arguments.tenant,
        scopes=scopes,
        models=split_models(arguments.models),
        kind="application" if arguments.application else "service",
        auth_method=arguments.auth,
        jwks=None if arguments.jwks is None else _read_keys(arguments.jwks),
        tls_subject=arguments.tls_subject,
        redirect_uris=tuple(dict.fromkeys(arguments.redirect_uri)),
    )


def _read_keys(path: Path) -> str:
    """A JWK Set that can be used. Raises: ClientRejected, CommandFailed."""
    try:
        text = path.read_text(encoding="utf-8")
        find_certificates(parse_client_keys(text))
    except MalformedDocument as error:
        raise ClientRejected(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}") from error
    return text


def _say(arguments: argparse.Namespace, client: Client, words: str) -> int:
    if arguments.json:
        print_json(describe(client))
    else:
        print(f"{client.client_id} {words}")
    return EXIT_OK


def _print_secret(issued: IssuedSecret, *, as_json: bool) -> None:
    if as_json:
        secret = {} if issued.secret is None else {"client_secret": issued.secret}
        print_json({**describe(issued.client), **secret})
        return
    print(f"client_id:     {issued.client.client_id}")
    if issued.secret is not None:
        print(f"client_secret: {issued.secret}")
        sys.stdout.flush()
        sys.stderr.write("Keep the secret now: it is stored nowhere and not shown again.\n")
    if issued.client.needs_approval:
        sys.stderr.write(
            f"The role {issued.client.role} waits for a second person: `casemate role approve {issued.client.client_id}`\n"
        )


def _tabulate(clients: list[Client]) -> str:
    rows = [("ID", "NAME", "ROLE", "TENANT", "SCOPES", "MODELS", "CREATED", "STATE")]
    for client in clients:
        models = "all" if client.models is None else ",".join(client.models) or "none"
        waits = client.needs_approval or client.pending_role is not None
        state = "disabled" if client.disabled_at is not None else "waits for approval" if waits else "active"
        scopes = format_scopes(client.scopes)
        rows.append(
            (
                client.client_id,
                client.name,
                client.role,
                client.tenant,
                scopes,
                models,
                date_of(client.created_at),
                state,
            )
        )
    return tabulate(rows)
