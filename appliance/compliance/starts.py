"""What the log says of the last start. The state folder says it too, but whoever can write there can write something else."""

from functools import partial

from appliance.compliance.places import open_log
from appliance.config import Configuration
from appliance.errors import CommandFailed
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.entry import parse_canonical
from audit.errors import EntryNotFound
from audit.formats import own_of
from audit.range_proof import verify_records
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH

MEASURED = "statement_measured"
MAX_LOOKED_BACK = 1_000_000
"""Records. An appliance that has made more since its start is believed by its folder: to look further would take minutes."""
NONE_RECORDED = "none"


def find_recorded_statement(configuration: Configuration) -> str | None:
    """The digest of the running statement that the last start recorded, by a record that is led to the signed tree.

    Returns: `sha256:HEX`; NONE_RECORDED where a log without such a record is all there is; None where it was not found out.
    Raises: SignatureRejected, ProofRejected, LogCorrupted and other AuditFaults.
    """
    try:
        reader, key = open_log(configuration)
        checkpoint = verify_checkpoint(reader.checkpoint_note(), [key], key.name)
    except (CommandFailed, EntryNotFound):
        return None
    first = max(0, checkpoint.size - MAX_LOOKED_BACK) // TILE_WIDTH
    for number in reversed(range(first, -(-checkpoint.size // TILE_WIDTH))):
        entries = reader.read_bundle(number, checkpoint.size)
        for offset in reversed(range(len(entries))):
            if MEASURED.encode() in entries[offset]:
                own = own_of(parse_canonical(entries[offset]))
                if own.get("kind") == MEASURED:
                    _verify(reader, checkpoint, number * TILE_WIDTH + offset, entries[offset])
                    return str(own.get("digest"))
    return None if first else NONE_RECORDED


def _verify(reader: LogReader, checkpoint: Checkpoint, index: int, entry: bytes) -> None:
    size = checkpoint.size
    verify_records([entry], index, size, checkpoint.root, partial(_range_hash, reader, size))


def _range_hash(reader: LogReader, size: int, start: int, end: int) -> bytes:
    return reader.range_hash(start, end, size)
