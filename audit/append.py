"""The writer: the one way into the log.

`append` only remembers; `commit` writes all that was appended in one write and one fdatasync, and only then are the indices
given out. So many peers share one sync. Publishing (tiles, checkpoint) is apart: `publish_if_due` hands a snapshot to the
executor, if there is one, and takes the result in at a later call.

| records | where they are |
|---|---|
| [0, tiles_size) | in tiles; the last segment of the write-ahead log may hold some of them too |
| [tiles_size, size) | in the write-ahead log, and in memory |
| [size, next_index) | appended, not durable: nobody has been told of them |

What always holds: a record in [0, size) survives the end of the process and of the machine; after StorageFailed every call raises
it, as nothing is known of the disk any more.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

from audit.checkpoint import Checkpoint, parse_checkpoint
from audit.errors import EntryNotFound, EntryTooLarge, NotDurable, StorageFailed
from audit.frontier import load_frontier
from audit.merkle import consistency_proof, leaf_hash
from audit.note import VerifierKey, parse_note
from audit.publish import TEMPORARY, Published, Publisher, Snapshot
from audit.reader import LOCK, STATE, WAL, LogReader
from audit.recovery import open_state
from audit.segments import SegmentWriter
from audit.storage import Disk, lock_folder
from audit.tiles import MAX_ENTRY_BYTES, TILE_WIDTH, TileId
from audit.wal import encode_batch

PAUSE_S = 0.001
"""Between two tiles of a publication that runs beside."""
MAX_PAUSES_S = 0.3
"""All pauses of one publication together."""


class LogWriter:
    """Appends to one log's folder, which it keeps locked until `close`.

    Args:
        folder: the log's folder; an empty or missing one becomes a new log.
        key_path: the signing key, made with a new log.
        with_mldsa: checkpoints carry an ML-DSA-44 cosignature by the log as well; its key lies beside the other.
        executor: runs publications beside the appending thread, one at a time; without it they run within the call.
        testing_only_disk: replaces the disk by one that fails.
    Raises: AuditMisconfigured for everything that forbids a start; NotDurable, StorageFailed.
    """

    def __init__(
        self,
        folder: Path,
        key_path: Path,
        *,
        origin: str,
        checkpoint_interval_ms: int = 1_000,
        segment_bytes: int = 16 << 20,
        with_mldsa: bool = False,
        executor: Executor | None = None,
        testing_only_disk: Disk | None = None,
    ) -> None:
        self._disk = testing_only_disk or Disk()
        self.folder = folder
        self._interval_s = checkpoint_interval_ms / 1000
        self._spare_bytes = 0 if executor is None else segment_bytes
        self._disk.make_folder(folder / STATE)
        self._lock = lock_folder(folder / LOCK)
        try:
            recovered, signer = open_state(folder, key_path, origin, self._disk, with_mldsa=with_mldsa)
        except BaseException:
            os.close(self._lock)
            raise
        self.key: VerifierKey = signer.key
        self.torn_bytes = recovered.torn_bytes
        """What was cut off at the start: the rest of a commit that was never acknowledged."""
        self.checkpoint: Checkpoint = recovered.published
        """The last published one; of size 0 before the first."""
        self._publisher = Publisher(folder, signer, self._disk)
        self._reader = LogReader(folder)
        self._tree = recovered.tree
        self._tiles_size = recovered.tiles_size
        self._full_tiles = recovered.full_tiles
        self._first_entry = recovered.first_entry
        self._entries = recovered.entries
        self._pending: list[bytes] = []
        self._failure: StorageFailed | None = None
        self._is_closed = False
        self._next_publication = 0.0
        self._executor = executor
        self._under_way: tuple[Snapshot, Future[Published]] | None = None
        self._wal = SegmentWriter(
            folder / WAL, folder / TEMPORARY / "segment", recovered.segments, segment_bytes, self._disk
        )
        self._note = self._reader.checkpoint_note() if self.checkpoint.size else b""

    @property
    def size(self) -> int:
        """Number of durable records."""
        return self._tree.size

    @property
    def next_index(self) -> int:
        """Index that the next appended record gets, if all before it become durable."""
        return self._tree.size + len(self._pending)

    def append(self, records: Sequence[bytes]) -> int:
        """Remember records for the next commit.

        Returns: the index that the first of them will have. It MUST NOT be told before `commit` returned.
        Raises: EntryTooLarge, StorageFailed.
        """
        self._verify_alive()
        for record in records:
            if not 0 < len(record) <= MAX_ENTRY_BYTES:
                raise EntryTooLarge(f"record: {len(record)} bytes, expected 1 to {MAX_ENTRY_BYTES}")
        first = self.next_index
        self._pending.extend(records)
        return first

    def commit(self) -> range:
        """Make all that was appended durable.

        Returns: the indices of those records.
        Raises: NotDurable when the disk is full: none of them was written, their indices will be others', the log is as
            before; StorageFailed, after which the process MUST end.
        """
        self._verify_alive()
        first, records = self._tree.size, self._pending
        self._pending = []
        if not records:
            return range(first, first)
        try:
            self._wal.append(encode_batch(first, records))
        except StorageFailed as failure:
            self._failure = failure
            raise
        self._tree.extend(list(map(leaf_hash, records)), self._remember_tile)
        self._entries.extend(records)
        return range(first, first + len(records))

    def prepare(self) -> None:
        """Make what the first commits are quicker with: a file of zeroes to write over. Takes a tenth of a second.

        Raises: StorageFailed.
        """
        if self._spare_bytes and not self._wal.has_spare and self._under_way is None:
            if spare := self._publisher.make_spare([], self._spare_bytes):
                self._wal.take_spare(spare)
            self._wal.turn_if_due(self.size)

    @property
    def is_publishing(self) -> bool:
        """A publication runs beside, or has ended and was not taken in yet."""
        return self._under_way is not None

    def publish_if_due(self, now_s: float | None = None) -> Checkpoint | None:
        """Take in the publication that ended, and begin the next if something is new and the interval has passed.

        Returns: the new checkpoint, or None where there is none.
        Raises: NotDurable, after which it is tried again an interval later; StorageFailed.
        """
        self._verify_alive()
        now_s = time.monotonic() if now_s is None else now_s
        if self._under_way is not None:
            snapshot, future = self._under_way
            return self._take_in(snapshot, future) if future.done() else None
        if now_s < self._next_publication or self.size == self.checkpoint.size:
            return None
        self._next_publication = now_s + self._interval_s
        if self._executor is None:
            return self.publish()
        snapshot = self._snapshot()
        self._under_way = (snapshot, self._executor.submit(self._publisher.publish, snapshot, _give_way))
        return None

    def publish(self) -> Checkpoint:
        """Publish all that is durable now; where nothing is new, the last checkpoint stands.

        Raises: NotDurable, StorageFailed.
        """
        self._verify_alive()
        if self._under_way is not None:
            self._take_in(*self._under_way)
        if self.size == self.checkpoint.size:
            return self.checkpoint
        snapshot = self._snapshot()
        future: Future[Published] = Future()
        try:
            future.set_result(self._publisher.publish(snapshot))
        except (NotDurable, StorageFailed) as error:
            future.set_exception(error)
        return self._take_in(snapshot, future)

    def read(self, index: int) -> bytes:
        """The durable record at an index.

        Raises: EntryNotFound, LogCorrupted.
        """
        if not 0 <= index < self.size:
            raise EntryNotFound(f"{self.folder}: no record {index}, the log has {self.size}")
        if index >= self._first_entry:
            return self._entries[index - self._first_entry]
        return self._reader.read_entry(index, self._tiles_size)

    def read_bundle(self, number: int) -> list[bytes]:
        """The durable records [256 * number, 256 * (number + 1)), or as many as there are.

        Raises: LogCorrupted.
        """
        start = number * TILE_WIDTH
        if start >= self._first_entry:
            return self._entries[start - self._first_entry : start - self._first_entry + TILE_WIDTH]
        return self._reader.read_bundle(number, self._tiles_size)

    def prove(self, index: int, cosigned: bytes = b"") -> bytes:
        """The tlog-proof of a record under the last published checkpoint.

        Args:
            cosigned: an earlier checkpoint of this log with the words of witnesses, which the caller has verified. Where it covers
                the record the proof is under it: it shows more to whoever knows the witnesses.
        Raises: EntryNotFound when no checkpoint covers it yet; LogCorrupted.
        """
        if cosigned:
            earlier = parse_checkpoint(parse_note(cosigned).text)
            if index < earlier.size <= self.checkpoint.size and self.root_of(earlier.size) == earlier.root:
                return self._reader.prove(index, earlier, cosigned, self.checkpoint.size)
        return self._reader.prove(index, self.checkpoint, self._note)

    @property
    def note(self) -> bytes:
        """The last published checkpoint, as it was signed; empty before the first."""
        return self._note

    def prove_consistency(self, old_size: int, size: int) -> list[bytes]:
        """Proof that the first `old_size` records are a prefix of the first `size`, which a published checkpoint covers.

        Raises: LogCorrupted.
        """
        if not 0 < old_size < size:
            return []
        return consistency_proof(
            old_size, size, lambda start, end: self._reader.range_hash(start, end, self.checkpoint.size)
        )

    def root_of(self, size: int) -> bytes:
        """Root of the first `size` records, all durable. Raises: LogCorrupted."""
        in_tiles = self._tiles_size
        if size <= in_tiles:
            return self._reader.root(size, in_tiles)
        tree = load_frontier(in_tiles, lambda tile: b"".join(self._reader.read_hashes(tile)))
        rest = self._entries[in_tiles - self._first_entry : size - self._first_entry]
        tree.extend(list(map(leaf_hash, rest)))
        return tree.root()

    def close(self) -> None:
        """Let go of the folder. What was appended and not committed is lost; it was acknowledged to nobody. Once is enough."""
        if self._is_closed:  # The numbers of its files may be others' by now.
            return
        self._is_closed = True
        if self._under_way is not None:
            self._under_way[1].exception()  # Waits: it writes into the folder that is about to be unlocked.
        self._wal.close()
        os.close(self._lock)

    def _snapshot(self) -> Snapshot:
        """What is durable and not published; the lists are copied, what they hold never changes."""
        return Snapshot(
            self._tree.copy(),
            self._full_tiles[:],
            self._entries[:],
            self._first_entry,
            old_size=self._tiles_size,
            stale_segments=self._wal.find_stale(self.size),
            spare_bytes=0 if self._wal.has_spare else self._spare_bytes,
        )

    def _take_in(self, snapshot: Snapshot, future: "Future[Published]") -> Checkpoint:
        """Wait for a publication, and forget what only it needed."""
        self._under_way = None
        try:
            published = future.result()
            self.checkpoint, self._note = published.checkpoint, published.note
            self._tiles_size = self.checkpoint.size
            self._forget_published(snapshot)
            if published.spare is not None:
                self._wal.take_spare(published.spare)
            self._wal.turn_if_due(self.size)
        except StorageFailed as failure:
            self._failure = failure
            raise
        return self.checkpoint

    def _remember_tile(self, tile: TileId, data: bytes) -> None:
        self._full_tiles.append((tile, data))

    def _forget_published(self, snapshot: Snapshot) -> None:
        first = self._tiles_size // TILE_WIDTH * TILE_WIDTH
        del self._entries[: first - self._first_entry]
        self._first_entry = first
        del self._full_tiles[: len(snapshot.full_tiles)]
        self._wal.forget(len(snapshot.stale_segments))

    def _verify_alive(self) -> None:
        if self._failure is not None:
            raise self._failure


def _give_way(num_tiles: int) -> None:
    """Let the appending thread catch up with what came while a tile took the interpreter from it.

    20,000 records a second are 160 tiles: written in one go they held up commits for some milliseconds.
    """
    time.sleep(min(PAUSE_S, MAX_PAUSES_S / num_tiles))
