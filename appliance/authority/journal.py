"""Appends to the audit log and waits until the record is durable. Without an auditor there is no record, so no token."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from appliance.errors import ApplianceFault, LinkClosed
from appliance.messages.audit import AppendEvent, AppendRefused, FetchUsage, Recorded, Usage, UsageRow


class JournalUnavailable(ApplianceFault):
    """The record could not be made durable now."""


class JournalRationed(JournalUnavailable):
    """Too many of the kind in this minute: it has no record of its own, and is counted in one that sums up.

    What is refused anyway may go on with that; what needs a record of its own MUST NOT.
    """


class AuditorLink(Protocol):
    """What is needed of `appliance.ipc.link.Link`."""

    def send(self, message: msgspec.Struct) -> None:
        """Raises: LinkClosed."""

    async def receive(self) -> Any:
        """Raises: LinkClosed."""


class Journal:
    """Records of one process, over whichever link to the auditor there is."""

    def __init__(self, *, timeout_s: float, on_other: Callable[[object], None] = lambda _message: None) -> None:
        """`on_other` is told what the auditor says unasked."""
        self._on_other = on_other
        self._timeout_s = timeout_s
        self._link: AuditorLink | None = None
        self._correlations = itertools.count(1)
        self._open: dict[int, asyncio.Future[int]] = {}
        self._usage: list[UsageRow] = []
        self._connected = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """There is an auditor to append to."""
        return self._link is not None

    async def run(self, link: AuditorLink) -> None:
        """Serve one link until it ends; whoever waits for a record on it is told at once.

        Raises: LinkClosed.
        """
        self._link = link
        self._connected.set()
        try:
            while True:
                match await link.receive():
                    case Recorded(correlation=correlation, index=index):
                        self._settle(correlation, index)
                    case AppendRefused() as refused:
                        reason = f"the auditor refused the record: {refused.code}: {refused.message}"
                        family = JournalRationed if refused.code == "rationed" else JournalUnavailable
                        self._fail(refused.correlation, family(reason))
                    case Usage() as usage:
                        self._usage.extend(usage.rows)
                        if usage.is_last:
                            self._settle(usage.correlation, len(self._usage))
                    case other:
                        self._on_other(other)
        finally:
            if self._link is link:
                self._link = None
                self._connected.clear()
                for correlation in list(self._open):
                    self._fail(correlation, JournalUnavailable("the auditor is gone"))

    async def connected(self) -> None:
        """Wait until there is an auditor."""
        await self._connected.wait()

    async def fetch_usage(self, since_ms: int) -> list[UsageRow]:
        """What was used since a time, oldest first, by what is recorded. One at a time; policy's only.

        Raises: JournalUnavailable.
        """
        self._usage = []
        await self._ask(lambda correlation: FetchUsage(correlation, since_ms))
        return self._usage

    async def record(self, event: bytes) -> int:
        """Append one canonical event.

        Returns: its index in the log, once it is durable.
        Raises: JournalUnavailable; the record may exist all the same, so what it announces MUST NOT happen. JournalRationed.
        """
        return await self._ask(lambda correlation: AppendEvent(correlation, event))

    def tell(self, event: bytes) -> None:
        """Append one that nobody waits for. Without an auditor it is dropped."""
        if self._link is not None:
            with suppress(LinkClosed):
                self._link.send(AppendEvent(next(self._correlations), event))

    async def _ask(self, build: Callable[[int], msgspec.Struct]) -> int:
        if self._link is None:
            raise JournalUnavailable("the auditor is away")
        correlation = next(self._correlations)
        recorded = self._open[correlation] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(build(correlation))
            async with asyncio.timeout(self._timeout_s):
                index: int = await recorded
                return index
        except LinkClosed as error:
            raise JournalUnavailable("the auditor is gone") from error
        except TimeoutError:
            raise JournalUnavailable(f"no record within {self._timeout_s:g} s") from None
        finally:
            del self._open[correlation]

    def _settle(self, correlation: int, index: int) -> None:
        waiting = self._open.get(correlation)
        if waiting is not None and not waiting.done():
            waiting.set_result(index)

    def _fail(self, correlation: int, fault: JournalUnavailable) -> None:
        waiting = self._open.get(correlation)
        if waiting is not None and not waiting.done():
            waiting.set_exception(fault)
