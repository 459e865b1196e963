"""Two parts of one attention at the same time: what a step's answers read from memory, and what its prompts multiply.

Answers, decoded or verified, are bound by the memory and prompts by the tensor cores, and the prompt rows of a mixed step fill
half of the multiprocessors or fewer. One behind the other each would leave idle what the other needs.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan

Work = Callable[[], None]
"""Enqueues kernels on the current stream."""


class Beside(Protocol):
    """How two pieces of work that do not touch each other's results are run."""

    def run(self, first: Work, second: Work) -> None:
        """Enqueue both behind what is on the current stream; what comes on it afterwards waits for both.

        `first` gets its multiprocessors first.
        """
        ...


class OneByOne:
    """On the current stream, in order: for a device without streams, and for who only records."""

    def run(self, first: Work, second: Work) -> None:
        """See `Beside.run`."""
        first()
        second()


class SideStream:
    """`first` on a stream of its own, which begins where the current one is and ends before that goes on.

    So all that is enqueued on either is in one order with everything but its neighbour, and memory that `first` uses may be used on
    the current stream before and afterwards.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._forked, self._ended = torch.cuda.Event(), torch.cuda.Event()

    def run(self, first: Work, second: Work) -> None:
        """See `Beside.run`."""
        current = torch.cuda.current_stream(self._stream.device)
        self._forked.record(current)
        self._stream.wait_event(self._forked)
        with torch.cuda.stream(self._stream):
            first()
        self._ended.record(self._stream)
        second()
        current.wait_event(self._ended)


class BothPlan:
    """The plans of a step's answers and of its prompts' chunks, each over rows of its own, at the same time."""

    def __init__(self, answers: DevicePlan, chunks: DevicePlan, beside: Beside) -> None:
        self._answers = answers
        self._chunks = chunks
        self._beside = beside

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        self._beside.run(
            partial(self._chunks.attend, layer, query, out), partial(self._answers.attend, layer, query, out)
        )
