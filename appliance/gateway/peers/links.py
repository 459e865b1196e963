"""What the gateway needs of a link; `appliance.ipc.link.Link` is one, and so is a test's fake."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec


class Link(Protocol):
    """A checked connection to one process."""

    @property
    def peer_instance(self) -> int:
        """Which of the processes of that role."""
        ...

    def send(self, message: msgspec.Struct) -> None:
        """Send without waiting. Raises: LinkClosed."""
        ...

    async def receive(self) -> Any:
        """The next message of the edge's union. Raises: LinkClosed."""
        ...

    async def serve(self, handle: Callable[[Any], None]) -> None:
        """Hand every further message to `handle`, until the link ends. Raises: LinkClosed, and what `handle` raises."""
        ...
