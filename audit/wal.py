"""The write-ahead log: where a record becomes durable, before it is in any tile.

A segment is a file named after its first index. It is a header, then batches; a batch is what one commit wrote:

| bytes | segment header | | bytes | batch header |
|---|---|---|---|---|
| 16 | `casemate wal v1` and a newline | | 4 | `FF 43 42 FE` |
| 8 | index of the first record | | 8 | index of the first record |
| 4 | CRC-32 of the above | | 4 | number of records |
| | | | 4 | bytes of the payload |
| | | | 4 | CRC-32 of the payload |
| | | | 4 | CRC-32 of the above |

The payload is an entry bundle (each record after its length). Numbers are big-endian. Behind the last batch there may be zeroes,
which later batches overwrite. A batch is written only when the one before it is durable; so a broken batch at the very end is
the remainder of a commit that was never acknowledged and is cut off, and a broken batch with a later one behind it is damage,
and never passed over. Entries are UTF-8, in which FF and FE do not occur.
"""

import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.errors import LogCorrupted, MalformedTile
from audit.storage import Disk, read_regular
from audit.tiles import ENTRIES, TileId, encode_bundle, parse_bundle

SEGMENT_MAGIC = b"casemate wal v1\n"
BATCH_MAGIC = b"\xffCB\xfe"
MAX_BATCH_BYTES = 1 << 30
_SEGMENT_HEADER = struct.Struct(">16sQI")
_BATCH_HEADER = struct.Struct(">4sQIIII")
SEGMENT_HEADER_BYTES = _SEGMENT_HEADER.size
_NAME = re.compile(r"\A(\d{20})\.wal\Z")


@dataclass(frozen=True, slots=True)
class Segment:
    """What one segment held when it was read."""

    path: Path
    first_index: int
    records: list[bytes]
    clean_bytes: int
    """Up to here the file is whole."""
    torn_bytes: int
    """Behind that: what is left of a commit that was never acknowledged. Zeroes at the end do not count."""

    @property
    def next_index(self) -> int:
        """Index behind the last record."""
        return self.first_index + len(self.records)


def segment_path(folder: Path, first_index: int) -> Path:
    """Where the segment that starts with this record lies."""
    return folder / f"{first_index:020d}.wal"


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """First index and path of every segment, in order."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return sorted(found)


def create_segment(disk: Disk, folder: Path, first_index: int, temporary: Path) -> Path:
    """Make an empty segment, durably."""
    path = segment_path(folder, first_index)
    disk.write_file(path, _encode_header(first_index), temporary)
    disk.sync_folders([folder])
    return path


def promote_spare(disk: Disk, folder: Path, first_index: int, spare: Path) -> Path:
    """Make a segment of a file of zeroes, durably."""
    fd = disk.open_at(spare, 0)
    try:
        disk.write(fd, _encode_header(first_index), spare)
        disk.sync(fd, spare)
    finally:
        os.close(fd)
    path = segment_path(folder, first_index)
    disk.rename(spare, path)
    disk.sync_folders([folder])
    return path


def _encode_header(first_index: int) -> bytes:
    head = _SEGMENT_HEADER.pack(SEGMENT_MAGIC, first_index, 0)[:-4]
    return head + struct.pack(">I", zlib.crc32(head))


def encode_batch(first_index: int, records: Sequence[bytes]) -> bytes:
    """One commit's records as they stand in a segment."""
    payload = encode_bundle(records)
    assert len(payload) <= MAX_BATCH_BYTES
    head = _BATCH_HEADER.pack(BATCH_MAGIC, first_index, len(records), len(payload), zlib.crc32(payload), 0)[:-4]
    return head + struct.pack(">I", zlib.crc32(head)) + payload


def parse_segment(path: Path, data: bytes) -> Segment:
    """Read a segment up to its clean end. A torn end is reported, damage before the end is refused.

    Raises: LogCorrupted.
    """
    name = _NAME.match(path.name)
    if name is None or len(data) < _SEGMENT_HEADER.size:
        raise LogCorrupted(f"{path}: is not a segment of the write-ahead log: {len(data)} bytes")
    magic, first_index, checksum = _SEGMENT_HEADER.unpack_from(data)
    if magic != SEGMENT_MAGIC or checksum != zlib.crc32(data[: _SEGMENT_HEADER.size - 4]):
        raise LogCorrupted(f"{path}: the header is damaged")
    if first_index != int(name[1]):
        raise LogCorrupted(f"{path}: the header says that it starts at {first_index}")
    records: list[bytes] = []
    position = _SEGMENT_HEADER.size
    while position < len(data):
        batch = _parse_batch(data, position, first_index + len(records))
        if batch is None:
            _verify_torn(path, data, position, first_index + len(records))
            break
        position += batch[0]
        records.extend(batch[1])
    return Segment(path, first_index, records, position, len(data[position:].rstrip(b"\0")))


def split_stale(folder: Path, size: int) -> tuple[list[Path], list[Path]]:
    """Segments that hold nothing behind the first `size` records, and the others, in order.

    The former were removed once, or were about to be: a loss of power may bring some of them back, and not their neighbours.
    """
    listed = list_segments(folder)
    needed = max((place for place, (first, _) in enumerate(listed) if first <= size), default=0)
    paths = [path for _, path in listed]
    return paths[:needed], paths[needed:]


def load_segments(folder: Path, size: int) -> list[Segment]:
    """Read the segments that hold what lies behind the first `size` records.

    Only the last may have a torn end, and none may be missing between two.
    Raises: LogCorrupted, OSError.
    """
    segments: list[Segment] = []
    for path in split_stale(folder, size)[1]:
        segment = parse_segment(path, read_regular(path, 2 * MAX_BATCH_BYTES))
        if segments and segments[-1].torn_bytes:
            raise LogCorrupted(
                f"{segments[-1].path}: damaged at byte {segments[-1].clean_bytes}, though a later segment follows"
            )
        if segments and segments[-1].next_index != segment.first_index:
            raise LogCorrupted(
                f"{path}: starts at record {segment.first_index}, but the segment before ends with "
                f"{segments[-1].next_index - 1}"
            )
        segments.append(segment)
    return segments


def _parse_batch(data: bytes, position: int, expected_index: int) -> tuple[int, list[bytes]] | None:
    """Length and records of the batch at a position; None where there is no whole batch."""
    head = _parse_batch_header(data, position)
    if head is None:
        return None
    first_index, count, num_bytes, checksum = head
    start = position + _BATCH_HEADER.size
    payload = data[start : start + num_bytes]
    if first_index != expected_index or len(payload) != num_bytes or zlib.crc32(payload) != checksum:
        return None
    try:
        return _BATCH_HEADER.size + num_bytes, parse_bundle(payload, TileId(ENTRIES, 0, count))
    except MalformedTile:
        return None


def _parse_batch_header(data: bytes, position: int) -> tuple[int, int, int, int] | None:
    if position + _BATCH_HEADER.size > len(data):
        return None
    magic, first_index, count, num_bytes, checksum, own = _BATCH_HEADER.unpack_from(data, position)
    end = position + _BATCH_HEADER.size
    if magic != BATCH_MAGIC or own != zlib.crc32(data[position : end - 4]):
        return None
    return first_index, count, num_bytes, checksum


def _verify_torn(path: Path, data: bytes, position: int, expected_index: int) -> None:
    """Refuse a break that cannot be the end of an interrupted commit: a later batch was begun behind it."""
    found = data.find(BATCH_MAGIC, position)
    while found >= 0:
        head = _parse_batch_header(data, found)
        # A header at the break itself belongs to the torn batch, if it says the expected index.
        if head is not None and not (found == position and head[0] == expected_index):
            raise LogCorrupted(
                f"{path}: damaged at byte {position}, in the batch that starts with record {expected_index}: "
                f"a batch with record {head[0]} follows at byte {found}"
            )
        found = data.find(BATCH_MAGIC, found + 1)
