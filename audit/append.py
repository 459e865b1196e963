"""The writer: the one way into the log.

`append` only remembers; `commit` writes all that was appended in one write and one fdatasync, and only then are the indices
given out. So many peers share one sync. Publishing (tiles, checkpoint) is apart, in `publish_if_due`.

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
from contextlib import suppress
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.errors import EntryNotFound, EntryTooLarge, NotDurable, StorageFailed
from audit.merkle import leaf_hash
from audit.note import VerifierKey
from audit.publish import TEMPORARY, Publisher
from audit.reader import LOCK, STATE, WAL, LogReader
from audit.recovery import open_state
from audit.storage import Disk, lock_folder
from audit.tiles import MAX_ENTRY_BYTES, TILE_WIDTH, TileId
from audit.wal import create_segment, encode_batch


class LogWriter:
    """Appends to one log's folder, which it keeps locked until `close`.

    Args:
        folder: the log's folder; an empty or missing one becomes a new log.
        key_path: the signing key, made with a new log.
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
        testing_only_disk: Disk | None = None,
    ) -> None:
        self._disk = testing_only_disk or Disk()
        self._folder = folder
        self._interval_s = checkpoint_interval_ms / 1000
        self._segment_bytes = segment_bytes
        self._disk.make_folder(folder / STATE)
        self._lock = lock_folder(folder / LOCK)
        try:
            recovered, signer = open_state(folder, key_path, origin, self._disk)
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
        self._next_publication = 0.0
        last = recovered.segments[-1]
        self._segments = [(segment.first_index, segment.path) for segment in recovered.segments]
        self._segment_clean_bytes = last.clean_bytes
        self._segment_fd = self._disk.open_append(last.path)
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
        batch = encode_batch(first, records)
        path = self._segments[-1][1]
        try:
            try:
                self._disk.write(self._segment_fd, batch, path)
            except NotDurable:
                self._disk.truncate(self._segment_fd, self._segment_clean_bytes, path)
                raise
            self._disk.sync(self._segment_fd, path)
        except StorageFailed as failure:
            self._failure = failure
            raise
        self._segment_clean_bytes += len(batch)
        for record in records:
            self._tree.append(leaf_hash(record), self._remember_tile)
        self._entries.extend(records)
        return range(first, first + len(records))

    def publish_if_due(self, now_s: float | None = None) -> Checkpoint | None:
        """Publish what is durable, if it is not yet and the interval has passed.

        Returns: the new checkpoint, or None where nothing was due.
        Raises: NotDurable, after which it is tried again an interval later; StorageFailed.
        """
        now_s = time.monotonic() if now_s is None else now_s
        if now_s < self._next_publication or self.size == self.checkpoint.size:
            return None
        self._next_publication = now_s + self._interval_s
        return self.publish()

    def publish(self) -> Checkpoint:
        """Publish all that is durable now; where nothing is new, the last checkpoint stands.

        Raises: NotDurable, StorageFailed.
        """
        self._verify_alive()
        if self.size == self.checkpoint.size:
            return self.checkpoint
        try:
            self.checkpoint = self._publisher.publish(
                self._tree, self._full_tiles, self._entries, self._first_entry, self._tiles_size
            )
            self._tiles_size = self.checkpoint.size
            self._note = self._reader.checkpoint_note()
            self._forget_published()
            self._turn_segments()
        except StorageFailed as failure:
            self._failure = failure
            raise
        return self.checkpoint

    def read(self, index: int) -> bytes:
        """The durable record at an index.

        Raises: EntryNotFound, LogCorrupted.
        """
        if not 0 <= index < self.size:
            raise EntryNotFound(f"{self._folder}: no record {index}, the log has {self.size}")
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

    def prove(self, index: int) -> bytes:
        """The tlog-proof of a record under the last published checkpoint.

        Raises: EntryNotFound when no checkpoint covers it yet; LogCorrupted.
        """
        return self._reader.prove(index, self.checkpoint, self._note)

    def close(self) -> None:
        """Let go of the folder. What was appended and not committed is lost; it was acknowledged to nobody."""
        os.close(self._segment_fd)
        os.close(self._lock)

    def _remember_tile(self, tile: TileId, data: bytes) -> None:
        self._full_tiles.append((tile, data))

    def _forget_published(self) -> None:
        first = self._tiles_size // TILE_WIDTH * TILE_WIDTH
        del self._entries[: first - self._first_entry]
        self._first_entry = first
        self._full_tiles.clear()

    def _turn_segments(self) -> None:
        """Begin a new segment where the last is long, and remove those that the published tree covers."""
        if self._segment_clean_bytes >= self._segment_bytes and self._segments[-1][0] < self.size:
            with suppress(NotDurable):  # The long segment serves on; the next publication tries again.
                path = create_segment(self._disk, self._folder / WAL, self.size, self._folder / TEMPORARY / "segment")
                os.close(self._segment_fd)
                self._segment_fd = self._disk.open_append(path)
                self._segments.append((self.size, path))
                self._segment_clean_bytes = os.fstat(self._segment_fd).st_size
        while len(self._segments) > 1 and self._segments[1][0] <= self._tiles_size:
            self._disk.remove(self._segments.pop(0)[1])

    def _verify_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
