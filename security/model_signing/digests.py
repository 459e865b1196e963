"""Digests of many files at once: streaming, over as many threads as there are cores, with progress.

Both algorithms work outside the interpreter's lock, so that threads are enough. The largest files go first, since one file is
read by one thread; with BLAKE3 the cores that have no file of their own help to hash the large ones. Files are read and not
mapped: a mapped file that somebody cuts short kills the process that reads it.

A file may get a second digest in the same pass: both are of the same bytes, read once into one buffer.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from security.errors import ModelFolderRejected
from security.model_signing.algorithms import SHA256, new_hasher
from security.model_signing.folder import ListedFile, ModelFolder
from security.model_signing.names import show_name

Progress = Callable[[int, int], None]
"""Called with (bytes hashed, bytes in all) a few times a second, in the thread that waits."""

# Small enough to stay in a core's cache between the copy from the page cache and the hash; of 64 KiB to 16 MiB the best on ext4.
_CHUNK_BYTES = 1 << 20
# What several threads hash together has to be worth waking them.
_SHARED_CHUNK_BYTES = 1 << 24
_LARGE_BYTES = 1 << 28
_MAX_THREADS = 16
_PROGRESS_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class SecondDigest:
    """A digest more for some of the files, of the same bytes."""

    algorithm: str
    """One of `algorithms.ALGORITHMS`."""
    concerns: Callable[[str], bool]
    """Whether the file of a name gets it."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What was found, in hexadecimal, by the files' names."""

    first: dict[str, str]
    """Of every file."""
    second: dict[str, str]
    """Of those that the second digest concerns."""


def hash_files(
    folder: ModelFolder,
    files: Sequence[ListedFile],
    *,
    algorithm: str = SHA256,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """The digest, in hexadecimal, of each file by its name; see `hash_files_by`."""
    found = hash_files_by(folder, files, lambda _name: (algorithm,), num_threads=num_threads, progress=progress)
    return {name: digest for name, (digest,) in found.items()}


def hash_files_twice(
    folder: ModelFolder,
    files: Sequence[ListedFile],
    algorithm: str,
    second: SecondDigest | None,
    *,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Digests:
    """The digest of each file, and the second of those that it concerns, in one pass; see `hash_files_by`."""

    def algorithms_of(name: str) -> tuple[str, ...]:
        return (algorithm,) if second is None or not second.concerns(name) else (algorithm, second.algorithm)

    found = hash_files_by(folder, files, algorithms_of, num_threads=num_threads, progress=progress)
    return Digests(
        {name: digests[0] for name, digests in found.items()},
        {name: digests[1] for name, digests in found.items() if len(digests) == 2},
    )


def hash_files_by(
    folder: ModelFolder,
    files: Sequence[ListedFile],
    algorithms_of: Callable[[str], Sequence[str]],
    *,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[str, ...]]:
    """The digests, in hexadecimal, of each file by its name.

    Args:
        algorithms_of: those of `algorithms.ALGORITHMS` that the file of a name is digested with, in this order.
        num_threads: as many as there are cores for us, at most 16, if None.
    Raises: ModelFolderRejected if a file cannot be read, or changes meanwhile.
    """
    total_bytes = sum(file.size_bytes for file in files)
    counter = _Counter()
    if num_threads is None:
        num_threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    num_large = sum(file.size_bytes >= _LARGE_BYTES for file in files)
    hashing = _Hashing(counter, algorithms_of, max(1, num_threads // max(1, num_large)))
    largest_first = sorted(files, key=lambda file: -file.size_bytes)
    with ThreadPoolExecutor(max_workers=max(1, min(num_threads, len(files)))) as pool:
        futures = {file.name: pool.submit(_hash_file, folder, file, hashing) for file in largest_first}
        try:
            _await_all(list(futures.values()), counter, total_bytes, progress)
            return {name: future.result() for name, future in futures.items()}
        finally:
            counter.stop()
            pool.shutdown(cancel_futures=True)


class _Counter:
    """Bytes hashed by all threads, and the word that they are to stop."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._lock = threading.Lock()
        self._is_stopped = False

    def add(self, num_bytes: int) -> bool:
        """Count; False when the result is no longer wanted."""
        with self._lock:
            self.num_bytes += num_bytes
        return not self._is_stopped

    def stop(self) -> None:
        """Let the threads end at their next chunk."""
        self._is_stopped = True


@dataclass(frozen=True, slots=True)
class _Hashing:
    """What is the same for all files."""

    counter: _Counter
    algorithms_of: Callable[[str], Sequence[str]]
    threads_per_large_file: int


def _await_all(
    futures: list[Future[tuple[str, ...]]], counter: _Counter, total_bytes: int, progress: Progress | None
) -> None:
    pending = set(futures)
    while pending:
        interval = None if progress is None else _PROGRESS_INTERVAL_S
        done, pending = wait(pending, timeout=interval, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        if progress is not None:
            progress(min(counter.num_bytes, total_bytes), total_bytes)


def _hash_file(folder: ModelFolder, file: ListedFile, hashing: _Hashing) -> tuple[str, ...]:
    descriptor = folder.open_file(file.name)
    try:
        before = os.fstat(descriptor)
        if (before.st_dev, before.st_ino, before.st_size) != (file.device, file.inode, file.size_bytes):
            raise _changed(file)
        digests = _hash_descriptor(descriptor, file, hashing)
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(file)
        return digests
    except OSError as error:
        raise ModelFolderRejected(f"{show_name(file.name)}: cannot be read: {error.strerror or error}") from None
    finally:
        os.close(descriptor)


def _hash_descriptor(descriptor: int, file: ListedFile, hashing: _Hashing) -> tuple[str, ...]:
    algorithms = hashing.algorithms_of(file.name)
    # SHA-256 is sequential: threads that shared the bytes of the other digest would wait for it.
    is_shared = file.size_bytes >= _LARGE_BYTES and SHA256 not in algorithms
    num_threads = hashing.threads_per_large_file if is_shared else 1
    hashers = [new_hasher(algorithm, num_threads=num_threads) for algorithm in algorithms]
    # One byte more than is expected, so that a file that grows is noticed and cannot keep us reading.
    left = file.size_bytes + 1
    buffer = memoryview(bytearray(min(left, _SHARED_CHUNK_BYTES if num_threads > 1 else _CHUNK_BYTES)))
    while left and (count := os.readv(descriptor, [buffer[:left]])):
        left -= count
        for hasher in hashers:
            hasher.update(buffer[:count])
        if not hashing.counter.add(count):
            break
    if left != 1:
        raise _changed(file)
    return tuple(hasher.hexdigest() for hasher in hashers)


def _changed(file: ListedFile) -> ModelFolderRejected:
    return ModelFolderRejected(f"{show_name(file.name)}: changed while it was read")
