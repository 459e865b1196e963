"""The book of quotas: what each client has reserved, and what it may still take. One owner, in memory, no I/O.

A request reserves its prompt and a first block of output before it is computed, asks for further blocks as its answer
grows, and is settled when it ends: what it did not use goes back. Tokens count when they are reserved, never only afterwards.
A reservation belongs to the gateway link that made it: no other can extend or settle it, and it is given back when that link
ends.

A limit of 0 is none. Where tokens are not limited the whole output is covered at once.
"""

import math
from collections.abc import Callable, Hashable
from typing import Literal

import msgspec

from security.policy.bucket import TokenBucket

DenialCode = Literal["rate_limit", "quota_exhausted", "too_many_requests"]

NEVER_RETRY_S = 0
"""Waiting would not help."""


class QuotaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of each client; 0 means none."""

    max_concurrent_requests: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    block_tokens: int = 256


class QuotaGrant(msgspec.Struct, frozen=True):
    """The request may go on up to this many output tokens."""

    reservation: int
    output_tokens: int


class QuotaDenial(msgspec.Struct, frozen=True):
    """The request may not start, or not go on."""

    code: DenialCode
    message: str
    retry_after_s: int


class _Account:
    """One client's open requests and buckets."""

    __slots__ = ("num_open", "requests", "tokens")

    def __init__(self, limits: QuotaLimits, now_ns: int) -> None:
        self.num_open = 0
        self.requests = TokenBucket(limits.requests_per_minute, now_ns) if limits.requests_per_minute else None
        self.tokens = TokenBucket(limits.tokens_per_minute, now_ns) if limits.tokens_per_minute else None

    def is_idle(self, now_ns: int) -> bool:
        """True when forgetting the account would change nothing."""
        buckets = (bucket for bucket in (self.requests, self.tokens) if bucket is not None)
        return self.num_open == 0 and all(bucket.is_full(now_ns) for bucket in buckets)


class _Reservation(msgspec.Struct):
    """What an open request holds."""

    client_id: str
    owner: Hashable
    prompt_tokens: int
    output_tokens: int
    """Covered so far."""
    max_output_tokens: int


class QuotaBook:
    """Owner of all accounts and reservations."""

    def __init__(self, limits: QuotaLimits, *, clock_ns: Callable[[], int]) -> None:
        self._limits = limits
        self._clock_ns = clock_ns
        self._accounts: dict[str, _Account] = {}
        self._reservations: dict[int, _Reservation] = {}
        self._last_reservation = 0
        self._tokens_reserved = 0

    @property
    def num_reservations(self) -> int:
        """Open requests of all clients."""
        return len(self._reservations)

    @property
    def tokens_reserved(self) -> int:
        """Prompt and output tokens that open requests hold."""
        return self._tokens_reserved

    def reserve(
        self, client_id: str, owner: Hashable, *, prompt_tokens: int, max_output_tokens: int
    ) -> QuotaGrant | QuotaDenial:
        """Let a request start, or not. A refused one leaves no trace: it costs nothing of any limit."""
        now_ns = self._clock_ns()
        account = self._accounts.get(client_id) or _Account(self._limits, now_ns)
        first_block = self._first_block(max_output_tokens)
        denial = self._find_denial(account, prompt_tokens + first_block, now_ns)
        if denial is not None:
            return denial
        if account.requests is not None:
            account.requests.take(1, now_ns)
        if account.tokens is not None:
            account.tokens.take(prompt_tokens + first_block, now_ns)
        account.num_open += 1
        self._accounts[client_id] = account
        self._last_reservation += 1
        self._reservations[self._last_reservation] = _Reservation(
            client_id, owner, prompt_tokens, first_block, max_output_tokens
        )
        self._tokens_reserved += prompt_tokens + first_block
        return QuotaGrant(self._last_reservation, first_block)

    def extend(self, reservation: int, owner: Hashable) -> QuotaGrant | QuotaDenial:
        """Cover the next block of output; at the request's own limit the grant just repeats what is covered."""
        held = self._find(reservation, owner)
        if held is None:
            return QuotaDenial("quota_exhausted", "the reservation is not known; the request must end", NEVER_RETRY_S)
        block = min(self._limits.block_tokens, held.max_output_tokens - held.output_tokens)
        account, now_ns = self._accounts[held.client_id], self._clock_ns()
        if account.tokens is not None and not account.tokens.take(block, now_ns):
            return self._deny_tokens("quota_exhausted", account.tokens, block, now_ns)
        held.output_tokens += block
        self._tokens_reserved += block
        return QuotaGrant(reservation, held.output_tokens)

    def settle(self, reservation: int, owner: Hashable, *, prompt_tokens: int, output_tokens: int) -> bool:
        """End a reservation at what was really used. More than was reserved is not possible, and counts as all of it.

        Returns: whether there was such a reservation.
        """
        held = self._find(reservation, owner)
        if held is None:
            return False
        self._close(reservation, min(prompt_tokens, held.prompt_tokens) + min(output_tokens, held.output_tokens))
        return True

    def release_owner(self, owner: Hashable) -> int:
        """The owner is gone. Its requests were cut, but how much of each was computed nobody says: all of it counts as used.

        Returns: how many reservations ended.
        """
        numbers = [number for number, held in self._reservations.items() if held.owner == owner]
        for number in numbers:
            held = self._reservations[number]
            self._close(number, held.prompt_tokens + held.output_tokens)
        return len(numbers)

    def forget_idle(self) -> None:
        """Drop accounts that are as good as new, so that memory follows the clients that are active."""
        now_ns = self._clock_ns()
        for client_id in [one for one, account in self._accounts.items() if account.is_idle(now_ns)]:
            del self._accounts[client_id]

    def check_integrity(self) -> None:
        """Conservation: counters equal what the reservations say, and no bucket is outside its bounds."""
        now_ns = self._clock_ns()
        assert self._tokens_reserved == sum(
            one.prompt_tokens + one.output_tokens for one in self._reservations.values()
        )
        num_open: dict[str, int] = {}
        for held in self._reservations.values():
            num_open[held.client_id] = num_open.get(held.client_id, 0) + 1
            assert 0 <= held.output_tokens <= held.max_output_tokens
        for client_id, account in self._accounts.items():
            assert account.num_open == num_open.get(client_id, 0)
            assert not self._limits.max_concurrent_requests or account.num_open <= self._limits.max_concurrent_requests
            for bucket in (account.requests, account.tokens):
                assert bucket is None or 0 <= bucket.available(now_ns) <= bucket.per_minute
        assert num_open.keys() <= self._accounts.keys()

    def _first_block(self, max_output_tokens: int) -> int:
        if not self._limits.tokens_per_minute:
            return max_output_tokens
        return min(self._limits.block_tokens, max_output_tokens)

    def _find(self, reservation: int, owner: Hashable) -> _Reservation | None:
        held = self._reservations.get(reservation)
        return held if held is not None and held.owner == owner else None

    def _close(self, reservation: int, used: int) -> None:
        held = self._reservations.pop(reservation)
        account = self._accounts[held.client_id]
        reserved = held.prompt_tokens + held.output_tokens
        account.num_open -= 1
        self._tokens_reserved -= reserved
        if account.tokens is not None:
            account.tokens.give_back(reserved - used, self._clock_ns())

    def _find_denial(self, account: _Account, tokens: int, now_ns: int) -> QuotaDenial | None:
        limit = self._limits.max_concurrent_requests
        if limit and account.num_open >= limit:
            return QuotaDenial("too_many_requests", f"{account.num_open} requests are open, the limit is {limit}", 1)
        if account.requests is not None and not account.requests.available(now_ns):
            wait_ns = account.requests.wait_ns(1, now_ns)
            return QuotaDenial(
                "rate_limit", f"the limit is {account.requests.per_minute} requests per minute", _seconds(wait_ns)
            )
        if account.tokens is not None and account.tokens.available(now_ns) < tokens:
            return self._deny_tokens("rate_limit", account.tokens, tokens, now_ns)
        return None

    def _deny_tokens(self, code: DenialCode, bucket: TokenBucket, tokens: int, now_ns: int) -> QuotaDenial:
        wait_ns = bucket.wait_ns(tokens, now_ns)
        if wait_ns is None:
            return QuotaDenial(
                "quota_exhausted",
                f"{tokens} tokens are needed at once, and the limit is {bucket.per_minute} per minute",
                NEVER_RETRY_S,
            )
        message = (
            f"{tokens} tokens are needed, and of {bucket.per_minute} per minute {bucket.available(now_ns)} are left"
        )
        return QuotaDenial(code, message, _seconds(wait_ns))


def _seconds(wait_ns: int | None) -> int:
    return NEVER_RETRY_S if wait_ns is None else max(1, math.ceil(wait_ns / 10**9))
