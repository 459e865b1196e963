"""One step's output as messages to the workers, none larger than a frame.

A worker gets one message a step. Only logprobs of prompts can make it too large: those of one prompt fit (the gateway bounds
them), those of several that are through in one step may not.
"""

import array
import sys
from collections.abc import Iterator, Set

from appliance.ipc.frames import MAX_FRAME_BYTES
from appliance.messages.engine import StepTokens
from runtime.request import PackedTokens, PromptDelivery, RequestSummary, TokenDelivery, TokenLogprobs

Delivery = PromptDelivery | TokenDelivery | RequestSummary

MAX_MESSAGE_BYTES = MAX_FRAME_BYTES // 2
"""A message is closed before it grows beyond this, so that one prompt of the largest kind still fits behind."""

_DELIVERY_BYTES = 128
_LOGPROBS_BYTES = 16
_TOP_BYTES = 14
"""At most, in msgpack: a float of 9 bytes, an id of 5."""


class WorkerMessages:
    """What one worker gets. `plain` leads, as it must be seen before the ends among the rest."""

    def __init__(self) -> None:
        self.plain = PackedTokens()
        self._messages = [StepTokens([], [], [])]
        self._num_bytes = 0

    def add(self, delivery: Delivery) -> None:
        """Add a delivery: prompts first, then tokens, then summaries."""
        size = _most_bytes(delivery)
        if self._num_bytes + size > MAX_MESSAGE_BYTES and self._num_bytes:
            self._messages.append(StepTokens([], [], []))
            self._num_bytes = 0
        self._num_bytes += size
        message = self._messages[-1]
        match delivery:
            case PromptDelivery():
                message.prompts.append(delivery)
            case TokenDelivery():
                message.tokens.append(delivery)
            case RequestSummary():
                message.summaries.append(delivery)

    def messages(self) -> list[StepTokens]:
        """In the order in which they must be sent."""
        first = self._messages[0]
        return [StepTokens(first.prompts, first.tokens, first.summaries, self.plain), *self._messages[1:]]


class Outgoing:
    """What all workers get, by their numbers."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerMessages] = {}

    def to(self, number: int) -> WorkerMessages:
        """One worker's."""
        worker = self._workers.get(number)
        if worker is None:
            worker = self._workers[number] = WorkerMessages()
        return worker

    def messages(self) -> Iterator[tuple[int, StepTokens]]:
        """Every message with the number of its worker."""
        for number, worker in self._workers.items():
            for message in worker.messages():
                yield number, message


def part(packed: PackedTokens, held: Set[int]) -> tuple[PackedTokens, list[tuple[int, int, int]]]:
    """Plain tokens of one worker, parted by its request ids: those that may leave, and those of held requests."""
    kept = [entry for entry in packed if entry[0] in held]
    if not kept:
        return packed, kept
    free = [entry for entry in packed if entry[0] not in held]
    request_ids, token_ids = (
        array.array("Q", (entry[0] for entry in free)),
        array.array("I", (entry[2] for entry in free)),
    )
    if sys.byteorder == "big":
        request_ids.byteswap()
        token_ids.byteswap()
    choices = bytes(entry[1] for entry in free)
    return PackedTokens(request_ids.tobytes(), choices, token_ids.tobytes()), kept


def _most_bytes(delivery: Delivery) -> int:
    if isinstance(delivery, RequestSummary):
        return _DELIVERY_BYTES
    size = _DELIVERY_BYTES + (5 * len(delivery.token_ids) if isinstance(delivery, TokenDelivery) else 0)
    size += len(delivery.embedding) if isinstance(delivery, PromptDelivery) else 0
    return size + _logprobs_bytes(delivery.logprobs or [])


def _logprobs_bytes(entries: "list[TokenLogprobs] | list[TokenLogprobs | None]") -> int:
    """All entries of a delivery have as many alternatives as its last one; a prompt's first has none at all."""
    last = entries[-1] if entries else None
    num_top = 0 if last is None else len(last.top_ids)
    return len(entries) * (_LOGPROBS_BYTES + _TOP_BYTES * num_top)
