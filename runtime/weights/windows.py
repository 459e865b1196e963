"""Memory that bytes go through on their way from files to a device: pinned where that is a GPU, a few windows in rotation.

A window is lent, filled, brought to as much memory of the device, used there, and given back; it is lent again once that has run.
Two streams: one copies a window as a whole, the other one uses those that have arrived, in the order in which it was told.
"""

from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue

import torch
from torch import Tensor


class Window:
    """Some host memory, as much of the device, and the events behind what is done with both."""

    def __init__(self, size_bytes: int, device: torch.device, copies: torch.cuda.Stream | None) -> None:
        on_gpu = copies is not None
        self.memory = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self.view = self.memory.numpy().data
        self._staged = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        self._copies = copies
        self._arrived = torch.cuda.Event() if on_gpu else None
        self._used = torch.cuda.Event() if on_gpu else None

    def stage(self, size_bytes: int) -> Tensor:
        """Its first bytes on the device, for what is enqueued next on the current stream."""
        staged, filled = self._staged[:size_bytes], self.memory[:size_bytes]
        if self._arrived is None:
            return staged.copy_(filled)
        with torch.cuda.stream(self._copies):
            staged.copy_(filled, non_blocking=True)
            self._arrived.record()
        self._arrived.wait()
        return staged

    def used(self) -> None:
        """All that takes bytes out of it is enqueued on the current stream."""
        if self._used is not None:
            self._used.record()

    def wait(self) -> None:
        """Until that has run."""
        if self._used is not None:
            self._used.synchronize()


class Windows:
    """All windows of one reading, and its streams."""

    def __init__(self, device: torch.device, count: int, size_bytes: int) -> None:
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        copies = torch.cuda.Stream(device) if on_gpu else None
        self._free: SimpleQueue[Window | None] = SimpleQueue()
        for _ in range(count):
            self._free.put(Window(size_bytes, device, copies))
        for stream in (self._stream, copies):
            if stream is not None:
                # What was allocated on the caller's stream may still be zeroed, or used by whom it belonged to before.
                stream.wait_stream(torch.cuda.current_stream(device))

    def on_stream(self) -> AbstractContextManager[object]:
        """Makes the stream on which windows are used the current one of a thread."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def lend(self) -> Window | None:
        """One that may be filled, once there is one; None after `stop`."""
        window = self._free.get()
        if window is not None:
            window.wait()
        return window

    def give_back(self, window: Window) -> None:
        """Nobody but the streams reads it any more."""
        self._free.put(window)

    def stop(self, num_threads: int) -> None:
        """Let so many threads that wait for a window, or come for one, have none."""
        for _ in range(num_threads):
            self._free.put(None)

    def finish(self) -> None:
        """Wait until all that was enqueued has run."""
        if self._stream is not None:
            self._stream.synchronize()
