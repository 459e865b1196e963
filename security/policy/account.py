"""One subject's use of its limits: what it has open, and what it may still take. Pure; times are the caller's.

Requests and tokens per minute are buckets that refill steadily. Lookups, which take no tokens, have a bucket of their own, as large
as that of requests: whoever has each prompt's tokens counted first may still ask as often. Tokens per day are counted by the day in
UTC, so that everybody knows when they come back, and a book that is written anew from the log comes to the same number.
"""

import msgspec

from security.policy.bucket import TokenBucket
from security.policy.limits import Limits

DAY_S = 86_400


class Now(msgspec.Struct, frozen=True):
    """One moment on both clocks."""

    monotonic_ns: int
    day: int
    """Days since the epoch, in UTC."""
    day_left_s: int
    """Seconds until the next day."""


class Account:
    """One subject's open requests, buckets and day."""

    __slots__ = ("day", "day_tokens", "in_flight", "limits", "lookups", "num_open", "requests", "tokens")

    def __init__(self, limits: Limits, now: Now) -> None:
        self.limits = limits
        self.num_open = 0
        self.in_flight = 0
        """Tokens that open requests hold."""
        self.day = now.day
        self.day_tokens = 0
        """Tokens used or held in that day."""
        self.requests = _bucket(limits.requests_per_minute, now)
        self.lookups = _bucket(limits.requests_per_minute, now)
        self.tokens = _bucket(limits.tokens_per_minute, now)

    def is_idle(self, now: Now) -> bool:
        """True when forgetting the account would change nothing, under the limits that it has now."""
        self.turn(now)
        if self.limits.tokens_per_day and self.day_tokens:
            return False
        buckets = (bucket for bucket in (self.requests, self.lookups, self.tokens) if bucket is not None)
        return self.num_open == 0 and all(one.is_full(now.monotonic_ns) for one in buckets)

    def change_limits(self, limits: Limits, now: Now) -> None:
        """Other limits from now on; what was taken stays taken."""
        self.limits = limits
        self.requests = _resize(self.requests, limits.requests_per_minute, now)
        self.lookups = _resize(self.lookups, limits.requests_per_minute, now)
        self.tokens = _resize(self.tokens, limits.tokens_per_minute, now)

    def turn(self, now: Now) -> None:
        """A new day begins with nothing used; a clock that goes back does not bring one back."""
        if now.day > self.day:
            self.day, self.day_tokens = now.day, 0

    def open(self, tokens: int, now: Now) -> None:
        """A request starts, which MUST have been found to fit."""
        if self.requests is not None:
            self.requests.take(1, now.monotonic_ns)
        self.num_open += 1
        self.hold(tokens, now)

    def look_up(self, now: Now) -> None:
        """A lookup, which MUST have been found to fit."""
        if self.lookups is not None:
            self.lookups.take(1, now.monotonic_ns)

    def hold(self, tokens: int, now: Now) -> None:
        """Hold more for an open request, which MUST have been found to fit."""
        if self.tokens is not None:
            self.tokens.take(tokens, now.monotonic_ns)
        self.turn(now)
        self.in_flight += tokens
        self.day_tokens += tokens

    def reopen(self, tokens: int, now: Now) -> None:
        """A request goes on that an earlier life of the book let start: its tokens are held whether they fit or not."""
        self.num_open += 1
        self.charge(0, tokens, now, is_today=True)
        self.in_flight += tokens

    def close(self, held: int, unused: int, unused_today: int, now: Now, *, gives_back: bool) -> None:
        """A request ended: what it held and did not use goes back, to the day only what was held in that day.

        Args:
            gives_back: the request itself goes back as well: it was never begun.
        """
        self.num_open -= 1
        if self.requests is not None and gives_back:
            self.requests.give_back(1, now.monotonic_ns)
        self.in_flight -= held
        self.give_back(unused, unused_today, now)

    def give_back(self, unused: int, unused_today: int, now: Now) -> None:
        """What counted as used was not."""
        self.turn(now)
        self.day_tokens = max(0, self.day_tokens - unused_today)
        if self.tokens is not None:
            self.tokens.give_back(unused, now.monotonic_ns)

    def charge(self, requests: int, tokens: int, now: Now, *, is_today: bool) -> None:
        """Count what was used before, as the log tells it."""
        self.turn(now)
        if self.requests is not None:
            self.requests.charge(requests, now.monotonic_ns)
        if self.tokens is not None:
            self.tokens.charge(tokens, now.monotonic_ns)
        if is_today:
            self.day_tokens += tokens


def _bucket(per_minute: int, now: Now) -> TokenBucket | None:
    return TokenBucket(per_minute, now.monotonic_ns) if per_minute else None


def _resize(bucket: TokenBucket | None, per_minute: int, now: Now) -> TokenBucket | None:
    if bucket is None or not per_minute:
        return _bucket(per_minute, now)
    bucket.resize(per_minute, now.monotonic_ns)
    return bucket
