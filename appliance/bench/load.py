"""The loop of one load process: requests go out as their time or their turn comes, answers come in as they stream.

Closed loop: a number of requests is open at any time. Open loop: each is sent at its time, however many are open; that is how
a server is found out that slows down under load and by that thins the load.
"""

import heapq
import select
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence

import httptools
import msgspec

from appliance.bench.connection import Answer, Connection
from appliance.bench.target import Target
from appliance.bench.workloads import Planned

_encoder = msgspec.json.Encoder()


class _Chain:
    """A planned chain under way: which request is next, and what has been said."""

    def __init__(self, planned: Planned, target: Target) -> None:
        self._planned = planned
        self._target = target
        self._turns = iter(planned.turns)
        self._messages: list[dict[str, str]] = []
        self.due_at = 0.0
        self.next_request: bytes | None = None
        self._prepare()

    def take(self, answer: Answer) -> None:
        """A request was answered; the next turn builds on it."""
        self._messages.append({"role": "assistant", "content": "".join(answer.texts)})
        self.next_request = None
        if not answer.error:
            self._prepare()

    def _prepare(self) -> None:
        common = {
            "model": self._target.model,
            "max_tokens": self._planned.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._target.ignores_eos:
            common["ignore_eos"] = True
        if self._planned.prompt and not self._messages:
            body = _encoder.encode({**common, "prompt": self._planned.prompt})
            self.next_request = self._target.request("/completions", body)
            return
        turn = next(self._turns, None)
        if turn is not None:
            self._messages.append({"role": "user", "content": turn})
            body = _encoder.encode({**common, "messages": self._messages})
            self.next_request = self._target.request("/chat/completions", body)


class Load:
    """Runs a plan against a target. Made, then `run` once."""

    def __init__(
        self,
        target: Target,
        plan: Sequence[Planned],
        *,
        concurrency: int,
        due_s: Sequence[float] | None,
        timeout_s: float,
        on_progress: Callable[[list[Answer]], None] = lambda _answers: None,
    ) -> None:
        """
        Args:
            concurrency: closed loop: chains open at a time; open loop: connections that `open_ahead` makes.
            due_s: open loop: when each chain begins, seconds from the start of `run`; None for the closed loop.
            timeout_s: longest wait for one answer.
            on_progress: called with all answers so far after each of them.
        """
        self._target = target
        self._tls = target.tls()
        self._plan = plan
        self._concurrency = concurrency
        self._due_s = due_s
        self._timeout_s = timeout_s
        self._on_progress = on_progress
        self._selector = selectors.DefaultSelector()
        self._idle: deque[Connection] = deque()
        """The one that has waited longest is taken next: many clients send now and then, not one all the time."""
        self._chains: dict[Connection, _Chain] = {}
        self._deadlines: list[tuple[float, int, Connection]] = []
        self.answers: list[Answer] = []

    def open_ahead(self) -> None:
        """Open the connections that the concurrency asks for, as clients have that were here before.

        Raises: OSError.
        """
        while len(self._idle) < self._concurrency:
            connection = self._connect()
            connection.open(self._timeout_s)
            self._idle.append(connection)

    def run(self) -> list[Answer]:
        """All answers, failed ones included, in the order of their ends."""
        chains = [_Chain(planned, self._target) for planned in self._plan]
        began = time.perf_counter()
        for chain, due_s in zip(chains, self._due_s or [0.0] * len(chains), strict=True):
            chain.due_at = began + due_s
        waiting = deque(chains)
        while waiting or self._chains:
            now = time.perf_counter()
            while waiting and self._may_start(waiting[0], now):
                self._start(waiting.popleft())
            self._poll(self._wait_s(waiting))
            self._give_up_late()
        for connection in self._idle:
            connection.sock.close()
        return self.answers

    def _may_start(self, chain: _Chain, now: float) -> bool:
        return len(self._chains) < self._concurrency if self._due_s is None else now >= chain.due_at

    def _wait_s(self, waiting: deque[_Chain]) -> float:
        if self._due_s is None or not waiting:
            return 1.0
        return max(0.0, waiting[0].due_at - time.perf_counter())

    def _start(self, chain: _Chain) -> None:
        # In the open loop the clock of a request runs from when it was due: a late generator must not flatter the server.
        started_at = time.perf_counter() if self._due_s is None else chain.due_at
        try:
            connection = self._idle.popleft() if self._idle else self._connect()
        except OSError as error:
            self.answers.append(Answer(started_at, error=f"no connection: {error}"))
            return
        self._send(connection, chain, started_at)

    def _connect(self) -> Connection:
        connection = Connection((self._target.host, self._target.port), self._tls, keeps_text=True)
        self._selector.register(connection.sock, selectors.EVENT_WRITE, connection)
        return connection

    def _send(self, connection: Connection, chain: _Chain, started_at: float) -> None:
        assert chain.next_request is not None
        self._chains[connection] = chain
        connection.send(chain.next_request, started_at)
        heapq.heappush(self._deadlines, (started_at + self._timeout_s, id(connection), connection))
        self._advance(connection)

    def _poll(self, wait_s: float) -> None:
        # epoll(7) waits whole milliseconds, select(2) microseconds: a request that is sent late is late for its client.
        select.select([self._selector], [], [], wait_s)
        for key, _mask in self._selector.select(0):
            self._advance(key.data)

    def _advance(self, connection: Connection) -> None:
        try:
            wanted = connection.advance()
        except (OSError, httptools.HttpParserError) as error:
            self._lose(connection, str(error) or type(error).__name__)
            return
        if self._selector.get_key(connection.sock).events != wanted:
            self._selector.modify(connection.sock, wanted, connection)
        answer = connection.take_answer()
        if answer is None:
            return
        chain = self._chains.pop(connection)
        self._record(answer)
        chain.take(answer)
        if chain.next_request is not None:
            self._send(connection, chain, time.perf_counter())
        else:
            self._idle.append(connection)

    def _lose(self, connection: Connection, reason: str) -> None:
        self._selector.unregister(connection.sock)
        connection.sock.close()
        chain = self._chains.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
        if chain is not None and connection.answer is not None:
            connection.answer.error = reason
            self._record(connection.answer)

    def _record(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._on_progress(self.answers)

    def _give_up_late(self) -> None:
        now = time.perf_counter()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, connection = heapq.heappop(self._deadlines)
            answer = connection.answer
            if answer is not None and now - answer.started_at >= self._timeout_s:
                self._lose(connection, f"no end after {self._timeout_s:g} s")
