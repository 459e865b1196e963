"""The digest of a file whose pieces come in any order, from several threads.

Whoever brings the piece that is next hashes it, and those behind it that are there by then; for all others `add` returns at once.
So no thread waits for another, a digest has no thread of its own, and a piece that comes in its turn is hashed by the core that
has just read it.
"""

import threading
from collections.abc import Callable

from runtime.weights.file_check import Hasher


class OrderedDigest:
    """Pieces are hashed one after the other in the order of the file."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._position = 0
        self._waiting: dict[int, tuple[memoryview, Callable[[], None]]] = {}
        self._is_hashing = False
        self._lock = threading.Lock()

    def add(self, start: int, piece: memoryview, hashed: Callable[[], None]) -> None:
        """Take the bytes from `start` on, which must not change before `hashed` is called, by any thread."""
        with self._lock:
            self._waiting[start] = piece, hashed
        while (following := self._begin()) is not None:
            piece, hashed = following
            self._hasher.update(piece)
            with self._lock:
                self._position += len(piece)
                self._is_hashing = False
            hashed()

    def hexdigest(self) -> str:
        """Of the whole file, once all of it was hashed."""
        assert not self._waiting
        return self._hasher.hexdigest()

    def _begin(self) -> tuple[memoryview, Callable[[], None]] | None:
        """The next piece, if it is there and nobody is hashing."""
        with self._lock:
            if self._is_hashing or self._position not in self._waiting:
                return None
            self._is_hashing = True
            return self._waiting.pop(self._position)
