"""`casemate model`: sign a model folder, verify one against its signature (OpenSSF Model Signing v1.0), and the life of a model.

Signing and verifying need nothing but the folder and the keys: no configuration, no running appliance, no network.
"""

import argparse
import datetime
import json
import sys
from pathlib import Path

from appliance.cli.commands import Commands, add_command
from appliance.cli.hashing_progress import Percentage, count, format_size
from appliance.cli.main import EXIT_OK
from appliance.cli.model_life import add_digest_option, add_life_commands
from appliance.cli.progress import Progress
from appliance.cli.signing_key import KEY_HELP, open_signer
from appliance.errors import CommandFailed
from security.model_signing.names import show_name
from security.model_signing.signing import DEFAULT_SIGNATURE_NAME, sign_model
from security.model_signing.trust import Trust, load_certificate_trust, load_key_trust
from security.model_signing.verification import VerifiedModel, verify_model


def add_model_commands(subparsers: Commands) -> None:
    """Add `model` with its commands."""
    model = subparsers.add_parser("model", help="sign a model folder, verify one", description=__doc__)
    commands = model.add_subparsers(metavar="COMMAND", required=True)
    sign = _add_command(commands, "sign", "sign all files of a model folder")
    sign.add_argument(
        "--key",
        required=True,
        metavar="KEY",
        help=KEY_HELP,
    )
    sign.add_argument(
        "--certificate-chain",
        type=Path,
        metavar="PEM",
        help="certificates to sign with (certificate method): the key's own first, then those above it",
    )
    sign.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"where the signature goes (default: {DEFAULT_SIGNATURE_NAME} in the folder); never replaces a file",
    )
    add_digest_option(sign)
    sign.set_defaults(handler=_sign)
    verify = _add_command(commands, "verify", "verify that a model folder holds exactly the files that were signed")
    verify.add_argument("--signature", required=True, type=Path, metavar="FILE", help="the signature")
    trust = verify.add_mutually_exclusive_group(required=True)
    trust.add_argument("--key", type=Path, metavar="PEM", help="the public key that must have signed")
    trust.add_argument("--root", type=Path, metavar="PEM", help="the root that the signer's certificate must be under")
    verify.add_argument(
        "--at",
        type=_parse_time,
        metavar="TIME",
        help="with --root: when the certificates must be valid, as 2026-11-23 or 2026-11-23T12:00:00Z (default: now)",
    )
    verify.set_defaults(handler=_verify)
    add_life_commands(commands)


def _add_command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary)
    command.add_argument("folder", metavar="DIR", type=Path, help="the model folder")
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _sign(arguments: argparse.Namespace) -> int:
    output = arguments.output if arguments.output is not None else arguments.folder / DEFAULT_SIGNATURE_NAME
    with open_signer(arguments.key, chain=arguments.certificate_chain) as signer, Progress("signing") as progress:
        signed = sign_model(
            arguments.folder, signer, output, algorithm=arguments.digest, progress=Percentage(progress).report
        )
    if signed.left_out:
        sys.stderr.write(
            f"casemate: not covered by the signature: {', '.join(signed.left_out)}; the folder verifies only without\n"
        )
    num_files = len(signed.manifest.digests)
    if arguments.json:
        described = {"signature": str(output), "root": signed.manifest.root, "num_files": num_files}
        print(json.dumps({**described, "size_bytes": signed.size_bytes, "left_out": signed.left_out}))
        return EXIT_OK
    print(f"signed     {count(num_files, 'file')}, {format_size(signed.size_bytes)}")
    print(f"root       sha256:{signed.manifest.root}")
    print(f"signature  {output}")
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.at is not None and arguments.root is None:
        raise CommandFailed("--at is for certificates: it goes with --root")
    with Progress("verifying") as progress:
        report = Percentage(progress).report
        verified = verify_model(arguments.folder, arguments.signature, _load_trust(arguments), progress=report)
    signed_by, size_bytes = verified.signed_by, sum(verified.sizes.values())
    if arguments.json:
        print(json.dumps(_describe(verified)))
        return EXIT_OK
    if signed_by.name is not None:
        print(f"signature  good, by {show_name(signed_by.name)}")
        print(f"           certificate sha256:{signed_by.fingerprint}")
    else:
        print(f"signature  good, by key sha256:{signed_by.fingerprint}")
    print(f"files      all {len(verified.digests)} as signed, {format_size(size_bytes)}; none beside them")
    print(f"root       sha256:{verified.root}")
    return EXIT_OK


def _describe(verified: VerifiedModel) -> dict[str, object]:
    return {
        "root": verified.root,
        "method": verified.signed_by.method,
        "fingerprint": verified.signed_by.fingerprint,
        "signer": verified.signed_by.name,
        "files": {
            name: {verified.signed.algorithm: digest, "size_bytes": verified.sizes[name]}
            for name, digest in verified.digests.items()
        },
    }


def _load_trust(arguments: argparse.Namespace) -> Trust:
    if arguments.key is not None:
        return load_key_trust(arguments.key)
    return load_certificate_trust(arguments.root, at=arguments.at)


def _parse_time(text: str) -> datetime.datetime:
    try:
        time_given = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-23 or 2026-11-23T12:00:00Z") from None
    return time_given.replace(tzinfo=datetime.UTC) if time_given.tzinfo is None else time_given.astimezone(datetime.UTC)
