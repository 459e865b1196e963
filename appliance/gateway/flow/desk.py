"""What all answers of one worker share: the peers, the limits, and the list of who is open."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from appliance.gateway.errors import Draining, GatewayFault, Overloaded
from appliance.gateway.flow.bodies import Bodies, BodyPolicy
from appliance.gateway.flow.hashing import Hashers
from appliance.gateway.metrics import Metrics
from appliance.gateway.peers.auditor import AuditorPeer
from appliance.gateway.peers.compiler import CompilerPeer
from appliance.gateway.peers.engines import Engines
from appliance.gateway.peers.policy import PolicyPeer
from appliance.gateway.peers.reader import ReaderPeer
from appliance.gateway.settings import GatewaySettings

READER_TIMEOUT_S = 30.0
"""A search may wait for the index, which is built beside."""


class Open(Protocol):
    """An answer in progress."""

    def fail(self, fault: GatewayFault) -> None:
        """End it."""
        ...


class Desk:
    """One worker's own. The auditor's loss ends every open answer at once."""

    def __init__(
        self, settings: GatewaySettings, metrics: Metrics, served: Sequence[str], bodies: BodyPolicy = BodyPolicy()
    ) -> None:
        """`served`: the model of each engine, by its instance."""
        self.settings = settings
        self.metrics = metrics
        self.engines = Engines(served)
        self.compiler = CompilerPeer(settings.grammar_cache_bytes)
        self.policy = PolicyPeer(settings.peer_timeout_s)
        self.auditor = AuditorPeer(settings.peer_timeout_s, self.fail_all)
        self.hashers = Hashers(bodies.recipients, self.auditor)
        self.bodies = Bodies(bodies, self.auditor)
        self.reader = ReaderPeer(READER_TIMEOUT_S)
        self.draining = False
        self._open: set[Open] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()

    @property
    def num_open(self) -> int:
        """Answers in progress."""
        return len(self._open)

    def open(self, answer: Open) -> None:
        """Let an answer begin. Raises: Draining, Overloaded."""
        self.verify_accepting()
        self._open.add(answer)
        self._emptied.clear()

    def verify_accepting(self) -> None:
        """Refuse early, before anything of a request costs much. Raises: Draining, Overloaded, PeerUnavailable."""
        if self.draining:
            raise Draining("draining", "the appliance is stopping", retry_after_s=5)
        if len(self._open) >= self.settings.max_open_requests:
            raise Overloaded("overloaded", f"this worker serves {len(self._open)} requests already")
        self.auditor.verify_connected()
        self.policy.verify_connected()

    def close(self, answer: Open) -> None:
        """An answer ended."""
        self._open.discard(answer)
        if not self._open:
            self._emptied.set()

    def fail_all(self, fault: GatewayFault) -> None:
        """End every open answer."""
        for answer in list(self._open):
            answer.fail(fault)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, let the open answers end, and cut what is left after the time."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
        except TimeoutError:
            self.fail_all(Draining("draining", "the appliance is stopping", retry_after_s=5))
            try:
                async with asyncio.timeout(2.0):
                    await self._emptied.wait()
            except TimeoutError:
                return
