"""Accepts each ticket once. The MAC is `audit.ticket`'s; here it is bound to the worker and the prompt that really came.

What always holds: no ticket is accepted twice, none without the key of the living auditor, none after its expiry, and a
ticket for one worker, request, prompt, model or length is good for no other.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from appliance.messages.audit import MAX_REASON_CHARS, Ticket, TicketsRefused
from appliance.messages.engine import RequestRefused, Submit
from audit.errors import TicketRejected
from audit.ticket import verify_ticket
from runtime.errors import EngineUnavailable, QueueFull, RequestRejected

BAD_TICKET = "bad_ticket"
"""The code of a refusal. A gateway that does as it should never gets it."""
MAX_EARLY_TICKETS = 1024
"""Of one worker. Those whose requests were refused wait here too, until later ones push them out."""


class TicketGate:
    """Owner of the ticket key and of the set of tickets that were used and have not expired."""

    def __init__(self, model: str, now_ms: Callable[[], int]) -> None:
        """`now_ms` is UTC in milliseconds since the epoch, the clock of `Ticket.expires_at_ms`."""
        self._model = model
        self._now_ms = now_ms
        self._key: bytes | None = None
        self._used: dict[int, int] = {}
        self._latest_ms = 0

    @property
    def is_open(self) -> bool:
        """True while an auditor has given us a key."""
        return self._key is not None

    def set_key(self, key: bytes | None) -> None:
        """Take the key of a new auditor's life, or None when it is gone. Old tickets are worth nothing afterwards."""
        self._key = key
        self._used.clear()

    def verify_open(self) -> bytes:
        """The key. Raises: EngineUnavailable without an auditor."""
        if self._key is None:
            raise EngineUnavailable("the auditor is away: nothing may be computed that cannot be recorded")
        return self._key

    def verify(self, worker: int, submit: Submit, ticket: Ticket) -> None:
        """Check that the auditor has a durable intent for exactly this request of this worker, and spend the ticket.

        Args:
            worker: the number of the worker whose link the request came on.
        Raises: EngineUnavailable without an auditor; RequestRejected for a ticket that does not hold.
        """
        key = self.verify_open()
        # Never backwards: a ticket that was forgotten as expired must not be good again after the clock was set back.
        now_ms = self._latest_ms = max(self._latest_ms, self._now_ms())
        if ticket.model != self._model:
            raise RequestRejected(
                BAD_TICKET, f"the ticket is for model {ticket.model!r}, this engine serves {self._model!r}"
            )
        if submit.n * submit.sampling.max_tokens > ticket.token_limit:
            raise RequestRejected(
                BAD_TICKET, f"the ticket allows {ticket.token_limit} tokens, the request asks for more"
            )
        if ticket.index in self._used:
            raise RequestRejected(BAD_TICKET, f"the ticket of intent {ticket.index} was used before")
        try:
            verify_ticket(
                key,
                worker=worker,
                request_id=submit.request_id,
                index=ticket.index,
                model=ticket.model,
                prompt_digest=hashlib.sha256(submit.prompt).digest(),
                token_limit=ticket.token_limit,
                expires_at_ms=ticket.expires_at_ms,
                mac=ticket.mac,
                now_ms=now_ms,
            )
        except TicketRejected as rejected:
            raise RequestRejected(BAD_TICKET, str(rejected)) from rejected
        self._used[ticket.index] = ticket.expires_at_ms
        self._forget_expired(now_ms)

    def _forget_expired(self, now_ms: int) -> None:
        """Look at the oldest few; one that lives on goes to the back, so that it does not stand before others for ever."""
        for index in list(islice(self._used, 4)):
            expires_at_ms = self._used.pop(index)
            if expires_at_ms >= now_ms:
                self._used[index] = expires_at_ms


class EarlyTickets:
    """Tickets whose requests are not here: auditor and worker have links of their own, and either may be the first."""

    def __init__(self) -> None:
        self._workers: dict[int, OrderedDict[int, Ticket]] = {}

    def put(self, ticket: Ticket) -> None:
        """Keep a ticket; of a worker that has too many the oldest goes, whose request would have come long ago.

        Raises: RequestRejected for a second one for the same request.
        """
        tickets = self._workers.setdefault(ticket.worker, OrderedDict())
        if ticket.request_id in tickets:
            raise RequestRejected(
                BAD_TICKET, f"intent {ticket.index} names request {ticket.request_id}, as another intent does"
            )
        tickets[ticket.request_id] = ticket
        if len(tickets) > MAX_EARLY_TICKETS:
            tickets.popitem(last=False)

    def take(self, worker: int, request_id: int) -> Ticket | None:
        """The ticket of a request, if it has come."""
        tickets = self._workers.get(worker)
        return None if tickets is None else tickets.pop(request_id, None)

    def forget(self, worker: int) -> None:
        """This worker asks for nothing any more."""
        self._workers.pop(worker, None)

    def clear(self) -> None:
        """Their key is worth nothing any more."""
        self._workers.clear()


class RefusedTickets:
    """What the auditor has yet to be told of tickets that did not hold, or never came."""

    def __init__(self) -> None:
        self._num_refused = 0
        self._reason = ""

    def note(self, error: Exception) -> None:
        """Count an error if it is about a ticket."""
        if isinstance(error, RequestRejected) and error.code == BAD_TICKET:
            self._num_refused += 1
            self._reason = str(error)[:MAX_REASON_CHARS]

    def take(self) -> TicketsRefused | None:
        """All since the last time, or None."""
        if not self._num_refused:
            return None
        refused = TicketsRefused(self._num_refused, self._reason)
        self._num_refused = 0
        return refused


def refusal_of(request_id: int, error: Exception) -> RequestRefused:
    """What a worker is told of an error."""
    match error:
        case RequestRejected():
            return RequestRefused(request_id, error.code, str(error), error.parameter)
        case QueueFull():
            return RequestRefused(request_id, "queue_full", str(error))
        case _:
            return RequestRefused(request_id, "engine_unavailable", str(error))
