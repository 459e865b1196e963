"""Reading a checkpoint to a GPU: every shard on a thread of its own, in chunks that are hashed and sent while the next is read.

A thread owns its shard's file, its stream and two pinned chunks, and has another thread for its hash; a chunk is written again once
it is hashed and the copy out of it has run. Cores that are left over help with hashing, where the algorithm lets several share
a file. Reading, hashing and the driver's calls release the interpreter's lock. What reaches the GPU is what was hashed: both
take it from the same pinned bytes. The caller's thread waits, reports progress, and sees the first failure.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.weights.checkpoint import Checkpoint, Shard, read_into
from runtime.weights.file_check import FileCheck, Hasher, hasher_of
from runtime.weights.placing import FILE_DTYPES, Placing

CHUNK_BYTES = 1 << 24
_MAX_THREADS = 16
_POLL_S = 0.1


def read_shards_to_device(
    checkpoint: Checkpoint,
    placing: Placing,
    embedding: Tensor,
    progress: Callable[[int, int], None] | None,
    check: FileCheck | None = None,
) -> dict[str, str]:
    """Fill the places, row-major tensors on one device, and return the digest of each shard by its name.

    Args:
        progress: called by the calling thread with (bytes read, bytes in all), ten times a second.
    Raises: CheckpointRejected.
    """
    counter = _Counter()
    hashing = check, max(1, len(os.sched_getaffinity(0)) // len(checkpoint.shards) - 1)
    with ThreadPoolExecutor(min(_MAX_THREADS, len(checkpoint.shards)), "weights") as pool:
        reading = [pool.submit(_read_shard, shard, placing, embedding, counter, hashing) for shard in checkpoint.shards]
        pending: set[Future[_ReadShard]] = set(reading)
        while pending:
            done, pending = wait(pending, _POLL_S, FIRST_EXCEPTION)
            if progress is not None:
                progress(counter.total, checkpoint.size_bytes)
            for failure in filter(None, (future.exception() for future in done)):
                counter.stop()
                raise failure
    for head in (head for future in reading for head in future.result().tied_heads):
        if not torch.equal(head, embedding.view(-1)):
            raise CheckpointRejected("tensor 'lm_head.weight' differs from the embedding that config.json ties it to")
    return {shard.name: future.result().digest for shard, future in zip(checkpoint.shards, reading, strict=True)}


@dataclass(frozen=True, slots=True)
class _ReadShard:
    digest: str
    tied_heads: list[Tensor]
    """Stored copies of the embedding, which may be in another shard."""


class _Counter:
    """Bytes read by all threads, and whether they are to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self.total = 0

    def add(self, count: int) -> None:
        """Raises: CheckpointRejected if another thread failed."""
        with self._lock:
            self.total += count
        if self._stopped:
            raise CheckpointRejected("reading ended, as another shard failed")

    def stop(self) -> None:
        self._stopped = True


class _Chunks:
    """Two pieces of host memory in turn, pinned where there is a GPU; a thread that hashes what is in them."""

    def __init__(self, device: torch.device, hasher: Hasher) -> None:
        self._hasher = hasher
        self._digesting = ThreadPoolExecutor(1, "digest")
        self._digested: list[Future[object] | None] = [None, None]
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._pieces = [torch.empty(CHUNK_BYTES, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def next(self) -> Tensor:
        """The piece that was sent longest ago, free to be written."""
        self._turn ^= 1
        digested = self._digested[self._turn]
        if digested is not None:
            digested.result()
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        return self._pieces[self._turn]

    def digest(self, piece: Tensor) -> None:
        """Have the current piece hashed, after those before it."""
        self._digested[self._turn] = self._digesting.submit(self._hasher.update, piece.numpy().data)

    def hexdigest(self) -> str:
        """Of all pieces."""
        self.close()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Wait until nothing is hashed any more."""
        self._digesting.shutdown()

    def send(self, target: Tensor, values: Tensor) -> None:
        """Enqueue the copy of values in the current piece, converted to the target's dtype."""
        if self._stream is None:
            target.copy_(values)
            return
        with torch.cuda.stream(self._stream):
            if values.dtype == target.dtype:
                target.copy_(values, non_blocking=True)
            else:
                target.copy_(values.to(target.device, non_blocking=True))
            self._copied[self._turn] = event = torch.cuda.Event()
            event.record(self._stream)

    def finish(self) -> None:
        """Wait for all copies."""
        if self._stream is not None:
            self._stream.synchronize()


@torch.inference_mode()
def _read_shard(
    shard: Shard, placing: Placing, embedding: Tensor, counter: _Counter, hashing: tuple[FileCheck | None, int]
) -> _ReadShard:
    check, num_threads = hashing
    chunks = _Chunks(embedding.device, hasher_of(check, shard.prefix, num_threads=num_threads))
    try:
        return _read_pieces(shard, chunks, placing, embedding, counter)
    finally:
        chunks.close()


def _read_pieces(shard: Shard, chunks: _Chunks, placing: Placing, embedding: Tensor, counter: _Counter) -> _ReadShard:
    tied_heads: list[Tensor] = []
    counter.add(len(shard.prefix))
    for stored in shard.tensors:
        target = values = placing.target(stored.name)
        if target is None and stored.name == "lm_head.weight":
            values = torch.empty_like(embedding).view(-1)
            tied_heads.append(values)
        dtype = FILE_DTYPES[stored.dtype]
        for start in range(0, stored.end - stored.begin, CHUNK_BYTES):
            count = min(CHUNK_BYTES, stored.end - stored.begin - start)
            piece = chunks.next()[:count]
            read_into(shard.file, piece.numpy().data, where=shard.name)
            chunks.digest(piece)
            if values is not None:
                first = start // dtype.itemsize
                chunks.send(values.view(-1)[first : first + count // dtype.itemsize], piece.view(dtype))
            counter.add(count)
        chunks.finish()
        if target is not None:
            placing.filled(stored.name, target)
    return _ReadShard(chunks.hexdigest(), tied_heads)
