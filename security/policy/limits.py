"""How much of the appliance somebody may take: five numbers, for each of four subjects.

A request counts against its client, the person it is for (where that is not the client itself), the tenant and the model, each with
the limits that were set for it by name, or else for `*`, or else by the configuration. 0 means no limit.
"""

from typing import Literal, get_args

import msgspec

from security.errors import ClientRejected

LimitSubject = Literal["client", "user", "tenant", "model"]
Subject = tuple[LimitSubject, str]
"""With its name."""
LIMIT_SUBJECTS: tuple[LimitSubject, ...] = get_args(LimitSubject)
MAX_LIMIT = 10**12


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one subject may take; 0 means no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    """Of a day in UTC."""
    tokens_in_flight: int = 0
    """Reserved by open requests together."""
    concurrent_requests: int = 0

    @property
    def counts_tokens(self) -> bool:
        """Output must be covered in blocks."""
        return bool(self.tokens_per_minute or self.tokens_per_day or self.tokens_in_flight)


NO_LIMITS = Limits()


class LimitRule(msgspec.Struct, frozen=True):
    """The limits of one subject by name, or of `*`."""

    subject: LimitSubject
    name: str
    limits: Limits


def verify_rule(rule: LimitRule) -> None:
    """Raises: ClientRejected, naming the field."""
    if rule.subject not in LIMIT_SUBJECTS:
        raise ClientRejected(f"subject {str(rule.subject)[:40]!r}: expected one of {', '.join(LIMIT_SUBJECTS)}")
    if not 0 < len(rule.name) <= 256 or not rule.name.isprintable():
        raise ClientRejected("name: expected 1 to 256 printable characters, or * for all others")
    for field, number in msgspec.structs.asdict(rule.limits).items():
        if not 0 <= number <= MAX_LIMIT:
            raise ClientRejected(f"{field}: expected 0 (no limit) to {MAX_LIMIT}, got {number}")


class LimitTable:
    """Which limits a subject has."""

    def __init__(self, rules: tuple[LimitRule, ...], defaults: dict[LimitSubject, Limits]) -> None:
        self._rules = {(rule.subject, rule.name): rule.limits for rule in rules}
        self._defaults = defaults

    def find(self, subject: LimitSubject, name: str) -> Limits:
        """By name, or for `*`, or by default."""
        found = self._rules.get((subject, name)) or self._rules.get((subject, "*"))
        return found or self._defaults.get(subject, NO_LIMITS)
