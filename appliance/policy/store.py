"""The definitions in memory, read again when they have changed. SQL runs in one thread, so that quotas never wait for a disk.

Looking whether something changed costs one row, and is done every `max_age_s`, or at once for a name that is not known: it
may have been created a moment ago. If looking fails for longer than STALE_S, nobody is let in on old knowledge.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from security.errors import RegistryUnusable, SecurityUnavailable
from security.policy.definitions import NO_DEFINITIONS, Definitions
from security.registry.database import Database
from security.registry.snapshot import read_definitions

STALE_S = 5.0
MIN_LOOK_INTERVAL_S = 0.02
"""However many unknown names come, the database is asked no more often."""

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class DefinitionsStore:
    """Owner of the database within this process."""

    def __init__(
        self,
        database: Database,
        *,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._max_age_s = max_age_s
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="definitions")
        self._current = NO_DEFINITIONS
        self._looked_at = clock() - 10 * (STALE_S + max_age_s)
        self._looking = asyncio.Lock()
        self._listeners: list[Callable[[Definitions], None]] = []

    def subscribe(self, listener: Callable[[Definitions], None]) -> None:
        """Call `listener` with the definitions now and after every change."""
        self._listeners.append(listener)
        listener(self._current)

    @property
    def current(self) -> Definitions:
        """The definitions, at most STALE_S old. Raises: SecurityUnavailable."""
        if self._clock() - self._looked_at > self._max_age_s + STALE_S:
            raise SecurityUnavailable("the definitions cannot be read")
        return self._current

    async def look(self) -> Definitions:
        """The definitions as they are now, or were changed while this waited for its turn. Raises: SecurityUnavailable."""
        asked_at = self._clock()
        async with self._looking:
            if self._looked_at <= asked_at:  # Else somebody's look that began since then serves this one as well.
                await asyncio.sleep(max(0.0, self._looked_at + MIN_LOOK_INTERVAL_S - self._clock()))
                try:
                    await self._refresh()
                except RegistryUnusable as error:
                    raise SecurityUnavailable(f"the definitions cannot be read: {error}") from error
        return self._current

    async def call(self, work: Callable[[Database], _T]) -> _T:
        """Run `work` on the database, then know what it changed. Raises: what `work` raises."""
        result = await self._run(work)
        async with self._looking:
            await self._refresh()
        return result

    async def run(self) -> None:
        """Look for ever; to be cancelled."""
        while True:
            await asyncio.sleep(self._max_age_s)
            try:
                await self.look()
            except SecurityUnavailable as error:
                log.error("definitions_unreadable", reason=str(error))

    def close(self) -> None:
        """Wait for the thread and close the database."""
        self._thread.shutdown()
        self._database.close()

    async def _run(self, work: Callable[[Database], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._database)

    async def _refresh(self) -> None:
        began = self._clock()
        known = self._current.generation
        found = await self._run(lambda database: _read_if_changed(database, known))
        self._looked_at = began
        if found is not None:
            self._current = found
            for listener in self._listeners:
                listener(found)


def _read_if_changed(database: Database, known: int) -> Definitions | None:
    return None if database.read_generation() == known else read_definitions(database)
