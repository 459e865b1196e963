"""`casemate audit export`, `verify-export` and `forward`: records for other systems and other people.

An export is itself an event: where the folder is that of an installation, a notice of it is left for the supervisor to record,
before it is whole.
"""

import argparse
from pathlib import Path

from appliance.cli.audit.announcing import announce_export
from appliance.cli.audit.arguments import (
    KEY_HELP,
    WrongUsage,
    add_folder,
    load_key,
    require_folder,
    set_handler,
)
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.cli.terminal import say
from audit.export import DERIVED, VerifiedExport, verify_export, write_export
from audit.reader import LogReader
from audit.signing_key import load_signer


def add_export_commands(commands: Commands) -> None:
    """Add the first two."""
    export = add_command(commands, "export", "copy a range of records, with all that proves them, into a folder")
    add_folder(export)
    export.add_argument("output", metavar="FOLDER", type=Path, help="is made; must not exist")
    export.add_argument("--key", metavar="VKEY", help=f"{KEY_HELP} (default: log.vkey beside the folder)")
    export.add_argument("--from", dest="start", metavar="INDEX", type=int, default=0, help="first record (default: 0)")
    export.add_argument("--to", dest="end", metavar="INDEX", type=int, help="behind the last one (default: all)")
    export.add_argument(
        "--form", choices=sorted(DERIVED), action="append", default=[], help="besides JSON lines; several times"
    )
    export.add_argument(
        "--sign-with", metavar="FILE", type=Path, help="an Ed25519 key in PEM, mode 600: signs the manifest"
    )
    export.add_argument("--sign-as", metavar="NAME", help="the name that the signature carries")
    set_handler(export, _export)
    verify = add_command(commands, "verify-export", "verify an export offline, with the log's key alone")
    verify.add_argument("folder", metavar="FOLDER", type=Path)
    verify.add_argument("--key", metavar="VKEY", required=True, help=KEY_HELP)
    verify.add_argument("--exporter", metavar="VKEY", help="the key of whoever must have signed the manifest")
    set_handler(verify, _verify_export)


def _export(arguments: argparse.Namespace) -> int:
    folder = require_folder(arguments.dir).resolve()
    key = load_key(arguments.key or str(folder.parent / "log.vkey"))
    if (arguments.sign_with is None) != (arguments.sign_as is None):
        raise WrongUsage("--sign-with and --sign-as belong together")
    if arguments.output.exists():
        raise WrongUsage(f"{arguments.output}: exists already")
    signer = None if arguments.sign_with is None else load_signer(arguments.sign_with, arguments.sign_as)
    forms = sorted(set(arguments.form))
    made = write_export(
        LogReader(folder),
        key,
        arguments.output,
        arguments.start,
        arguments.end,
        forms=forms,
        signer=signer,
        announce=lambda export: _leave_notice(folder, export),
    )
    _describe(made)
    if signer is not None:
        print(f"signed by {signer.key.encode()}")
    return EXIT_OK


def _verify_export(arguments: argparse.Namespace) -> int:
    exporter = None if arguments.exporter is None else load_key(arguments.exporter)
    verified = verify_export(require_folder(arguments.folder), load_key(arguments.key), exporter)
    _describe(verified)
    print(
        "verified: every record is in the log under the signed checkpoint"
        + (", signed by the exporter" if exporter else "")
    )
    return EXIT_OK


def _describe(export: VerifiedExport) -> None:
    manifest = export.manifest
    say(f"records     {manifest.start} to {manifest.end - 1} of the log {manifest.origin}")
    say(f"checkpoint  {manifest.checkpoint_size} records, root {manifest.root}")
    say(f"manifest    sha256:{export.digest}")


def _leave_notice(folder: Path, made: VerifiedExport) -> None:
    manifest = made.manifest
    facts = {"checkpoint_size": manifest.checkpoint_size, "end": manifest.end, "start": manifest.start}
    announce_export(folder, origin=manifest.origin, digest=f"sha256:{made.digest}", facts=facts)
