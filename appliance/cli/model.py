"""`casemate model`: sign a model folder, and verify one against its signature (OpenSSF Model Signing v1.0).

Both need nothing but the folder and the keys: no configuration, no running appliance, no network.
"""

import argparse
import contextlib
import datetime
import getpass
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from appliance.cli.main import EXIT_OK
from appliance.cli.progress import Progress
from appliance.errors import CommandFailed
from security.model_signing.names import show_name
from security.model_signing.signer import ModelSigner, load_signer
from security.model_signing.signing import DEFAULT_SIGNATURE_NAME, sign_model
from security.model_signing.token import SCHEME, open_token_signer, parse_token_uri
from security.model_signing.trust import Trust, load_certificate_trust, load_key_trust
from security.model_signing.verification import VerifiedModel, verify_model

_QUIET_S = 1.0
_STEP_PERCENT = 10


def add_model_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `model` with its commands."""
    model = subparsers.add_parser("model", help="sign a model folder, verify one", description=__doc__)
    commands = model.add_subparsers(metavar="COMMAND", required=True)
    sign = _add_command(commands, "sign", "sign all files of a model folder")
    sign.add_argument(
        "--key",
        required=True,
        metavar="KEY",
        help="the private key on P-256, P-384 or P-521: a PEM file, or a pkcs11: URI with token, object and module-path",
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


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    command.add_argument("folder", metavar="DIR", type=Path, help="the model folder")
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _sign(arguments: argparse.Namespace) -> int:
    output = arguments.output if arguments.output is not None else arguments.folder / DEFAULT_SIGNATURE_NAME
    with _open_signer(arguments) as signer, Progress("signing") as progress:
        signed = sign_model(arguments.folder, signer, output, progress=_Percentage(progress).report)
    if signed.left_out:
        sys.stderr.write(
            f"casemate: not covered by the signature: {', '.join(signed.left_out)}; the folder verifies only without\n"
        )
    num_files = len(signed.manifest.digests)
    if arguments.json:
        described = {"signature": str(output), "root": signed.manifest.root, "num_files": num_files}
        print(json.dumps({**described, "size_bytes": signed.size_bytes, "left_out": signed.left_out}))
        return EXIT_OK
    print(f"signed     {_count(num_files, 'file')}, {_format_size(signed.size_bytes)}")
    print(f"root       sha256:{signed.manifest.root}")
    print(f"signature  {output}")
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.at is not None and arguments.root is None:
        raise CommandFailed("--at is for certificates: it goes with --root")
    with Progress("verifying") as progress:
        report = _Percentage(progress).report
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
    print(f"files      all {len(verified.digests)} as signed, {_format_size(size_bytes)}; none beside them")
    print(f"root       sha256:{verified.root}")
    return EXIT_OK


def _describe(verified: VerifiedModel) -> dict[str, object]:
    return {
        "root": verified.root,
        "method": verified.signed_by.method,
        "fingerprint": verified.signed_by.fingerprint,
        "signer": verified.signed_by.name,
        "files": {
            name: {"sha256": digest, "size_bytes": verified.sizes[name]} for name, digest in verified.digests.items()
        },
    }


@contextlib.contextmanager
def _open_signer(arguments: argparse.Namespace) -> Iterator[ModelSigner]:
    if arguments.key.startswith(SCHEME):
        with open_token_signer(parse_token_uri(arguments.key), _ask, chain=arguments.certificate_chain) as signer:
            yield signer
    else:
        yield load_signer(Path(arguments.key), _ask, chain=arguments.certificate_chain)


def _load_trust(arguments: argparse.Namespace) -> Trust:
    if arguments.key is not None:
        return load_key_trust(arguments.key)
    return load_certificate_trust(arguments.root, at=arguments.at)


def _ask(what: str) -> str:
    """Ask at the terminal; a secret never comes from an argument or a variable."""
    if not sys.stdin.isatty():
        raise CommandFailed(f"{what}: there is no terminal to ask at")
    return getpass.getpass(f"{what[0].upper()}{what[1:]}: ")


def _parse_time(text: str) -> datetime.datetime:
    try:
        time_given = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-23 or 2026-11-23T12:00:00Z") from None
    return time_given.replace(tzinfo=datetime.UTC) if time_given.tzinfo is None else time_given.astimezone(datetime.UTC)


class _Percentage:
    """How far hashing is: nothing in the first second, then each tenth."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.monotonic()

    def report(self, done: int, total: int) -> None:
        """Called by the library several times a second."""
        if time.monotonic() - self._started >= _QUIET_S and total:
            percent = done * 100 // total // _STEP_PERCENT * _STEP_PERCENT
            self._progress.say(f"{percent} % of {_format_size(total)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _format_size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
