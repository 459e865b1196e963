"""What the reader reads: the log's folder, and the search index that it keeps of it. For one thread, which may block.

What always holds: no record is given out that does not lead to a tree which the log's key has signed. An index that cannot be
used is dropped and built again; it holds nothing that the log has not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import EntryNotFound, IndexUnusable
from audit.index import LogIndex, Query
from audit.note import VerifierKey
from audit.range_proof import verify_records
from audit.reader import LogReader
from audit.tiles import ENTRIES, TileId, encode_bundle, parse_tile_path, tile_width

INDEX_STEP = 16_384
"""Records indexed at once; a search that comes meanwhile waits for so many."""

log = structlog.get_logger(__name__)

Found = tuple[int, bytes]
"""Index and leaf."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records, and where to go on."""

    records: list[Found]
    next: int | None


class Archive:
    """One log and its index.

    Args:
        folder: the log's.
        index_path: the index; made where there is none, dropped where it cannot be used.
    Raises: IndexUnusable when it cannot be made.
    """

    def __init__(self, folder: Path, key: VerifierKey, index_path: Path) -> None:
        self._folder = folder
        self._key = key
        self._index_path = index_path
        self._reader = LogReader(folder)
        self._index = self._open_index()
        self._tile: tuple[str, bytes] = ("", b"")

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._key.name

    @property
    def indexed(self) -> int:
        """How many records can be found."""
        return self._index.size

    def checkpoint(self) -> Checkpoint:
        """The last signed one. Raises: EntryNotFound, SignatureRejected."""
        return verify_checkpoint(self._reader.checkpoint_note(), [self._key], self._key.name)

    def checkpoint_note(self) -> bytes:
        """The same as it is. Raises: EntryNotFound, SignatureRejected."""
        note = self._reader.checkpoint_note()
        verify_checkpoint(note, [self._key], self._key.name)
        return note

    def follow(self) -> int:
        """Index some of what is new. Gives the size of the log; call again at once while `indexed` is behind.

        Raises: EntryNotFound before the first checkpoint; LogCorrupted, SignatureRejected, IndexUnusable.
        """
        try:
            return self._index.update(max_records=INDEX_STEP).size
        except IndexUnusable as error:
            log.error("index_dropped", reason=str(error))
            self._index.close()
            self._drop_index()
            self._index = LogIndex(self._index_path, self._folder, self._key)
            raise

    def search(self, query: Query, *, limit: int, before: int | None, max_bytes: int) -> Page:
        """The newest records that match.

        Raises: IndexUnusable, LogCorrupted, SignatureRejected, ProofRejected.
        """
        indices = self._index.find(query, limit=limit, before=before)
        records = self._read(indices, self.checkpoint(), max_bytes) if indices else []
        is_cut = len(records) < len(indices) or len(indices) == limit
        return Page(records, records[-1][0] if records and is_cut else None)

    def tail(self, tenant: str, start: int | None, *, count: int, max_bytes: int) -> Page:
        """Records in their order, of one tenant or (empty) of all; `next` is where a later call goes on, never None.

        Raises: EntryNotFound, also for a start behind the end: whoever follows must not wait for another log to grow up to it;
            SignatureRejected, IndexUnusable, LogCorrupted.
        """
        checkpoint = self.checkpoint()
        signed_size = checkpoint.size
        if start is not None and start > signed_size:
            raise EntryNotFound(f"the log has {signed_size} records: another has begun, or it went back")
        size = self._index.size if tenant else signed_size
        if not tenant:
            first = max(0, size - count) if start is None else start
            indices = list(range(first, min(size, first + count)))
        elif start is None:
            indices = self._index.find(Query(tenant=tenant), limit=count)[::-1]
        else:
            indices = self._index.find(Query(tenant=tenant), limit=count, start=start)
        records = self._read(indices, checkpoint, max_bytes)
        if len(records) < len(indices) or (len(indices) == count and start is not None):
            return Page(records, records[-1][0] + 1)
        return Page(records, max(size, start or 0))

    def record(self, index: int) -> bytes:
        """One record. Raises: EntryNotFound, SignatureRejected, ProofRejected, LogCorrupted."""
        ((_, entry),) = self._read([index], self.checkpoint(), 0)
        return entry

    def read_tile(self, path: str) -> bytes:
        """A tile or bundle by its path, as C2SP tlog-tiles has it. Partial ones of every earlier size are there, too.

        Raises: MalformedTile, EntryNotFound where the signed tree has none, SignatureRejected, LogCorrupted.
        """
        tile = parse_tile_path(path)
        size = self.checkpoint().size
        width = tile_width(tile.level, tile.number, size)
        if tile.width > width:
            raise EntryNotFound(f"{path}: is not in the tree of {size}")
        if tile.level == ENTRIES:
            return encode_bundle(self._reader.read_bundle(tile.number, size)[: tile.width])
        return b"".join(self._reader.read_hashes(TileId(tile.level, tile.number, width))[: tile.width])

    def read_part(self, path: str, offset: int, max_bytes: int) -> tuple[bytes, int]:
        """A part of a tile, and the size of the whole. The last one is kept for the next part.

        Raises: as `read_tile`.
        """
        if self._tile[0] != path or offset == 0:
            self._tile = (path, self.read_tile(path))
        data = self._tile[1]
        return data[offset : offset + max_bytes], len(data)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _read(self, indices: Sequence[int], checkpoint: Checkpoint, max_bytes: int) -> list[Found]:
        """As many as fit, and one at least; each led to the signed tree, those that follow each other together."""
        records: list[Found] = []
        for index in indices:
            entry = self._reader.read_entry(index, checkpoint.size)
            max_bytes -= len(entry)
            if max_bytes < 0 and records:
                break
            records.append((index, entry))
        for start, entries in _runs_of(records):
            size = checkpoint.size
            verify_records(entries, start, size, checkpoint.root, partial(self._range_hash, size))
        return records

    def _range_hash(self, size: int, start: int, end: int) -> bytes:
        return self._reader.range_hash(start, end, size)

    def _open_index(self) -> LogIndex:
        try:
            return LogIndex(self._index_path, self._folder, self._key)
        except IndexUnusable as error:
            log.error("index_dropped", reason=str(error))
            self._drop_index()
            return LogIndex(self._index_path, self._folder, self._key)

    def _drop_index(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._index_path.with_name(self._index_path.name + suffix).unlink(missing_ok=True)


def _runs_of(records: Sequence[Found]) -> Iterator[tuple[int, list[bytes]]]:
    """Records that follow each other in the log, whether they came newest or oldest first."""
    run: list[Found] = []
    for found in sorted(records):
        if run and found[0] != run[-1][0] + 1:
            yield run[0][0], [entry for _, entry in run]
            run = []
        run.append(found)
    if run:
        yield run[0][0], [entry for _, entry in run]
