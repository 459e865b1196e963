"""Tells the auditor when processes start, become ready, end and are killed by the watchdog.

Events wait here, bounded, while the auditor is away; how many were lost beyond the bound is itself told.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from appliance.errors import LinkClosed
from appliance.ipc.link import Link
from appliance.messages.audit import AppendEvent, AppendRefused, Recorded

log = structlog.get_logger(__name__)

_MAX_WAITING = 10_000
_RETRY_S = 1.0


class _Entry(NamedTuple):
    event: bytes
    on_recorded: Callable[[], None] | None


class LifecycleRecorder:
    """A bounded queue of events in front of the supervisor's link to the auditor."""

    def __init__(self) -> None:
        self._waiting: deque[_Entry] = deque()
        self._unconfirmed: dict[int, _Entry] = {}
        self._correlations = itertools.count(1)
        self._link: Link | None = None
        self.num_lost = 0

    def record(self, event: bytes, on_recorded: Callable[[], None] | None = None) -> None:
        """Queue one canonical event; it is sent as soon as the auditor is there.

        Args:
            on_recorded: called when the record is durable; never if the event is lost.
        """
        if self._num_pending >= _MAX_WAITING:
            self.num_lost += 1
            log.error("lifecycle_event_lost", lost=self.num_lost)
            return
        self._waiting.append(_Entry(event, on_recorded))
        self._send_waiting()

    async def run(self, link: Link) -> None:
        """Serve one life of the link; returns when it ends. What was not confirmed is sent again on the next."""
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._link = link
        self._send_waiting()
        try:
            while True:
                match await link.receive():
                    case Recorded(correlation=correlation):
                        entry = self._unconfirmed.pop(correlation, None)
                        if entry is not None and entry.on_recorded is not None:
                            entry.on_recorded()
                    case AppendRefused() as refused:
                        self._take_back(refused)
                    case _:
                        pass
        except LinkClosed:
            pass
        finally:
            self._link = None
            link.close()

    def _take_back(self, refused: AppendRefused) -> None:
        """A full disk is a reason to try again, anything else is our mistake: the event is lost, and counted."""
        entry = self._unconfirmed.pop(refused.correlation, None)
        if entry is None:
            return
        if refused.code == "not_durable":
            self._waiting.append(entry)
            asyncio.get_running_loop().call_later(_RETRY_S, self._send_waiting)
            return
        self.num_lost += 1
        log.error("lifecycle_event_refused", code=refused.code, reason=refused.message, lost=self.num_lost)

    @property
    def _num_pending(self) -> int:
        return len(self._waiting) + len(self._unconfirmed)

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything queued is confirmed, at most `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._num_pending and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _send_waiting(self) -> None:
        while self._link is not None and self._waiting:
            entry = self._waiting.popleft()
            correlation = next(self._correlations)
            self._unconfirmed[correlation] = entry
            try:
                self._link.send(AppendEvent(correlation, entry.event))
            except LinkClosed:
                return
