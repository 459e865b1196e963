"""`casemate trust`: make roots of trust and role files, sign them, put a role file into force.

Making and signing need no appliance and are done where the keys are. A root's digest goes to the hosts by another way than the
root itself: `casemate init` wants both.
"""

import argparse
import datetime
import hashlib
import json
from pathlib import Path

from appliance.cli.commands import Commands, add_command
from appliance.cli.hashing_progress import count
from appliance.cli.main import EXIT_OK
from appliance.cli.role_files import put_into_force
from appliance.cli.signing_key import KEY_HELP, open_signer
from appliance.cli.state import add_state_options, find_state
from appliance.errors import CommandFailed
from appliance.models.places import utc_now
from security.bundles.root_document import anchor_of, parse_root
from security.bundles.roots import TUF_ROLES, build_root, is_complete, sign_root, version_of_root
from security.model_signing.elliptic import load_public_key
from security.stewards.envelope import (
    Envelope,
    add_signature,
    encode_envelope,
    find_signers,
    key_id_of,
    parse_envelope,
)
from security.stewards.role_file import ROLE_FILE_TYPE, Anchor, parse_role_file

_DEFAULT_DAYS = 365


def add_trust_commands(subparsers: Commands) -> None:
    """Add `trust` with its commands."""
    trust = subparsers.add_parser("trust", help="roots of trust and role files", description=__doc__)
    commands = trust.add_subparsers(metavar="COMMAND", required=True)
    make_root = add_command(commands, "make-root", "make an unsigned root from public keys", _make_root)
    for role in TUF_ROLES:
        make_root.add_argument(
            f"--{role}-key", action="append", type=Path, metavar="PEM", required=role == "root",
            help=f"a public key that may sign {role}" + ("" if role == "root" else " (default: the root keys)"),
        )  # fmt: skip
        make_root.add_argument(f"--{role}-threshold", type=int, default=1, metavar="N")
    make_root.add_argument(
        "--days", type=int, default=_DEFAULT_DAYS, help=f"until it expires (default: {_DEFAULT_DAYS})"
    )
    make_root.add_argument("--previous", type=Path, metavar="FILE", help="the root that this one follows")
    make_root.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    sign = add_command(commands, "sign-root", "add a signature to a root", _sign_root)
    sign.add_argument("file", type=Path)
    sign.add_argument("--key", required=True, metavar="KEY", help=KEY_HELP)
    sign.add_argument("--previous", type=Path, metavar="FILE", help="the root that this one follows")
    roles = add_command(
        commands, "sign-roles", "sign a role file: JSON at first, then a signed one once more", _sign_roles
    )
    roles.add_argument("file", type=Path)
    roles.add_argument("--key", required=True, metavar="KEY", help=f"a key of the customer's root: {KEY_HELP}")
    roles.add_argument(
        "--root", type=Path, metavar="FILE", help="the customer's root: says how many signatures are needed"
    )
    roles.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    install = add_command(commands, "install-roles", "put a signed role file into force on this host", _install_roles)
    add_state_options(install)
    install.add_argument("file", type=Path)


def _make_root(arguments: argparse.Namespace) -> int:
    given = {role: getattr(arguments, f"{role}_key") or arguments.root_key for role in TUF_ROLES}
    keys = {role: [load_public_key(path) for path in paths] for role, paths in given.items()}
    thresholds = {role: getattr(arguments, f"{role}_threshold") for role in TUF_ROLES}
    expires_at = utc_now() + datetime.timedelta(days=arguments.days)
    version = version_of_root(arguments.previous.read_bytes()) + 1 if arguments.previous is not None else 1
    _write_new(arguments.output, build_root(keys, thresholds, expires_at=expires_at, version=version))
    print(f"made       {arguments.output}, unsigned; `casemate trust sign-root` signs it")
    return EXIT_OK


def _sign_root(arguments: argparse.Namespace) -> int:
    unsigned = arguments.file.read_bytes()
    before = arguments.previous.read_bytes() if arguments.previous is not None else None
    if before is None and version_of_root(unsigned) > 1:
        raise CommandFailed(
            f"{arguments.file}: follows another root, whose holders sign it as well: --previous names that file"
        )
    with open_signer(arguments.key) as signer:
        data = sign_root(unsigned, signer, before=before)
    arguments.file.write_bytes(data)
    if data == unsigned:
        print("unchanged  has a signature by this key already")
    if is_complete(data, "customer", before=before):
        print(f"complete   {arguments.file}")
        print(f"sha256     {hashlib.sha256(data).hexdigest()}")
    else:
        print(f"signed     {arguments.file}; more signatures are needed")
    return EXIT_OK


def _sign_roles(arguments: argparse.Namespace) -> int:
    data = arguments.file.read_bytes()
    if b'"payloadType"' not in data[: 1 << 20]:
        parse_role_file(data)
        data = encode_envelope(Envelope(ROLE_FILE_TYPE, data, ()))
    roles = parse_role_file(parse_envelope(data).payload)
    anchor = None if arguments.root is None else anchor_of(parse_root(arguments.root.read_bytes(), "customer"))
    with open_signer(arguments.key) as signer:
        if anchor is not None and key_id_of(signer.public_key) not in anchor.keys:
            raise CommandFailed(
                f"{arguments.key}: is no key of {arguments.root}, and its signature would count for nothing"
            )
        data = add_signature(data, signer)
    envelope = parse_envelope(data)
    progress = _describe_signatures(envelope, anchor)
    _write_new(arguments.output, data)
    people = {person.name: sorted(person.roles) for person in roles.people}
    print(f"signed     {arguments.output}, version {roles.version}: {json.dumps(people)}")
    print(progress)
    return EXIT_OK


def _describe_signatures(envelope: Envelope, anchor: Anchor | None) -> str:
    """How many of those who must sign have. Raises: MalformedDocument where one of the signatures is wrong."""
    num_signed = len(envelope.signatures)
    if anchor is None:
        return f"has {count(num_signed, 'signature')}; whether more are needed is said by the customer's root: --root FILE names it"
    num_signed = len(find_signers(envelope, anchor.keys))
    if num_signed >= anchor.threshold:
        return f"complete   has {count(num_signed, 'signature')}, {anchor.threshold} are needed"
    return (
        f"incomplete has {num_signed} of {anchor.threshold} signatures: the next holder of a root key signs this file"
    )


def _install_roles(arguments: argparse.Namespace) -> int:
    roles = put_into_force(find_state(arguments), arguments.file.read_bytes())
    print(f"in force   role file version {roles.version}, {len(roles.people)} people")
    return EXIT_OK


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise CommandFailed(f"{path}: exists already and is not replaced") from None
