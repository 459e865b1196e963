"""What the authority records without anybody waiting for it: attempts that were only counted, kept until their record is
durable.
"""

import asyncio
import time
from collections import deque

import structlog

from appliance.authority.journal import Journal, JournalUnavailable
from appliance.authority.key_rotation import KeyRotation
from appliance.authority.records import build_suppressed_record
from security.oauth.failure_limit import FailureLimit
from security.oauth.refresh_store import RefreshStore

INTERVAL_S = 1.0
TICKS_PER_SUMMARY = 60
MAX_WAITING = 1000

log = structlog.get_logger(__name__)


class Bookkeeper:
    """Owner of what waits to be recorded."""

    def __init__(
        self, journal: Journal, failures: FailureLimit, refresh: RefreshStore, rotation: KeyRotation | None = None
    ) -> None:
        self._rotation = rotation
        self._journal = journal
        self._failures = failures
        self._refresh = refresh
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)

    async def run(self) -> None:
        """Record for ever; to be cancelled."""
        tick = 0
        while True:
            await asyncio.sleep(INTERVAL_S)
            tick += 1
            if tick % TICKS_PER_SUMMARY == 0:
                self.collect_suppressed()
                self._refresh.forget_expired()
                self.rotate_keys()
            await self.record_waiting()

    def collect_suppressed(self) -> None:
        """One record for each source that was refused unseen since the last time."""
        now_ms = time.time_ns() // 1_000_000
        self._waiting.extend(build_suppressed_record(one, now_ms) for one in self._failures.take_suppressed())

    def rotate_keys(self) -> None:
        """Replace the signing key if it is old."""
        if self._rotation is not None:
            self._waiting.extend(self._rotation.turn())

    async def record_waiting(self) -> None:
        """Record what waits, oldest first, as far as the auditor takes it."""
        try:
            while self._waiting:
                await self._journal.record(self._waiting[0])
                self._waiting.popleft()
        except JournalUnavailable as fault:
            if self._journal.is_connected:
                log.warning("bookkeeping_waits", reason=str(fault))
