"""`casemate audit`: verify the log, prove and show its records, verify a receipt.

All of it reads files and needs no running appliance; with a copy of the folder and the log's key anybody can do the same.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from appliance.cli.main import EXIT_FAILED, EXIT_OK, EXIT_ROLLBACK_NOT_EXCLUDED, EXIT_USAGE
from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.entry import Json
from audit.errors import AuditRejected, EntryNotFound, KeyUnusable, MalformedNote
from audit.fsck import Verified, verify_log
from audit.merkle import leaf_hash, verify_inclusion
from audit.note import MAX_NOTE_BYTES, VerifierKey, parse_note
from audit.proof import HEADER, MAX_PROOF_BYTES, parse_proof, verify_proof
from audit.reader import WAL, LogReader
from audit.receipt import MAX_RECEIPT_BYTES, verify_receipt
from audit.signing_key import load_verifier_key
from audit.tiles import MAX_ENTRY_BYTES
from audit.wal import load_segments

DEFAULT_FOLDER = Path("state") / "audit" / "log"
_FOLDER_HELP = "the log's folder (default: %(default)s)"
_KEY_HELP = "the log's public key: a vkey (name+id+base64), or a file that holds one"


def add_audit_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `audit` with its commands."""
    audit = subparsers.add_parser("audit", help="verify the log, prove that a record is in it", description=__doc__)
    commands = audit.add_subparsers(metavar="COMMAND", required=True)
    verify = _add_command(commands, "verify", "derive the whole log anew from its records and check its signature")
    verify.add_argument("folder", metavar="DIR", type=Path, help="the log's folder")
    verify.add_argument("--key", metavar="VKEY", required=True, help=_KEY_HELP)
    verify.add_argument(
        "--since",
        metavar="FILE",
        type=Path,
        help="an earlier checkpoint, kept elsewhere: shows that nothing was undone",
    )
    verify.set_defaults(handler=_verify)
    prove = _add_command(commands, "prove", "print the proof that a record is in the log (C2SP tlog-proof)")
    prove.add_argument("index", metavar="INDEX", type=int)
    prove.add_argument("--dir", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=_FOLDER_HELP)
    prove.add_argument("--key", metavar="VKEY", help=f"{_KEY_HELP}; without it the signature is not checked")
    prove.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the proof to a file")
    prove.set_defaults(handler=_prove)
    show = _add_command(commands, "show", "print a record")
    show.add_argument("index", metavar="INDEX", type=int)
    show.add_argument("--dir", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=_FOLDER_HELP)
    show.add_argument("--raw", action="store_true", help="the leaf's very bytes, as they are hashed")
    show.set_defaults(handler=_show)
    receipt = _add_command(
        commands, "verify-receipt", "verify a receipt, or a proof with its record, with the key alone"
    )
    receipt.add_argument("file", metavar="FILE", type=Path, help="the answer of GET /audit/request/ID, or a tlog-proof")
    receipt.add_argument("--key", metavar="VKEY", required=True, help=_KEY_HELP)
    receipt.add_argument(
        "--record", metavar="FILE", type=Path, help="the record of a tlog-proof, as `show --raw` prints it"
    )
    receipt.set_defaults(handler=_verify_receipt)


def _add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")


def _verify(arguments: argparse.Namespace) -> int:
    key = _load_key(arguments.key)
    if key is None or not _is_folder(arguments.folder):
        return EXIT_USAGE
    since = None
    if arguments.since is not None:
        since = _read(arguments.since, MAX_NOTE_BYTES)
        if since is None:
            return EXIT_USAGE
    counter = _Counter()
    verified = verify_log(arguments.folder, key, since, counter.count)
    counter.end()
    _print_verified(verified, key)
    return EXIT_OK if since is not None else EXIT_ROLLBACK_NOT_EXCLUDED


def _print_verified(verified: Verified, key: VerifierKey) -> None:
    checkpoint = verified.checkpoint
    print(f"checkpoint  {checkpoint.size} records, root {checkpoint.root.hex()}")
    print(f"signature   good, by {key.name}+{key.key_id:08x}")
    print(f"records     all {checkpoint.size} are canonical, carry their index and hash to the root")
    print(f"files       {verified.num_files} tiles and bundles hold what the records give")
    if verified.has_state:
        behind = f"{verified.num_unsigned} durable records behind the checkpoint, not yet signed"
        print(f"write-ahead {behind if verified.num_unsigned else 'agrees; nothing behind the checkpoint'}")
    else:
        print("write-ahead not in this folder: only what was published is verified")
    if verified.torn_bytes:
        print(f"            {verified.torn_bytes} bytes of an unfinished, never acknowledged write at its end")
    if verified.is_live:
        print("live        an auditor is writing; what is newer than the checkpoint was left alone")
    if verified.since is None:
        print("consistent; rollback not excluded: give an earlier checkpoint, kept elsewhere, with --since")
    else:
        print(f"consistent; extends the earlier checkpoint of {verified.since.size} records")


def _prove(arguments: argparse.Namespace) -> int:
    key = None
    if arguments.key is not None and (key := _load_key(arguments.key)) is None:
        return EXIT_USAGE
    if not _is_folder(arguments.dir):
        return EXIT_USAGE
    reader = LogReader(arguments.dir)
    note = reader.checkpoint_note()
    checkpoint = parse_checkpoint(parse_note(note).text) if key is None else verify_checkpoint(note, [key], key.name)
    if checkpoint.size <= arguments.index < _durable_size(arguments.dir, checkpoint):
        raise EntryNotFound(f"record {arguments.index} is durable, but not yet under a signed checkpoint; try again")
    proof = reader.prove(arguments.index, checkpoint, note)
    leaf = leaf_hash(reader.read_entry(arguments.index, checkpoint.size))
    verify_inclusion(leaf, arguments.index, checkpoint.size, parse_proof(proof).hashes, checkpoint.root)
    if key is None:
        sys.stderr.write("casemate: the checkpoint's signature was not checked (no --key)\n")
    if arguments.output is None:
        sys.stdout.write(proof.decode())
    else:
        arguments.output.write_bytes(proof)
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    if not _is_folder(arguments.dir):
        return EXIT_USAGE
    entry = _find_entry(arguments.dir, arguments.index)
    if arguments.raw:
        sys.stdout.buffer.write(entry)
        sys.stdout.buffer.flush()
    else:
        _print_event(json.loads(entry))
    return EXIT_OK


def _verify_receipt(arguments: argparse.Namespace) -> int:
    key = _load_key(arguments.key)
    data = _read(arguments.file, MAX_RECEIPT_BYTES)
    if key is None or data is None:
        return EXIT_USAGE
    if data.startswith(HEADER.encode()):
        return _verify_proof(data[:MAX_PROOF_BYTES], arguments.record, key)
    try:
        verified = verify_receipt(data, [key], key.name)
    except AuditRejected as error:
        sys.stderr.write(f"casemate: {arguments.file}: {error}\n")
        return EXIT_FAILED
    _print_event(verified.intent)
    if verified.outcome is None:
        print("the request has no outcome in this receipt")
    else:
        _print_event(verified.outcome)
    for checkpoint in verified.checkpoints:
        print(f"verified: in the log {checkpoint.origin} of {checkpoint.size} records")
    return EXIT_OK


def _verify_proof(proof: bytes, record: Path | None, key: VerifierKey) -> int:
    if record is None:
        sys.stderr.write("casemate: a tlog-proof needs its record: --record FILE\n")
        return EXIT_USAGE
    entry = _read(record, MAX_ENTRY_BYTES)
    if entry is None:
        return EXIT_USAGE
    index, checkpoint = verify_proof(proof, entry, [key], key.name)
    print(f"verified: record {index} in the log {checkpoint.origin} of {checkpoint.size} records")
    return EXIT_OK


def _find_entry(folder: Path, index: int) -> bytes:
    """A record, published or still in the write-ahead log."""
    reader = LogReader(folder)
    try:
        size = parse_checkpoint(parse_note(reader.checkpoint_note()).text).size
    except EntryNotFound:
        size = 0
    if 0 <= index < size:
        return reader.read_entry(index, size)
    if (folder / WAL).is_dir():
        for segment in load_segments(folder / WAL, size):
            if segment.first_index <= index < segment.next_index:
                return segment.records[index - segment.first_index]
    raise EntryNotFound(f"{folder}: no record {index}; the checkpoint covers {size}")


def _durable_size(folder: Path, checkpoint: Checkpoint) -> int:
    segments = load_segments(folder / WAL, checkpoint.size) if (folder / WAL).is_dir() else []
    return segments[-1].next_index if segments else checkpoint.size


def _load_key(text: str) -> VerifierKey | None:
    try:
        return load_verifier_key(text)
    except (KeyUnusable, MalformedNote) as error:
        sys.stderr.write(f"casemate: --key: {error}\n")
        return None


def _is_folder(path: Path) -> bool:
    if path.is_dir():
        return True
    sys.stderr.write(f"casemate: {path}: is no folder\n")
    return False


def _read(path: Path, max_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        sys.stderr.write(f"casemate: {path}: cannot be read: {error.strerror}\n")
        return None
    if len(data) > max_bytes:
        sys.stderr.write(f"casemate: {path}: has more than {max_bytes} bytes\n")
        return None
    return data


def _print_event(event: Json) -> None:
    # ASCII only: what a client once sent must not move the cursor of an auditor's terminal.
    print(json.dumps(event, indent=2, sort_keys=True, ensure_ascii=True))


class _Counter:
    """Says on standard error how far it is, once it has taken more than a second."""

    def __init__(self) -> None:
        self._started_s = self._said_s = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def count(self, done: int, total: int) -> None:
        """Told after every bundle."""
        now_s = time.monotonic()
        if now_s - self._said_s >= 1.0:
            self._said_s = now_s
            line = f"verifying: {done} of {total} records ({100 * done // max(total, 1)} %, {now_s - self._started_s:.0f} s)"
            sys.stderr.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
            sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._is_terminal and self._said_s != self._started_s:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
