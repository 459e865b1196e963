"""Responses that other workers make and clients of this one listen to: one look at the file serves all of them, and all who listen.

So the file costs a worker the same however many listen; they are woken when something is new. What was seen at the last look waits
here for them; who is further behind reads the file.
"""

import asyncio
from contextlib import suppress

from appliance.gateway.api.background_store import BackgroundStore, EventsRead, Key
from appliance.gateway.errors import PeerUnavailable

LOOK_INTERVAL_S = 0.25
"""How often the file is looked at."""


class _Mirror:
    """One response as it was seen last."""

    def __init__(self, number: int) -> None:
        self.first = number
        self.events: list[bytes] = []
        self.listeners: set[asyncio.Event] = set()

    @property
    def next_number(self) -> int:
        return self.first + len(self.events)

    def wake(self) -> None:
        listeners, self.listeners = self.listeners, set()
        for waker in listeners:
            waker.set()


class Mirrors:
    """One worker's. A response is looked at from the first who waits for it until it is over or nobody does any more."""

    def __init__(self, store: BackgroundStore) -> None:
        self._store = store
        self._mirrors: dict[Key, _Mirror] = {}
        self._looking: asyncio.Task[None] | None = None

    def events_from(self, key: Key, number: int, waker: asyncio.Event) -> list[bytes] | None:
        """Events from a sequence number on, and `waker` is set when there is more; None: the file must be read."""
        mirror = self._mirrors.get(key)
        if mirror is None or number < mirror.first:
            return None
        mirror.listeners.add(waker)
        return mirror.events[number - mirror.first :]

    def watch(self, key: Key, number: int, waker: asyncio.Event) -> None:
        """Look for events from a number on, up to which the file has been read, and set `waker` when there are some."""
        mirror = self._mirrors.setdefault(key, _Mirror(number))
        mirror.listeners.add(waker)
        if mirror.next_number > number:  # It was looked at since the file was read.
            waker.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        while self._mirrors:
            await asyncio.sleep(LOOK_INTERVAL_S)
            for key in [key for key, mirror in self._mirrors.items() if not mirror.listeners]:
                del self._mirrors[key]
            watched = list(self._mirrors.items())
            found: list[EventsRead | None] = [None] * len(watched)
            with suppress(PeerUnavailable):  # Whoever listens finds out by itself, and can say so to its client.
                found = await self._store.look([(key, mirror.next_number) for key, mirror in watched])
            for (key, mirror), seen in zip(watched, found, strict=True):
                self._take(key, mirror, seen)

    def _take(self, key: Key, mirror: _Mirror, seen: EventsRead | None) -> None:
        if seen is None or seen.is_lost or seen.state == "over":
            del self._mirrors[key]
            mirror.wake()
        elif seen.events:
            mirror.first, mirror.events = mirror.next_number, seen.events
            mirror.wake()
