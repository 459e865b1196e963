"""Tickets as the auditor mints them."""

import hashlib

from appliance.messages.audit import Ticket
from appliance.messages.engine import Submit
from audit.ticket import mint_ticket


def ticket_for(
    submit: Submit, *, key: bytes, index: int, worker: int, token_limit: int, expires_at_ms: int, model: str = "demo"
) -> Ticket:
    """The ticket that holds for a worker's request."""
    mac = mint_ticket(
        key,
        worker=worker,
        request_id=submit.request_id,
        index=index,
        model=model,
        prompt_digest=hashlib.sha256(submit.prompt).digest(),
        token_limit=token_limit,
        expires_at_ms=expires_at_ms,
    )
    return Ticket(worker, submit.request_id, index, model, token_limit, expires_at_ms, mac)
