"""`casemate audit prove` and `show`: one record, and the proof that it is in the log."""

import argparse
import json
import sys
from pathlib import Path

from appliance.cli.audit.arguments import (
    KEY_HELP,
    add_folder,
    load_key,
    print_event,
    require_folder,
    set_handler,
    write_output,
)
from appliance.cli.audit.remote import add_remote, open_remote
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.cli.terminal import show_bytes
from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.courier import load_cosigned
from audit.errors import EntryNotFound
from audit.merkle import leaf_hash, verify_inclusion
from audit.note import parse_note
from audit.proof import parse_proof
from audit.reader import WAL, LogReader
from audit.wal import load_segments


def add_record_commands(commands: Commands) -> None:
    """Add both."""
    prove = add_command(commands, "prove", "print the proof that a record is in the log (C2SP tlog-proof)")
    prove.add_argument("index", metavar="INDEX", type=int)
    add_folder(prove)
    prove.add_argument("--key", metavar="VKEY", help=f"{KEY_HELP}; without it the signature is not checked")
    prove.add_argument(
        "--cosigned",
        action="store_true",
        help="under the last checkpoint that witnesses have cosigned, which lies beside the folder, with their words",
    )
    prove.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the proof to a file")
    set_handler(prove, _prove)
    show = add_command(commands, "show", "print a record")
    show.add_argument("index", metavar="INDEX", type=int)
    add_folder(show)
    add_remote(show)
    show.add_argument(
        "--raw", action="store_true", help="the leaf's very bytes, as they are hashed; on a terminal escaped"
    )
    set_handler(show, _show)


def _prove(arguments: argparse.Namespace) -> int:
    key = None if arguments.key is None else load_key(arguments.key)
    folder = require_folder(arguments.dir)
    reader = LogReader(folder)
    note = load_cosigned(folder.resolve().parent) if arguments.cosigned else reader.checkpoint_note()
    checkpoint = parse_checkpoint(parse_note(note).text) if key is None else verify_checkpoint(note, [key], key.name)
    if checkpoint.size <= arguments.index < _durable_size(arguments.dir, checkpoint):
        which = "one that witnesses have cosigned" if arguments.cosigned else "a signed checkpoint"
        raise EntryNotFound(f"record {arguments.index} is durable, but not yet under {which}; try again")
    tree_size = parse_checkpoint(parse_note(reader.checkpoint_note()).text).size
    proof = reader.prove(arguments.index, checkpoint, note, max(tree_size, checkpoint.size))
    leaf = leaf_hash(reader.read_entry(arguments.index, max(tree_size, checkpoint.size)))
    verify_inclusion(leaf, arguments.index, checkpoint.size, parse_proof(proof).hashes, checkpoint.root)
    if key is None:
        sys.stderr.write("casemate: the checkpoint's signature was not checked (no --key)\n")
    write_output(proof, arguments.output)
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    if (remote := open_remote(arguments)) is not None:
        entry = remote.get(f"/audit/record/{arguments.index}")
    else:
        entry = find_entry(require_folder(arguments.dir), arguments.index)
    if arguments.raw:
        write_output(show_bytes(entry), None)
    else:
        print_event(json.loads(entry))
    return EXIT_OK


def find_entry(folder: Path, index: int) -> bytes:
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
