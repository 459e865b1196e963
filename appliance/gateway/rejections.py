"""Rejected tokens, for the log: gathered by source and kind, so that a flood of them is one record a while, not a flood."""

import asyncio
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


class Rejections:
    """Counts, and from time to time reports."""

    def __init__(self, report: Callable[[bytes], None]) -> None:
        self._report = report
        self._counts: dict[Rejection, tuple[int, int, str]] = {}

    def count(self, rejection: Rejection, port: int, detail: str) -> None:
        """Note one more."""
        if rejection not in self._counts and len(self._counts) >= MAX_KINDS:
            rejection = Rejection("several sources", rejection.route, rejection.code)
        num_times, _, _ = self._counts.get(rejection, (0, 0, ""))
        self._counts[rejection] = (num_times + 1, port, detail)

    def flush(self) -> None:
        """Report what was counted."""
        counts, self._counts = self._counts, {}
        for rejection, (num_times, port, detail) in counts.items():
            event = token_rejected_event(
                address=rejection.address,
                port=port,
                route=rejection.route,
                code=rejection.code,
                detail=detail,
                num_times=num_times,
            )
            self._report(encode_event(event))

    async def run(self) -> None:
        """Report every few seconds, for ever."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.flush()
