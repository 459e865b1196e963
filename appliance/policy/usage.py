"""What policy learns of use from the log: at a start what was used since midnight and in the last hour, and from then on what
requests came to whose gateway died.
"""

import time
from collections.abc import Callable

import structlog

from appliance.authority.journal import Journal
from appliance.messages.audit import LostRequest, UsageRow
from security.policy.account import DAY_S
from security.policy.limits import Subject
from security.policy.quotas import QuotaBook

HOUR_S = 3600
_MINUTE_S = 60

log = structlog.get_logger(__name__)


async def charge_recorded_usage(book: QuotaBook, journal: Journal, *, utc_s: Callable[[], float] = time.time) -> int:
    """Count in `book` what ended before it was begun. Open requests come back by themselves, as gateways resume them.

    Returns: how many rows there were.
    Raises: JournalUnavailable.
    """
    now = utc_s()
    since_s = min(now - now % DAY_S, now - HOUR_S)
    rows = await journal.fetch_usage(int(since_s * 1000))
    for row in rows:
        # A minute's sum counts as taken at its end: a bucket never holds more than it would have.
        at_s = min(now, (row.minute + 1) * _MINUTE_S - 0.001)
        book.charge(_subjects(row), requests=row.requests, tokens=row.tokens, at_s=at_s)
    if rows:
        log.info("quotas_recovered", rows=len(rows))
    return len(rows)


def correct_lost(book: QuotaBook, message: object) -> None:
    """What the auditor tells unasked. A request whose count no engine told keeps all that it had reserved."""
    if isinstance(message, LostRequest):
        book.correct(message.reservation, _subjects(message), message.tokens)


def _subjects(row: UsageRow | LostRequest) -> tuple[Subject, ...]:
    client: Subject = ("client", row.client_id)
    user: tuple[Subject, ...] = () if row.subject == row.client_id else (("user", row.subject),)
    return (client, *user, ("tenant", row.tenant), ("model", row.model))
