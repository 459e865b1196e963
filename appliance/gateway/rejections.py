"""Rejected tokens, for the log: gathered by source and kind, so that a flood of them is one record a while, not a flood."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from audit.entry import encode_event
from audit.events import token_rejected_event

INTERVAL_S = 5.0
MAX_KINDS = 1024
"""Sources and kinds that are told apart within one interval; what is beyond is counted together."""


@dataclass(frozen=True)
class Rejection:
    """One kind of rejection from one source."""

    address: str
    route: str
    code: str


@dataclass(slots=True)
class _Counted:
    """Several of one kind: of the last one port and detail, of the first one the time, too."""

    first_ms: int
    last_ms: int = 0
    num_times: int = 0
    port: int = 0
    detail: str = ""


class Rejections:
    """Counts, and from time to time reports."""

    def __init__(self, report: Callable[[bytes], None]) -> None:
        self._report = report
        self._counts: dict[Rejection, _Counted] = {}

    def count(self, rejection: Rejection, port: int, detail: str) -> None:
        """Note one more."""
        if rejection not in self._counts and len(self._counts) >= MAX_KINDS:
            rejection = Rejection("several sources", rejection.route, rejection.code)
        now_ms = time.time_ns() // 1_000_000
        counted = self._counts.setdefault(rejection, _Counted(now_ms))
        counted.num_times += 1
        counted.last_ms, counted.port, counted.detail = now_ms, port, detail

    def flush(self) -> None:
        """Report what was counted."""
        counts, self._counts = self._counts, {}
        for rejection, counted in counts.items():
            event = token_rejected_event(
                address=rejection.address,
                port=counted.port,
                route=rejection.route,
                code=rejection.code,
                detail=counted.detail,
                num_times=counted.num_times,
                first_ms=counted.first_ms,
                last_ms=counted.last_ms,
            )
            self._report(encode_event(event))

    async def run(self) -> None:
        """Report every few seconds, for ever."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.flush()
