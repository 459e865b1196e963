"""Host memory that bytes go through on their way from files to a device: pinned where that is a GPU, a few pieces in rotation.

A piece is lent, filled, sent from, and given back; it is lent again once the copies out of it have run. All copies go through
one stream, in the order in which they were enqueued, and so does what is computed from them.
"""

from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue

import torch


class Piece:
    """Some host memory, and the event behind the copies out of it."""

    def __init__(self, size_bytes: int, *, is_pinned: bool) -> None:
        self.memory = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        self.view = self.memory.numpy().data
        self._copied = torch.cuda.Event() if is_pinned else None

    def sent(self) -> None:
        """All copies out of it are enqueued on the current stream."""
        if self._copied is not None:
            self._copied.record()

    def wait(self) -> None:
        """Until the copies out of it have run."""
        if self._copied is not None:
            self._copied.synchronize()


class Pieces:
    """All pieces of one reading, and its stream."""

    def __init__(self, device: torch.device, count: int, size_bytes: int) -> None:
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._free: SimpleQueue[Piece | None] = SimpleQueue()
        for _ in range(count):
            self._free.put(Piece(size_bytes, is_pinned=on_gpu))
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # What was allocated there may still be zeroed.

    def on_stream(self) -> AbstractContextManager[object]:
        """Makes the stream the current one of a thread."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def lend(self) -> Piece | None:
        """A piece that may be written, once there is one; None after `stop`."""
        piece = self._free.get()
        if piece is not None:
            piece.wait()
        return piece

    def give_back(self, piece: Piece) -> None:
        """Nobody but the stream reads it any more."""
        self._free.put(piece)

    def stop(self, num_threads: int) -> None:
        """Let so many threads that wait for a piece, or come for one, have none."""
        for _ in range(num_threads):
            self._free.put(None)

    def finish(self) -> None:
        """Wait until all copies, and what is computed from them, have run."""
        if self._stream is not None:
            self._stream.synchronize()
