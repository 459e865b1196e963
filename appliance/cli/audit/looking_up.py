"""`casemate audit lookup`: who asked, or was answered, this very text? By the keyed hashes of one tenant and day.

Whoever looks needs that day's root: it lies on the host, readable by its user alone, until its day is destroyed; or, with a copy of
the folder elsewhere, in the escrow that an auditor's private key opens. The look-up is left for the log before it is made, so that
curiosity shows. The text itself is never written anywhere.
"""

import argparse
import datetime
import json
import struct
import sys
from contextlib import closing
from pathlib import Path

from appliance.cli.audit.arguments import (
    KEY_HELP,
    WrongUsage,
    add_folder,
    load_key,
    read_file,
    require_folder,
    set_handler,
)
from appliance.cli.audit.bodies import load_recipient_key
from appliance.cli.audit.searching import describe_record
from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.models.places import open_outbox
from audit.formats import parse_json
from audit.index import LogIndex, Query
from audit.keyed_hash import ROOT_LABEL, KeyedHash, KeyedHasher, Purpose, root_context
from audit.lookup import find_hash
from audit.sealing import KeyContext, unwrap_share
from audit.shares import SHARES, ShareStore
from security.acting import acting_as_owner

MAX_TEXT_BYTES = 64 << 20
OVERLAP_MS = 3_600_000
MAX_ROOTS = 10_000
"""Of all tenants, in a day."""


def add_lookup_commands(commands: Commands) -> None:
    """Add it."""
    lookup = add_command(
        commands, "lookup", "find the requests of a known prompt or answer, by its keyed hash; is recorded"
    )
    add_folder(lookup)
    lookup.add_argument("--key", metavar="VKEY", help=f"{KEY_HELP} (default: log.vkey beside the folder)")
    lookup.add_argument("--tenant", required=True, help="the tenant whose records are looked through")
    lookup.add_argument("--day", required=True, help="the UTC day, such as 2026-11-25")
    text = lookup.add_mutually_exclusive_group(required=True)
    text.add_argument("--answer", metavar="FILE", type=Path, help="an answer's text, as it was sent")
    text.add_argument("--token-ids", metavar="FILE", type=Path, help="a prompt's token ids, as a JSON array")
    lookup.add_argument(
        "--recipient-key",
        metavar="FILE",
        type=Path,
        help="open the root's escrow with your private key (recipient-key)",
    )
    lookup.add_argument("--password", action="store_true", help="ask for that key's password")
    set_handler(lookup, _lookup)


def _lookup(arguments: argparse.Namespace) -> int:
    folder = require_folder(arguments.dir).resolve()
    state = folder.parent.parent
    key = load_key(arguments.key or str(folder.parent / "log.vkey"))
    start_ms = _parse_day(arguments.day)
    hashed, purpose = _hash(arguments, folder.parent / SHARES)
    open_outbox(state).put(
        "hash_looked_up",
        name=hashed.value,
        digest=hashed.key_id,
        actor=actor(),
        facts={"day": arguments.day, "purpose": purpose, "tenant": arguments.tenant},
    )
    path = state / "reader" / "index.sqlite"
    with acting_as_owner(path.parent), closing(LogIndex(path, folder, key)) as index:
        index.update()
        # An answer is hashed under the day on which its request came, and recorded when it has ended.
        query = Query(tenant=arguments.tenant, since_ms=start_ms, until_ms=start_ms + 86_400_000 + OVERLAP_MS)
        found = list(find_hash(index, query, hashed))
        num_roots = _count_roots(index, root_context(arguments.tenant, arguments.day), start_ms)
    if num_roots > 1:
        sys.stderr.write(
            f"casemate: {num_roots} roots were made for this tenant and day: what came before the last was hashed under one that "
            "is gone, and is not found\n"
        )
    for entry in found:
        print(describe_record(json.loads(entry)))
    return EXIT_OK if found else EXIT_FAILED


def _count_roots(index: LogIndex, context: KeyContext, start_ms: int) -> int:
    """How many roots the log says were made for a tenant's day: a second where the first was lost, or shares were put back."""
    query = Query(kind="hash_root_kept", since_ms=start_ms, until_ms=start_ms + 2 * 86_400_000)
    events = (parse_json(entry) for entry in index.read(index.find(query, limit=MAX_ROOTS)))
    uids = [entity.get("uid") for event in events if isinstance(entity := event.get("entity"), dict)]
    return uids.count(context.key_id)


def _hash(arguments: argparse.Namespace, shares: Path) -> tuple[KeyedHash, str]:
    context = root_context(arguments.tenant, arguments.day)
    hasher = KeyedHasher(_find_root(arguments, shares, context), context)
    purpose: Purpose = "prompt" if arguments.answer is None else "answer"
    data = read_file(arguments.answer or arguments.token_ids, MAX_TEXT_BYTES)
    if purpose == "prompt":
        data = _encode_token_ids(data)
    return hasher.hash(purpose, data), purpose


def _find_root(arguments: argparse.Namespace, shares: Path, context: KeyContext) -> bytes:
    """Raises: EntryNotFound where it was destroyed, or nothing was asked; KeyUnusable, BodyRejected, WrongUsage."""
    kept = ShareStore(shares).load(context.day, context.key_id)
    if arguments.recipient_key is None:
        return kept.share
    private = load_recipient_key(arguments.recipient_key, arguments)
    return unwrap_share(kept.escrow, private, context, ROOT_LABEL)


def _encode_token_ids(data: bytes) -> bytes:
    """As the gateway hashes them: little-endian uint32."""
    try:
        token_ids = json.loads(data)
        return struct.pack(f"<{len(token_ids)}I", *token_ids)
    except (ValueError, TypeError, struct.error) as error:
        raise WrongUsage(f"--token-ids: expected a JSON array of token ids: {error}") from error


def _parse_day(text: str) -> int:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"--day: expected a day such as 2026-11-25, got {text!r}") from None
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp() * 1000)
