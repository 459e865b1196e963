"""What policy hears of use: what was used when it asks, and what each request came to that the auditor closed itself."""

from collections import deque
from collections.abc import Callable

from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, Send
from appliance.auditor.usage import UsageBook, lost_request, recover_usage
from appliance.messages.audit import AppendRefused, FetchUsage, LostRequest, Usage
from audit.entry import Json
from audit.rotation import Predecessor

MAX_UNTOLD = 10_000
"""Of lost requests, while there is no policy to be told."""


class UsageDesk:
    """One auditor's. The log is read back when policy first asks; before, outcomes need not be counted."""

    def __init__(
        self,
        ledger: Ledger,
        send: Send,
        clock: Clock,
        predecessor: Predecessor | None,
        progress: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._send = send
        self._clock = clock
        self._predecessor = predecessor
        self._progress = progress
        self._book: UsageBook | None = None
        self._policies: list[Peer] = []
        self._untold: deque[LostRequest] = deque(maxlen=MAX_UNTOLD)

    def policy_came(self, peer: Peer) -> None:
        """It is told of lost requests from now on, and of those of before that nobody was told of."""
        self._policies.append(peer)
        while self._untold:
            self._send(peer, self._untold.popleft())

    def policy_left(self, peer: Peer) -> None:
        """No more; one that never came may leave."""
        if peer in self._policies:
            self._policies.remove(peer)

    def fetch(self, peer: Peer, message: FetchUsage) -> None:
        """Answer policy, and refuse anybody else."""
        if peer.peer_role != "policy":
            self._send(peer, AppendRefused(message.correlation, "not_permitted", "usage is for policy"))
            return
        if self._book is None:
            self._book = recover_usage(self._ledger.writer, self._clock.utc_ms, self._progress, self._predecessor)
        for rows, is_last in self._book.pages(message.since_ms):
            self._send(peer, Usage(message.correlation, rows, is_last))

    def note(self, event: Json) -> None:
        """An outcome is durable."""
        if self._book is not None:
            self._book.note(event, self._clock.utc_ms())

    def note_lost(self, event: Json, reservation: object) -> None:
        """The auditor made an outcome itself; see `lost_request`."""
        lost = lost_request(event, reservation)
        if lost is None:
            return
        if not self._policies:
            self._untold.append(lost)
        for policy in self._policies:
            self._send(policy, lost)
