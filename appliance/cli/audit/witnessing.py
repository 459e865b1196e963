"""`casemate audit witness` and `cosign`: both ends of witnessing, over HTTP or by a courier who carries files.

log's host   casemate audit cosign --key LOG --witness W --url URL [--every 60]
by courier   casemate audit cosign --key LOG --witness W --request FILE         on the log's host
             casemate audit witness --state DIR --name W --log LOG --answer FILE -o ANSWER     on the witness's
             casemate audit cosign --key LOG --witness W --request FILE --take ANSWER   back on the log's host
"""

import argparse
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from appliance.auditor.witness_listener import serve_witness
from appliance.cli.audit.arguments import (
    KEY_HELP,
    WrongUsage,
    add_folder,
    load_key,
    load_witnesses,
    read_file,
    require_folder,
    set_handler,
    write_output,
)
from appliance.cli.audit.verifying import WITNESS_HELP
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.cli.terminal import escape_text
from audit.checkpoint import parse_checkpoint
from audit.cosignature import CosignerKey
from audit.courier import add_cosignatures, ask_witness, build_request, load_cosigned, merge_cosigned
from audit.errors import AuditFault, AuditRejected, AuditUnavailable, EntryNotFound
from audit.note import MAX_NOTE_BYTES, VerifierKey, parse_note
from audit.reader import LogReader
from audit.signing_key import open_cosigners
from audit.witness import MAX_REQUEST_BYTES, Answer, Witness, parse_request
from security.acting import acting_as_owner

HTTP_TIMEOUT_S = 10.0


def add_witness_commands(commands: Commands) -> None:
    """Add both."""
    witness = add_command(
        commands, "witness", "be a witness: cosign checkpoints of logs that only grow (C2SP tlog-witness)"
    )
    witness.add_argument(
        "--state", metavar="DIR", type=Path, required=True, help="the witness's own folder: keys, last trees"
    )
    witness.add_argument("--name", required=True, help="the witness's name, in the form of a URL without scheme")
    witness.add_argument(
        "--log", metavar="VKEY", action="append", required=True, help=f"{KEY_HELP}; may be given several times"
    )
    witness.add_argument("--ml-dsa", action="store_true", help="cosign with an ML-DSA-44 key as well")
    witness.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8440", help="default: %(default)s")
    witness.add_argument(
        "--tls", metavar=("CERTIFICATE", "KEY"), nargs=2, type=Path, help="serve HTTPS with these files"
    )
    witness.add_argument(
        "--answer", metavar="FILE", type=Path, help="answer one request that a courier brought, and end"
    )
    witness.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="where that answer goes (default: standard output)"
    )
    set_handler(witness, _witness)
    cosign = add_command(commands, "cosign", "get a witness's cosignature for the log's last checkpoint")
    add_folder(cosign)
    cosign.add_argument("--key", metavar="VKEY", required=True, help=KEY_HELP)
    cosign.add_argument("--witness", metavar="VKEY", action="append", required=True, help=WITNESS_HELP)
    cosign.add_argument("--url", help="the witness's address: the exchange is made over HTTP")
    cosign.add_argument("--every", metavar="SECONDS", type=int, help="go on, and ask again so often")
    cosign.add_argument(
        "--request",
        metavar="FILE",
        type=Path,
        help="write a request for a courier; with --take, the one that was answered",
    )
    cosign.add_argument(
        "--old-size",
        metavar="N",
        type=int,
        help="the size that the witness remembers (default: of the last cosigned checkpoint)",
    )
    cosign.add_argument("--take", metavar="FILE", type=Path, help="take the answer that a courier brought back")
    set_handler(cosign, _cosign)


def _witness(arguments: argparse.Namespace) -> int:
    cosigners = open_cosigners(arguments.state, arguments.name, with_mldsa=arguments.ml_dsa)
    witness = Witness(arguments.state, cosigners, [load_key(text) for text in arguments.log], time.time)
    try:
        if arguments.answer is not None:
            return _answer_courier(witness, arguments)
        for cosigner in cosigners:
            print(f"witness {cosigner.key.encode()}", flush=True)
        host, _, port = arguments.listen.rpartition(":")
        if not host or not port.isdigit():
            raise WrongUsage(f"--listen: expected HOST:PORT, got {arguments.listen!r}")
        serve_witness(
            witness,
            host.strip("[]"),
            int(port),
            arguments.tls,
            lambda address: print(f"listening on {address}", flush=True),
        )
    finally:
        witness.close()
    return EXIT_OK


def _answer_courier(witness: Witness, arguments: argparse.Namespace) -> int:
    answer = witness.add_checkpoint(read_file(arguments.answer, MAX_REQUEST_BYTES))
    if answer.status != 200:
        reason = answer.body.decode("utf-8", "replace").strip()
        known = f"the witness remembers size {reason}: use --old-size {reason}" if answer.status == 409 else reason
        sys.stderr.write(f"casemate: refused ({answer.status}): {escape_text(known)}\n")
        return EXIT_FAILED
    write_output(answer.body, arguments.output)
    return EXIT_OK


def _cosign(arguments: argparse.Namespace) -> int:
    key, witnesses = load_key(arguments.key), load_witnesses(arguments.witness)
    folder = require_folder(arguments.dir).resolve()
    if arguments.take is not None:
        if arguments.request is None:
            raise WrongUsage("--take needs --request: the request that was answered")
        note = parse_request(read_file(arguments.request, MAX_REQUEST_BYTES)).note
        _keep(folder, add_cosignatures(note, read_file(arguments.take, MAX_NOTE_BYTES), witnesses))
        return EXIT_OK
    old_size = arguments.old_size if arguments.old_size is not None else _last_cosigned(folder)
    if arguments.request is not None:
        arguments.request.write_bytes(build_request(LogReader(folder), key, old_size).body)
        return EXIT_OK
    if arguments.url is None:
        raise WrongUsage("give --url for a witness that can be reached, or --request for a courier")
    if arguments.every is None:
        _ask(folder, key, witnesses[0], arguments.url, old_size)
        return EXIT_OK
    _ask_for_ever(folder, key, witnesses[0], arguments.url, arguments.every)
    return EXIT_OK


def _ask_for_ever(folder: Path, key: VerifierKey, witness: CosignerKey, url: str, every_s: int) -> None:
    """A witness that is away, or answers with rubbish, is asked again; each failure is one line."""
    while True:
        try:
            _ask(folder, key, witness, url, _last_cosigned(folder))
        except (AuditRejected, AuditUnavailable) as fault:
            sys.stderr.write(f"casemate: not cosigned: {escape_text(str(fault))}\n")
        time.sleep(every_s)


def _ask(folder: Path, key: VerifierKey, witness: CosignerKey, url: str, old_size: int) -> None:
    _keep(folder, ask_witness(LogReader(folder), key, witness, lambda body: _post(url, body), old_size))


def _post(url: str, body: bytes) -> Answer:
    if not url.startswith(("https://", "http://")):
        raise WrongUsage(f"--url: expected http:// or https://, got {url!r}")
    request = urllib.request.Request(f"{url.rstrip('/')}/add-checkpoint", data=body, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:  # noqa: S310 - the scheme was checked
            return Answer(response.status, response.read(MAX_NOTE_BYTES + 1))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(MAX_NOTE_BYTES + 1))
    except OSError as error:
        raise EntryNotFound(f"the witness at {url} cannot be reached: {error}") from error


def _keep(folder: Path, cosigned: bytes) -> None:
    with acting_as_owner(folder.parent):
        kept = merge_cosigned(folder.parent, cosigned)
    print(f"cosigned: {parse_checkpoint(parse_note(kept).text).size} records")


def _last_cosigned(folder: Path) -> int:
    try:
        return parse_checkpoint(parse_note(load_cosigned(folder.parent)).text).size
    except AuditFault:
        return 0  # The witness says what it remembers.
