"""What engines gave for one answer and nobody has looked at yet. It is bounded: a slow reader loses its own answer only."""

import asyncio
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from appliance.gateway.errors import ClientGone, GatewayFault

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """A queue with one reader, which takes all there is at a time, and an end that overtakes the queue."""

    def __init__(self, max_tokens: int, on_overflow: Callable[[GatewayFault], None]) -> None:
        """`on_overflow` ends the answer, its reader included, who may be waiting for the client just then."""
        self._max_tokens = max_tokens
        self._on_overflow: Callable[[GatewayFault], object] = on_overflow
        self._items: list[Item] = []
        self._num_tokens = 0
        self._fault: GatewayFault | None = None
        self._reader: asyncio.Future[None] | None = None
        """What the reader waits for, until it goes on. A deque and an Event would be 1.3 KiB of every idle stream."""

    @property
    def is_idle(self) -> bool:
        """Nothing waits, and the reader does: what came before has been dealt with."""
        return self._reader is not None and not self._items and self._fault is None

    @property
    def fault(self) -> GatewayFault | None:
        """Why nothing more will come, if so."""
        return self._fault

    def put(self, item: Item, num_tokens: int) -> None:
        """Add something that holds so many tokens; over the bound, the answer ends."""
        if self._fault is not None:
            return
        self._items.append(item)
        self._num_tokens += num_tokens
        if self._num_tokens > self._max_tokens:
            self._on_overflow(
                ClientGone("client_stalled", f"the client left more than {self._max_tokens} tokens unread")
            )
        self._wake()

    def fail(self, fault: GatewayFault) -> None:
        """End the answer; the first reason stands, and what waits is dropped."""
        if self._fault is None:
            self._fault = fault
            self._items.clear()
            self._wake()

    async def take(self) -> list[Item]:
        """Everything that waits, at least one item. Raises: GatewayFault, the reason of `fail`."""
        while not self._items:
            if self._fault is not None:
                raise self._fault
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        items, self._items = self._items, []
        self._num_tokens = 0
        return items

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def let_go(self) -> None:
        """Of whoever is told of an overflow: nothing comes any more."""
        self._on_overflow = _ignore

    def reopen(self) -> Self:
        """Take again, after the end: what engines still say of generations that were cut short."""
        self._fault = None
        self._items.clear()
        self._num_tokens = 0
        return self


def _ignore(_fault: GatewayFault) -> None:
    return
