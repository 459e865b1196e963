"""Reading a checkpoint to a GPU: a thread a core, each of which reads a piece of some shard, sends it, and hashes what is next.

Shards are cut at multiples of CHUNK_BYTES, whatever tensors lie there, so that one large file is read by all threads and BLAKE3
finds whole subtrees. The shard of which most is left comes first: all of them, and their digests, end together. A thread

    (1) waits for a piece of pinned memory, and takes the next range of bytes that nobody has read,
    (2) reads it,
    (3) enqueues the copies to the GPU,
    (4) hashes it, if all before it in the file was hashed; otherwise whoever hashes that goes on with it (`ordered_digest`).

What reaches the GPU is what was hashed: both take it from the same pinned bytes, which are read once. A thread has its piece
before it takes a range, so that the range that a digest waits for is always being read. Where shards are fewer than threads, an
algorithm that can do it hashes each piece with several. Reading, hashing and the driver's calls release the interpreter's lock.
The caller's thread waits, reports progress, and sees the first failure.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.weights.arriving import ArrivingTensor
from runtime.weights.checkpoint import Checkpoint, Shard, read_at
from runtime.weights.file_check import FileCheck, hasher_of
from runtime.weights.ordered_digest import OrderedDigest
from runtime.weights.pieces import Piece, Pieces
from runtime.weights.placing import Placing

CHUNK_BYTES = 1 << 23
"""Measured on two cores with 2 to 8 MiB: smaller ones are hashed a tenth faster, from caches, unless threads share a digest.
For each one a thread takes its turn at the interpreter."""
_PIECES_PER_THREAD = 2
_MAX_THREADS = 16
_POLL_S = 0.1


def read_shards_to_device(
    checkpoint: Checkpoint,
    placing: Placing,
    embedding: Tensor,
    progress: Callable[[int, int], None] | None,
    check: FileCheck | None = None,
    *,
    num_threads: int | None = None,
) -> dict[str, str]:
    """Fill the places, row-major tensors on one device, and return the digest of each shard by its name.

    Args:
        progress: called by the calling thread with (bytes read, bytes in all), ten times a second.
        num_threads: as many as there are cores for us, at most 16, if None.
    Raises: CheckpointRejected.
    """
    num_threads = num_threads or min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    threads_per_hash = max(1, num_threads // len(checkpoint.shards))
    sources = [_Source(shard, placing, embedding.device, check, threads_per_hash) for shard in checkpoint.shards]
    reading = _Reading(sources, Pieces(embedding.device, _PIECES_PER_THREAD * num_threads, CHUNK_BYTES))
    with ThreadPoolExecutor(num_threads, "weights") as pool:
        pending: set[Future[None]] = {pool.submit(reading.work) for _ in range(num_threads)}
        try:
            while pending:
                done, pending = wait(pending, _POLL_S, FIRST_EXCEPTION)
                if progress is not None:
                    progress(reading.done_bytes, checkpoint.size_bytes)
                for future in done:
                    future.result()
        finally:
            reading.stop(num_threads)
    reading.finish()
    for head in (head for source in sources for head in source.tied_heads()):
        if not torch.equal(head.to(embedding.dtype), embedding.view(-1)):
            raise CheckpointRejected("tensor 'lm_head.weight' differs from the embedding that config.json ties it to")
    return {source.shard.name: source.digest.hexdigest() for source in sources}


class _Source:
    """A shard while it is read."""

    def __init__(
        self, shard: Shard, placing: Placing, device: torch.device, check: FileCheck | None, num_threads: int
    ) -> None:
        self.shard = shard
        self.digest = OrderedDigest(hasher_of(check, shard.prefix, num_threads=num_threads), len(shard.prefix))
        self._tensors = [
            ArrivingTensor(stored, placing, device, is_kept=stored.name == "lm_head.weight") for stored in shard.tensors
        ]
        self._ends = [tensor.end for tensor in self._tensors]

    def cut(self) -> Iterator["_Range"]:
        """All bytes behind the header, in order."""
        begin = len(self.shard.prefix)
        while begin < self.shard.size_bytes:
            end = min(begin - begin % CHUNK_BYTES + CHUNK_BYTES, self.shard.size_bytes)
            yield _Range(self, begin, end)
            begin = end

    def send(self, begin: int, content: Tensor) -> None:
        """Copy bytes to the tensors that they belong to."""
        end = begin + len(content)
        for tensor in self._tensors[bisect_right(self._ends, begin) :]:
            if tensor.begin >= end:
                return
            first, last = max(begin, tensor.begin), min(end, tensor.end)
            tensor.add(first, content[first - begin : last - begin])

    def tied_heads(self) -> list[Tensor]:
        """Stored copies of the embedding, which may be in another shard."""
        return [tensor.kept for tensor in self._tensors if tensor.kept is not None]


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of a shard that are read together; half-open."""

    source: _Source
    begin: int
    end: int

    @property
    def left_bytes(self) -> int:
        """Of its shard, with it."""
        return self.source.shard.size_bytes - self.begin


class _Reading:
    """What the threads share."""

    def __init__(self, sources: list[_Source], pieces: Pieces) -> None:
        ranges = [each for source in sources for each in source.cut()]
        self._ranges = iter(sorted(ranges, key=lambda each: -each.left_bytes))
        self._pieces = pieces
        self._lock = threading.Lock()
        self.done_bytes = sum(len(source.shard.prefix) for source in sources)

    @torch.inference_mode()
    def work(self) -> None:
        """Read, send and hash until nothing is left, or until `stop`."""
        with self._pieces.on_stream():
            while (piece := self._pieces.lend()) is not None:  # (1)
                with self._lock:
                    following = next(self._ranges, None)
                if following is None:
                    self._pieces.give_back(piece)
                    return
                self._read(following, piece)

    def stop(self, num_threads: int) -> None:
        """Let threads end with what they are at."""
        self._pieces.stop(num_threads)

    def finish(self) -> None:
        """Wait for the device."""
        self._pieces.finish()

    def _read(self, given: _Range, piece: Piece) -> None:
        count = given.end - given.begin
        view = piece.view[:count]
        read_at(given.source.shard.file, view, given.begin, where=given.source.shard.name)  # (2)
        given.source.send(given.begin, piece.memory[:count])  # (3)
        piece.sent()
        with self._lock:
            self.done_bytes += count
        given.source.digest.add(given.begin, view, lambda: self._pieces.give_back(piece))  # (4)
