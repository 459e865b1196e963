"""Reading a checkpoint to a GPU: a thread a core reads, one more sends what they have read, and the GPU hashes what has arrived.

Shards are cut into *windows*, at multiples of their size and whatever tensors lie there, and these into pieces, so that one large
file is read by all threads. The shard of which most is left comes first: all of them, and their digests, end together. A thread

    (1) takes the next piece that nobody has read, of a window whose memory is free,
    (2) reads it; the header is taken as it was parsed,
    (3) and hashes it, where the GPU does not; if something before it in the file is not hashed yet, whoever hashes that goes on
        with it (`ordered_digest`).

When all pieces of a window are there, the thread that sends enqueues

    (4) one copy to the GPU, on a stream of its own, so that it runs beside what follows for the window before,
    (5) the hashes of all of it, if the digest is one of a tree and there are kernels for it (`tree_digest`),
    (6) and the copies to the tensors that it belongs to.

What is computed with is what was hashed: both take it from the same memory of ours, into which it was read once. One thread sends,
since each call to the driver takes its turn at the interpreter: with sixteen threads that each sent pieces of 8 MiB and had them
hashed, 16 GB took 1.1 s to an H100 instead of 0.5. Reading and hashing release the interpreter's lock. The caller's thread waits,
reports progress, and sees the first failure.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.kernels.digest import DigestKernels, padded
from runtime.weights.arriving import ArrivingTensor
from runtime.weights.checkpoint import Checkpoint, Shard, read_at
from runtime.weights.file_check import FileCheck, hasher_of, is_tree
from runtime.weights.ordered_digest import OrderedDigest
from runtime.weights.placing import Placing
from runtime.weights.tree_digest import TreeDigest
from runtime.weights.windows import Window, Windows

PIECE_BYTES = 1 << 23
WINDOW_BYTES = 1 << 26
NUM_WINDOWS = 4
"""Two are filled while one is copied and one is used. Where cores hash, a window is a piece, and there are two a thread."""
_MAX_THREADS = 16
_POLL_S = 0.1


def read_shards_to_device(
    checkpoint: Checkpoint,
    placing: Placing,
    embedding: Tensor,
    progress: Callable[[int, int], None] | None,
    check: FileCheck | None = None,
    *,
    kernels: DigestKernels | None = None,
    num_threads: int | None = None,
) -> dict[str, str]:
    """Fill the places, row-major tensors on one device, and return the digest of each shard by its name.

    Args:
        progress: called by the calling thread with (bytes read, bytes in all), ten times a second.
        kernels: hash on the device, if the check wants what they compute.
        num_threads: that read; as many as there are cores for us, at most 16, if None.
    Raises: CheckpointRejected.
    """
    num_threads = num_threads or min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    device = embedding.device
    new_digest: Callable[[Shard], OrderedDigest | TreeDigest]
    if kernels is not None and is_tree(check):
        new_digest, window_bytes, num_windows = partial(_tree_digest, device, kernels), WINDOW_BYTES, NUM_WINDOWS
    else:
        share = max(1, num_threads // len(checkpoint.shards))
        new_digest, window_bytes, num_windows = partial(_host_digest, check, share), PIECE_BYTES, 2 * num_threads
    sources = [_Source(shard, placing, device, new_digest(shard)) for shard in checkpoint.shards]
    reading = _Reading(sources, window_bytes, Windows(device, num_windows, window_bytes))
    with ThreadPoolExecutor(num_threads + 1, "weights") as pool:
        pending: set[Future[None]] = {pool.submit(reading.read) for _ in range(num_threads)}
        pending.add(pool.submit(reading.send))
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


def _tree_digest(device: torch.device, kernels: DigestKernels, shard: Shard) -> TreeDigest:
    return TreeDigest(shard.size_bytes, device, kernels)


def _host_digest(check: FileCheck | None, num_threads: int, _shard: Shard) -> OrderedDigest:
    return OrderedDigest(hasher_of(check, num_threads=num_threads))


class _Source:
    """A shard while it is read."""

    def __init__(
        self, shard: Shard, placing: Placing, device: torch.device, digest: OrderedDigest | TreeDigest
    ) -> None:
        self.shard = shard
        self.digest = digest
        self._tensors = [
            ArrivingTensor(stored, placing, device, is_kept=stored.name == "lm_head.weight") for stored in shard.tensors
        ]
        self._ends = [tensor.end for tensor in self._tensors]

    def cut(self, window_bytes: int) -> Iterator["_Range"]:
        """All bytes, in order, by windows."""
        for begin in range(0, self.shard.size_bytes, window_bytes):
            yield _Range(self, begin, min(begin + window_bytes, self.shard.size_bytes))

    def read(self, begin: int, target: memoryview) -> None:
        """Fill with the bytes from `begin` on; those of the header are the ones that were parsed."""
        header = self.shard.prefix[begin : begin + len(target)]
        target[: len(header)] = header
        read_at(self.shard.file, target[len(header) :], begin + len(header), where=self.shard.name)

    def place(self, begin: int, content: Tensor) -> None:
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
    """Bytes of a shard that are sent together; half-open."""

    source: _Source
    begin: int
    end: int

    @property
    def left_bytes(self) -> int:
        """Of its shard, with it."""
        return self.source.shard.size_bytes - self.begin


@dataclass(slots=True)
class _Filling:
    """A window with the range that it is for."""

    range: _Range
    window: Window
    missing_bytes: int

    def cut(self) -> Iterator[tuple["_Filling", int, int]]:
        """Pieces: half-open, in bytes of the file."""
        for begin in range(self.range.begin, self.range.end, PIECE_BYTES):
            yield self, begin, min(begin + PIECE_BYTES, self.range.end)


class _Reading:
    """What the threads share."""

    def __init__(self, sources: list[_Source], window_bytes: int, windows: Windows) -> None:
        ranges = [each for source in sources for each in source.cut(window_bytes)]
        self._num_ranges = len(ranges)
        self._ranges = iter(sorted(ranges, key=lambda each: -each.left_bytes))
        self._pieces: Iterator[tuple[_Filling, int, int]] = iter(())
        self._taking = threading.Lock()
        self._windows = windows
        self._full: SimpleQueue[_Filling | None] = SimpleQueue()
        self._counting = threading.Lock()
        self.done_bytes = 0

    def read(self) -> None:
        """Read, and hash what is not hashed on the device, until nothing is left, or until `stop`."""
        while (taken := self._take()) is not None:  # (1)
            filling, begin, end = taken
            source, start = filling.range.source, filling.range.begin
            view = filling.window.view[begin - start : end - start]
            source.read(begin, view)  # (2)
            if isinstance(source.digest, TreeDigest):
                self._count(filling, end - begin)
            else:
                source.digest.add(begin, view, partial(self._count, filling, end - begin))  # (3)

    @torch.inference_mode()
    def send(self) -> None:
        """Send full windows until all were, or until `stop`."""
        with self._windows.on_stream():
            for _ in range(self._num_ranges):
                if (filling := self._full.get()) is None:
                    return
                self._send(filling.range, filling.window)
                self._windows.give_back(filling.window)

    def stop(self, num_threads: int) -> None:
        """Let threads end with what they are at."""
        self._windows.stop(num_threads)
        self._full.put(None)

    def finish(self) -> None:
        """Wait for the device."""
        self._windows.finish()

    def _take(self) -> tuple[_Filling, int, int] | None:
        """The next piece. Whoever waits for a window here keeps the others waiting, whose pieces lie in that one or behind it."""
        with self._taking:
            taken = next(self._pieces, None)
            if taken is not None:
                return taken
            following = next(self._ranges, None)
            window = None if following is None else self._windows.lend()
            if following is None or window is None:
                return None
            self._pieces = _Filling(following, window, following.end - following.begin).cut()
            return next(self._pieces)

    def _count(self, filling: _Filling, num_bytes: int) -> None:
        with self._counting:
            self.done_bytes += num_bytes
            filling.missing_bytes -= num_bytes
            is_full = filling.missing_bytes == 0
        if is_full:
            self._full.put(filling)

    def _send(self, given: _Range, window: Window) -> None:
        source, count = given.source, given.end - given.begin
        if isinstance(source.digest, TreeDigest):
            whole = padded(count)
            window.memory[count:whole] = 0
            staged = window.stage(whole)  # (4)
            source.digest.add(given.begin, staged, count)  # (5)
        else:
            staged = window.stage(count)
        source.place(given.begin, staged[:count])  # (6)
        window.used()
