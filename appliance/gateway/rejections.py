"""Rejected tokens, for the log: gathered by source, kind and who, so that a flood of them is one record a while, not a flood.

A good token that does not suffice, for want of a scope or of a person behind it, is one of them, under its holder's name.
The gateway's workers gather theirs, and policy those of the admin API.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.gateway.errors import Unauthenticated
from appliance.gateway.exchange import Exchange
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
    client_id: str = ""
    """This and the next two are empty where the token is not good."""
    subject: str = ""
    tenant: str = ""


@dataclass(slots=True)
class _Counted:
    """Several of one kind: of the last one port, token and detail, of the first one the time, too."""

    first_ms: int
    last_ms: int = 0
    num_times: int = 0
    port: int = 0
    token_id: str = ""
    detail: str = ""


class Rejections:
    """Counts, and from time to time reports."""

    def __init__(self, report: Callable[[bytes], None], service: str = "gateway") -> None:
        """
        Args:
            service: whose tokens these are, as the records name it.
        """
        self._report = report
        self._service = service
        self._counts: dict[Rejection, _Counted] = {}

    def note(self, exchange: Exchange, route: str, fault: Unauthenticated) -> None:
        """A request ended with this fault.

        Args:
            route: its path as it was registered.
        """
        if fault.code == "use_dpop_nonce":  # What a client is told that does everything right.
            return
        rejection, who = Rejection(exchange.source_address, route, fault.code), exchange.principal or fault.principal
        if who is not None:
            rejection = replace(rejection, client_id=who.client_id, subject=who.subject, tenant=who.tenant)
        self.count(rejection, exchange.source_port, str(fault), "" if who is None else who.token_id)

    def count(self, rejection: Rejection, port: int, detail: str, token_id: str = "") -> None:
        """Note one more."""
        if rejection not in self._counts and len(self._counts) >= MAX_KINDS:
            rejection = Rejection("several sources", rejection.route, rejection.code)
        now_ms = time.time_ns() // 1_000_000
        counted = self._counts.setdefault(rejection, _Counted(now_ms))
        counted.num_times += 1
        counted.last_ms, counted.port, counted.detail, counted.token_id = now_ms, port, detail, token_id

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
                service=self._service,
                client_id=rejection.client_id,
                subject=rejection.subject,
                tenant=rejection.tenant,
                token_id=counted.token_id,
                num_times=counted.num_times,
                first_ms=counted.first_ms,
                last_ms=counted.last_ms,
            )
            self._report(encode_event(event))

    async def run(self, is_heard: Callable[[], bool] = lambda: True) -> None:
        """Report every few seconds, for ever; while nobody hears it, they wait."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if is_heard():
                self.flush()
