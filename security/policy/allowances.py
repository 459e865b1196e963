"""What is left of limits: what `x-ratelimit-*` headers say. Pure."""

from collections.abc import Sequence

import msgspec

from security.policy.account import Now
from security.policy.bucket import TokenBucket


class Allowance(msgspec.Struct, frozen=True):
    """What is left of the tightest limit of one kind."""

    limit: int
    remaining: int
    reset_ms: int
    """Until all of it is there again."""


class Allowances(msgspec.Struct, frozen=True):
    """What `x-ratelimit-*` headers say; None where nothing is limited."""

    requests: Allowance | None
    tokens: Allowance | None
    day_tokens: Allowance | None


def least_left(buckets: Sequence[TokenBucket | None], now: Now) -> Allowance | None:
    """Of several subjects' buckets the one with the least in it; None where none is limited."""
    ns = now.monotonic_ns
    return tightest(
        [
            Allowance(bucket.per_minute, bucket.available(ns), bucket.full_in_ns(ns) // 10**6)
            for bucket in buckets
            if bucket is not None
        ]
    )


def tightest(allowances: list[Allowance]) -> Allowance | None:
    """The one with the least left."""
    return min(allowances, key=lambda one: one.remaining, default=None)
