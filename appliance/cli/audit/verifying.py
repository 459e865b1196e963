"""`casemate audit verify` and `verify-receipt`: what an auditor and a client run, with a public key and nothing else of ours."""

import argparse
import datetime
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.audit.arguments import (
    KEY_HELP,
    Counter,
    WrongUsage,
    load_key,
    load_witnesses,
    print_event,
    read_file,
    require_folder,
    set_handler,
)
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK, EXIT_ROLLBACK_NOT_EXCLUDED
from appliance.cli.terminal import escape_text, say
from audit.cosignature import CosignerKey, find_come, verify_cosignatures
from audit.courier import COSIGNED
from audit.entry import parse_canonical
from audit.errors import AuditRejected, RotationRefused, SignatureRejected
from audit.formats import number_of
from audit.fsck import Verified, verify_log
from audit.note import MAX_NOTE_BYTES, VerifierKey
from audit.proof import HEADER, MAX_PROOF_BYTES, parse_proof, verify_proof
from audit.reader import LogReader
from audit.receipt import MAX_RECEIPT_BYTES, parse_receipt, verify_receipt
from audit.rotation import verify_continues
from audit.tiles import MAX_ENTRY_BYTES

WITNESS_HELP = "a witness's public key, or a file that holds it; may be given several times"


@dataclass(frozen=True)
class Word:
    """What witnesses said of a tree."""

    note: bytes
    times: dict[str, int]
    """For each witness, when it cosigned, in seconds since 1970."""


def add_verify_commands(commands: Commands) -> None:
    """Add both."""
    verify = add_command(
        commands,
        "verify",
        "derive the whole log anew from its records and check its signature",
        aliases=("fsck",),
    )
    verify.add_argument("folder", metavar="DIR", type=Path, help="the log's folder")
    verify.add_argument("--key", metavar="VKEY", required=True, help=KEY_HELP)
    verify.add_argument(
        "--since",
        metavar="FILE",
        type=Path,
        help="an earlier checkpoint, kept elsewhere: shows that nothing was undone",
    )
    verify.add_argument(
        "--mldsa-key", metavar="VKEY", help="the log's own post-quantum key, which must have signed as well"
    )
    verify.add_argument("--witness", metavar="VKEY", action="append", default=[], help=WITNESS_HELP)
    verify.add_argument(
        "--cosigned",
        metavar="FILE",
        type=Path,
        help="the checkpoint that the witnesses cosigned, best from a witness itself (default: `cosigned` beside the folder)",
    )
    verify.add_argument(
        "--max-age-s",
        metavar="N",
        type=int,
        default=86_400,
        help="a witness's word that is older does not exclude a rollback (default: a day)",
    )
    verify.add_argument(
        "--continues",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="the folder of the log before, whose end this one's first record must name; verified as well. "
        "Again for the one before that",
    )
    set_handler(verify, _verify)
    receipt = add_command(
        commands, "verify-receipt", "verify a receipt, or a proof with its record, with the key alone"
    )
    receipt.add_argument("file", metavar="FILE", type=Path, help="the answer of GET /audit/request/ID, or a tlog-proof")
    receipt.add_argument("--key", metavar="VKEY", required=True, help=KEY_HELP)
    receipt.add_argument(
        "--record", metavar="FILE", type=Path, help="the record of a tlog-proof, as `show --raw` prints it"
    )
    receipt.add_argument(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help=f"{WITNESS_HELP}; one of them must have cosigned",
    )
    set_handler(receipt, _verify_receipt)


def _verify(arguments: argparse.Namespace) -> int:
    key = load_key(arguments.key)
    folder = require_folder(arguments.folder)
    since = None if arguments.since is None else read_file(arguments.since, MAX_NOTE_BYTES)
    witnesses = load_witnesses(arguments.witness, key)
    word = _hear_witnesses(arguments, folder, witnesses)
    counter = Counter("verifying")
    verified = verify_log(folder, key, since, counter.count, cosigned=None if word is None else word.note)
    counter.end()
    _print_verified(verified, key)
    size, are_ends_known = verified.checkpoint.size, True
    for newer, older in itertools.pairwise((folder, *map(require_folder, arguments.continues))):
        size, is_end_known = _verify_continues(newer, size, older, witnesses, arguments.max_age_s)
        are_ends_known = are_ends_known and is_end_known
    if arguments.mldsa_key is not None:
        _verify_mldsa(folder, load_witnesses([arguments.mldsa_key])[0])
    if word is not None and _is_rollback_excluded(word, arguments.max_age_s, verified):
        return EXIT_OK if are_ends_known else EXIT_ROLLBACK_NOT_EXCLUDED
    if verified.since is None:
        if word is None:
            print(
                "consistent; rollback not excluded: give an earlier checkpoint, kept elsewhere, with --since, "
                "or the key of a witness with --witness"
            )
        return EXIT_ROLLBACK_NOT_EXCLUDED
    print(f"consistent; extends the earlier checkpoint of {verified.since.size} records")
    return EXIT_OK


def _verify_continues(
    folder: Path, size: int, older: Path, witnesses: list[CosignerKey], max_age_s: int
) -> tuple[int, bool]:
    """Verify the log that another, verified one of `size` records continues, under the key which that one names.

    Returns: its size; and whether witnesses, where some are named, spoke of it shortly before the one behind it began: else its
        last records could have been taken away before, and that one names the end which was left.
    """
    first = parse_canonical(LogReader(folder).read_entry(0, size))
    try:
        predecessor = verify_continues(first, LogReader(older).checkpoint_note())
    except AuditRejected as error:
        raise RotationRefused(f"{older}: is not what {folder} continues: {error}") from error
    word = _hear_beside(older, witnesses)
    counter = Counter("verifying")
    verified = verify_log(older, predecessor.key, progress=counter.count, cosigned=None if word is None else word.note)
    counter.end()
    checkpoint, key = predecessor.checkpoint, predecessor.key
    say(f"continues   {checkpoint.origin}, all of its {checkpoint.size} records, signed by {key.name}+{key.key_id:08x}")
    if not witnesses:
        return checkpoint.size, True
    began_s = number_of(first, "time") // 1000
    said_s = [] if word is None else find_come(word.times.values(), time.time())
    is_known = bool(said_s) and began_s - said_s[0] <= max_age_s
    if is_known and verified.cosigned is not None:
        say(f"witness     cosigned {verified.cosigned.size} of them at {_word_moment(said_s[0])}; they begin that log")
    else:
        last = (
            f"the last word beside it is {began_s - said_s[0]} s older than" if said_s else "no word lies beside it of"
        )
        say(
            f"rollback not excluded of {checkpoint.origin}: {last} the log that continues it; ask a witness for its own, and "
            "verify that log by itself with --cosigned"
        )
    return checkpoint.size, is_known


def _verify_mldsa(folder: Path, key: CosignerKey) -> None:
    if not verify_cosignatures(LogReader(folder).checkpoint_note(), [key]):
        raise SignatureRejected(f"{folder}: the checkpoint has no cosignature by {key.name}+{key.key_id:08x}")
    say(f"post-quantum signature good, ML-DSA-44 by {key.name}+{key.key_id:08x}")


def _hear_beside(older: Path, witnesses: list[CosignerKey]) -> Word | None:
    """What witnesses said of a log that was closed, where it lies beside it."""
    beside = older.resolve().with_suffix(".cosigned")
    if not witnesses or not beside.exists():
        return None
    note = read_file(beside, MAX_NOTE_BYTES)
    return Word(note, verify_cosignatures(note, witnesses))


def _hear_witnesses(arguments: argparse.Namespace, folder: Path, witnesses: list[CosignerKey]) -> Word | None:
    if not witnesses:
        return None
    closed = folder.resolve().with_suffix(".cosigned")  # Of a log that another continues.
    beside = closed if closed.exists() else folder.resolve().parent / COSIGNED
    note = read_file(arguments.cosigned or beside, MAX_NOTE_BYTES)
    return Word(note, verify_cosignatures(note, witnesses))


def _is_rollback_excluded(word: Word, max_age_s: int, verified: Verified) -> bool:
    """Whether a witness said lately that a tree which this log extends was the largest."""
    assert verified.cosigned is not None
    for name, said_at in sorted(word.times.items()):
        say(
            f"witness     {name} cosigned {verified.cosigned.size} records at {_word_moment(said_at)}; this log extends them"
        )
    if not word.times:
        say("consistent; rollback not excluded: no witness that you named has cosigned")
        return False
    now_s = int(time.time())
    said_s = find_come(word.times.values(), now_s)
    if not said_s:
        say("consistent; rollback not excluded: every witness gave its word at a time that has not come")
        return False
    age_s = now_s - said_s[0]
    if age_s > max_age_s:
        say(f"consistent; rollback not excluded: the last word of a witness is {age_s} s old")
        return False
    say("consistent; rollback excluded up to the witness's last word")
    return True


def _word_moment(time_s: int) -> str:
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _print_verified(verified: Verified, key: VerifierKey) -> None:
    checkpoint = verified.checkpoint
    say(f"checkpoint  {checkpoint.size} records, root {checkpoint.root.hex()}")
    say(f"signature   good, by {key.name}+{key.key_id:08x}")
    say(f"records     all {checkpoint.size} are canonical, carry their index and hash to the root")
    say(f"files       {verified.num_files} tiles and bundles hold what the records give")
    if verified.num_newer:
        say(f"newer       {verified.num_newer} files hold more than the checkpoint covers; that was not verified")
    if verified.has_state:
        behind = f"{verified.num_unsigned} durable records behind the checkpoint, not yet signed"
        say(f"write-ahead {behind if verified.num_unsigned else 'agrees; nothing behind the checkpoint'}")
    else:
        say("write-ahead not in this folder: only what was published is verified")
    if verified.torn_bytes:
        say(f"            {verified.torn_bytes} bytes of an unfinished, never acknowledged write at its end")
    if verified.is_live:
        say("live        an auditor is writing; what is newer than the checkpoint was left alone")


def _verify_receipt(arguments: argparse.Namespace) -> int:
    key = load_key(arguments.key)
    witnesses = load_witnesses(arguments.witness, key)
    data = read_file(arguments.file, MAX_RECEIPT_BYTES)
    if data.startswith(HEADER.encode()):
        return _verify_proof(data[:MAX_PROOF_BYTES], arguments.record, key, witnesses)
    try:
        verified = verify_receipt(data, [key], key.name)
        receipt = parse_receipt(data)
        entries = [receipt.intent] if receipt.outcome is None else [receipt.intent, receipt.outcome]
        words = [_hear_proof(entry.proof.encode(), witnesses) for entry in entries]
    except AuditRejected as error:
        sys.stderr.write(escape_text(f"casemate: {arguments.file}: {error}") + "\n")
        return 1
    print_event(verified.intent)
    if verified.outcome is None:
        say("the request has no outcome in this receipt")
    else:
        print_event(verified.outcome)
    for checkpoint, word in zip(verified.checkpoints, words, strict=True):
        say(f"verified: in the log {checkpoint.origin} of {checkpoint.size} records{word}")
    return EXIT_OK


def _verify_proof(proof: bytes, record: Path | None, key: VerifierKey, witnesses: list[CosignerKey]) -> int:
    if record is None:
        raise WrongUsage("a tlog-proof needs its record: --record FILE")
    index, checkpoint = verify_proof(proof, read_file(record, MAX_ENTRY_BYTES), [key], key.name)
    word = _hear_proof(proof, witnesses)
    say(f"verified: record {index} in the log {checkpoint.origin} of {checkpoint.size} records{word}")
    return EXIT_OK


def _hear_proof(proof: bytes, witnesses: list[CosignerKey]) -> str:
    """Who has cosigned the tree of a proof whose checkpoint was verified; empty where nobody is asked for.

    Raises: SignatureRejected where none of the witnesses has; MalformedNote.
    """
    if not witnesses:
        return ""
    times = verify_cosignatures(parse_proof(proof).checkpoint, witnesses)
    if not times:
        raise SignatureRejected(
            "the checkpoint has no cosignature of these witnesses; it may have later: ask for the proof again"
        )
    return f", cosigned by {' and '.join(sorted(times))}"
