"""`casemate key`: static keys `cm-…` for programs that can only send an `api_key`: make one, list, revoke one or many."""

import argparse
import datetime
import sys

from appliance.cli.caller import actor
from appliance.cli.definitions import add_state_command, date_of, open_definitions, print_json, tabulate
from appliance.cli.main import EXIT_OK
from security.registry.rows import describe
from security.registry.static_keys import KeySelection, StaticKeyRegistry
from security.static_keys import MAX_LIFETIME_DAYS, StaticKey


def add_key_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `key` with its commands."""
    key = subparsers.add_parser("key", help="static keys for simple programs", description=__doc__)
    commands = key.add_subparsers(metavar="COMMAND", required=True)
    create = add_state_command(commands, "create", "make a key for a client of role user and print it, once")
    create.add_argument("client_id", metavar="CLIENT")
    create.add_argument("--name", default="key", help="what it is for")
    create.add_argument(
        "--from",
        dest="networks",
        action="append",
        required=True,
        metavar="NETWORK",
        help="where it is good (repeatable)",
    )
    create.add_argument("--days", type=int, default=90, help=f"how long, at most {MAX_LIFETIME_DAYS} (default: 90)")
    create.set_defaults(handler=_create)
    add_state_command(commands, "list", "list all keys").set_defaults(handler=_list)
    revoke = add_state_command(commands, "revoke", "end keys by their ids")
    revoke.add_argument("key_ids", metavar="ID", nargs="+")
    revoke.set_defaults(handler=_revoke)
    many = add_state_command(commands, "revoke-all", "end every key that fits all that is said")
    many.add_argument("--client", help="of this client")
    many.add_argument("--tenant", help="of clients of this tenant")
    many.add_argument("--created-before", type=_day, metavar="DAY", help="made before this day (UTC)")
    many.add_argument("--expires-after", type=_day, metavar="DAY", help="good until after this day (UTC)")
    many.add_argument("--everything", action="store_true", help="every key there is")
    many.add_argument("--dry-run", action="store_true", help="only say which")
    many.set_defaults(handler=_revoke_all)


def _day(text: str) -> int:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day like 2030-01-31") from None
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp())


def _create(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        issued = StaticKeyRegistry(opened.database, opened.credentials_key).create(
            arguments.client_id,
            arguments.name,
            networks=tuple(arguments.networks),
            days=arguments.days,
            actor=actor(),
        )
    if arguments.json:
        print_json({**describe(issued.key), "key": issued.secret})
        return EXIT_OK
    print(f"key_id: {issued.key.key_id}")
    print(f"key:    {issued.secret}")
    sys.stdout.flush()
    sys.stderr.write("Keep the key now: it is stored nowhere and not shown again.\n")
    return EXIT_OK


def _list(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        keys = StaticKeyRegistry(opened.database, b"").all()
    _print(arguments, keys)
    return EXIT_OK


def _revoke(arguments: argparse.Namespace) -> int:
    with open_definitions(arguments) as opened:
        revoked = StaticKeyRegistry(opened.database, b"").revoke(arguments.key_ids, actor=actor())
    _print(arguments, revoked)
    return EXIT_OK


def _revoke_all(arguments: argparse.Namespace) -> int:
    selection = KeySelection(
        client_id=arguments.client,
        tenant=arguments.tenant,
        created_before=arguments.created_before,
        expires_after=arguments.expires_after,
        everything=arguments.everything,
    )
    with open_definitions(arguments) as opened:
        registry = StaticKeyRegistry(opened.database, b"")
        keys = registry.select(selection)
        if not arguments.dry_run:
            keys = registry.revoke([key.key_id for key in keys], actor=actor())
    _print(arguments, keys)
    if arguments.dry_run:
        sys.stderr.write(f"{len(keys)} keys would be revoked; nothing was changed.\n")
    return EXIT_OK


def _print(arguments: argparse.Namespace, keys: list[StaticKey]) -> None:
    if arguments.json:
        print_json([describe(key) for key in keys])
    elif keys:
        rows = [("ID", "CLIENT", "NAME", "FROM", "EXPIRES", "REVOKED")]
        rows += [
            (
                one.key_id,
                one.client_id,
                one.name,
                ",".join(one.networks),
                date_of(one.expires_at),
                date_of(one.revoked_at),
            )
            for one in keys
        ]
        print(tabulate(rows))
    else:
        print("There are no such keys.")
