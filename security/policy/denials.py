"""Why one subject's limits do not let a request start, or go on: which limit, how much of it is left, when to come back. Pure."""

import math
from typing import Literal

import msgspec

from security.policy.account import Account, Now
from security.policy.bucket import TokenBucket
from security.policy.limits import Subject

DenialCode = Literal["rate_limit", "quota_exhausted", "too_many_requests"]

NEVER_RETRY_S = 0
"""Waiting would not help."""


class QuotaDenial(msgspec.Struct, frozen=True):
    """The request may not start, or not go on."""

    code: DenialCode
    message: str
    retry_after_s: int


def find_denial(
    subject: Subject, account: Account, tokens: int, now: Now, *, num_further: int = 0, is_further: bool = False
) -> QuotaDenial | None:
    """Why a request of so many tokens may not start; None if it may, as far as this subject goes.

    Args:
        num_further: prompts of a list that come behind it, each a request of its own. A list of more than may be open starts where
            nothing else is.
        is_further: it is one of those: its list has started.
    """
    limit = account.limits.concurrent_requests
    if limit and not is_further and account.num_open and account.num_open + num_further >= limit:
        message = f"{_words(subject)}: {account.num_open} requests are open, the limit is {limit}"
        if num_further:
            message += f", and each of {1 + num_further} prompts is one"
        return QuotaDenial("too_many_requests", message, 1)
    denial = _find_rate_denial(subject, account.requests, now, 1 + num_further)
    return denial or find_token_denial(subject, account, tokens, now, "rate_limit")


def find_lookup_denial(subject: Subject, account: Account, now: Now) -> QuotaDenial | None:
    """The same for a lookup, which takes no tokens and is over at once."""
    return _find_rate_denial(subject, account.lookups, now)


def find_token_denial(
    subject: Subject, account: Account, tokens: int, now: Now, code: DenialCode
) -> QuotaDenial | None:
    """The same for tokens alone. `code`: of a denial that is about now."""
    who, limits = _words(subject), account.limits
    account.turn(now)
    for limit, used, span, wait_s in (
        (limits.tokens_in_flight, account.in_flight, "in flight", 1),
        (limits.tokens_per_day, account.day_tokens, "per day", now.day_left_s),
    ):
        if limit and tokens > limit:
            return _never(who, tokens, limit, span)
        if limit and used + tokens > limit:
            message = f"{who}: {tokens} tokens are needed, and of {limit} {span} {limit - used} are left"
            return QuotaDenial(code, message, wait_s)
    bucket = account.tokens
    if bucket is None or bucket.available(now.monotonic_ns) >= tokens:
        return None
    wait_ns = bucket.wait_ns(tokens, now.monotonic_ns)
    if wait_ns is None:
        return _never(who, tokens, bucket.per_minute, "per minute")
    left = bucket.available(now.monotonic_ns)
    message = f"{who}: {tokens} tokens are needed, and of {bucket.per_minute} per minute {left} are left"
    return QuotaDenial(code, message, _seconds(wait_ns))


def _find_rate_denial(subject: Subject, bucket: TokenBucket | None, now: Now, needed: int = 1) -> QuotaDenial | None:
    if bucket is None or bucket.available(now.monotonic_ns) >= needed:
        return None
    message = f"{_words(subject)}: the limit is {bucket.per_minute} requests per minute"
    if needed > 1:
        message += f", and each of {needed} prompts is one"
    wait_ns = bucket.wait_ns(needed, now.monotonic_ns)
    return QuotaDenial("quota_exhausted" if wait_ns is None else "rate_limit", message, _seconds(wait_ns))


def _never(who: str, tokens: int, limit: int, span: str) -> QuotaDenial:
    message = f"{who}: {tokens} tokens are needed at once, and the limit is {limit} {span}"
    return QuotaDenial("quota_exhausted", message, NEVER_RETRY_S)


def _words(subject: Subject) -> str:
    return f"{subject[0]} {subject[1][:128]}"


def _seconds(wait_ns: int | None) -> int:
    return NEVER_RETRY_S if wait_ns is None else max(1, math.ceil(wait_ns / 10**9))
