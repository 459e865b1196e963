"""Questions that wait for their answer on one link, told apart by a correlation number."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from appliance.errors import LinkClosed
from appliance.gateway.errors import GatewayFault, PeerUnavailable
from appliance.gateway.peers.links import Link


class Questions:
    """The open questions to one peer, over whichever link there is."""

    def __init__(self, code: str, name: str, timeout_s: float) -> None:
        """`code` and `name` say in errors who is away."""
        self._code = code
        self._name = name
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[float, asyncio.Future[Any]]] = {}
        """With the time at which each fails, the oldest first: all have the same."""
        self._expected: dict[int, Callable[[Any], None]] = {}
        self._belated: dict[int, Callable[[Any], None]] = {}
        """Who takes the answer of a question once nobody waits for it any more."""
        self._timer: asyncio.TimerHandle | None = None
        """One serves all questions: thousands of them a second have their price."""

    @property
    def connected(self) -> bool:
        """There is a link."""
        return self._link is not None

    def unavailable(self, reason: str = "is not available") -> PeerUnavailable:
        """The error that says this peer is away."""
        return PeerUnavailable(self._code, f"{self._name} {reason}")

    def verify_connected(self) -> None:
        """Raises: PeerUnavailable without a link."""
        if self._link is None:
            raise self.unavailable()

    def attach(self, link: Link) -> None:
        """Ask on this link from now on."""
        self._link, self._loop = link, asyncio.get_running_loop()

    def detach(self, link: Link) -> bool:
        """The link ended: nobody will answer what was asked on it. False if another has taken its place."""
        if self._link is not link:
            return False
        self._link = None
        self._fail_all(self.unavailable("was lost"))
        return True

    def tell(self, message: msgspec.Struct) -> None:
        """Send what is not answered; without a link it is dropped."""
        if self._link is not None:
            try:
                self._link.send(message)
            except LinkClosed:
                return

    def expect(self, then: Callable[[Any], None]) -> int:
        """A number for a question whose answer, or the fault that there will be none, goes to `then`."""
        number = next(self._numbers)
        self._expected[number] = then
        return number

    def ask(
        self, build: Callable[[int], msgspec.Struct], if_late: Callable[[Any], None] | None = None
    ) -> "asyncio.Future[Any]":
        """Send a question now; its answer is to be awaited.

        Args:
            if_late: takes an answer that comes over the same link when it is awaited no more: what the peer holds for us by then,
                somebody must give back.
        Raises: PeerUnavailable without a link; awaiting raises it when the link ends meanwhile, and when no answer comes in time.
        """
        if self._link is None:
            raise self.unavailable()
        number = next(self._numbers)
        message = build(number)
        loop = self._loop
        answer = loop.create_future()
        self._open[number] = (loop.time() + self._timeout_s, answer)
        if if_late is not None:
            self._belated[number] = if_late
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._fail_late)
        try:
            self._link.send(message)
        except LinkClosed as closed:
            self._open.pop(number, None)
            self._belated.pop(number, None)
            raise self.unavailable("was lost") from closed
        return answer

    def answer(self, number: int, answer: Any) -> None:
        """An answer came; one that nobody waits for any more is dropped, unless it was asked for with `if_late`."""
        _, waiting = self._open.pop(number, (0.0, None))
        if_late = self._belated.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        elif (then := if_late or self._expected.pop(number, None)) is not None:
            then(answer)

    def _fail_late(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for number, (deadline, waiting) in list(self._open.items()):
            if deadline > now:
                self._timer = loop.call_at(deadline, self._fail_late)
                return
            del self._open[number]
            if not waiting.done():
                waiting.set_exception(self.unavailable(f"did not answer within {self._timeout_s:g} s"))

    def _fail_all(self, fault: GatewayFault) -> None:
        self._belated.clear()
        expected, self._expected = self._expected, {}
        for then in expected.values():
            then(fault)
        asked, self._open = self._open, {}
        for _, waiting in asked.values():
            if not waiting.done():
                waiting.set_exception(fault)
