"""Accepts each ticket once. The MAC is `audit.ticket`'s; here it is bound to the prompt that really came.

What always holds: no ticket is accepted twice, none without the key of the living auditor, none after its expiry, and a
ticket for one prompt, model or length is good for no other.
"""

import hashlib
from collections.abc import Callable
from itertools import islice

from appliance.messages.engine import Submit
from audit.errors import TicketRejected
from audit.ticket import verify_ticket
from runtime.errors import EngineUnavailable, RequestRejected

BAD_TICKET = "bad_ticket"
"""The code of a refusal. A gateway that does as it should never gets it."""


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

    def verify(self, submit: Submit) -> None:
        """Check that the auditor has a durable intent for exactly this request, and spend the ticket.

        Raises: EngineUnavailable without an auditor; RequestRejected for a ticket that does not hold.
        """
        if self._key is None:
            raise EngineUnavailable("the auditor is away: nothing may be computed that cannot be recorded")
        ticket = submit.ticket
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
                self._key,
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
