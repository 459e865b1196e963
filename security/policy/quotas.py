"""The book of quotas: what everybody has reserved, and what they may still take. One owner, in memory, no I/O.

A request counts against up to four subjects (client, person, tenant, model): it starts only if it fits all of them, and
then takes from all. It reserves its prompt and a first block of output before it is computed, asks for further blocks as its
answer grows, and is settled when it ends: what it did not use goes back. Tokens count when they are reserved, never only
afterwards.

A reservation belongs to the gateway link that made it: no other can extend or settle it, and it ends with that link; all of it
counts as used then, until the auditor tells what the engine counted (`correct`). A book that was lost is written anew from the log:
`charge` for what has ended, `resume` for what gateways say is open.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import msgspec

from security.policy.account import DAY_S, Account, Now
from security.policy.allowances import Allowance, Allowances, least_left, tightest
from security.policy.denials import NEVER_RETRY_S, QuotaDenial, find_denial, find_lookup_denial, find_token_denial
from security.policy.limits import LimitTable, Subject

MAX_LOST = 100_000
"""Reservations that have ended and of which the auditor has not told yet what they came to."""


class QuotaGrant(msgspec.Struct, frozen=True):
    """The request may go on up to this many output tokens."""

    reservation: int
    output_tokens: int


class _Reservation(msgspec.Struct):
    """What an open request holds."""

    subjects: tuple[Subject, ...]
    owner: Hashable
    prompt_tokens: int
    output_tokens: int
    """Covered so far."""
    max_output_tokens: int
    day: int
    day_tokens: int
    """Of all it holds, what was taken in that day."""
    took_request: bool = True
    """False where the log tells of it: an earlier life of the book took it."""
    told: int | None = None
    """What it came to, by the auditor, which may see before us that its gateway is gone."""
    counted: int = 0
    """Of one that has ended, what counts as used."""

    @property
    def tokens(self) -> int:
        """All it holds."""
        return self.prompt_tokens + self.output_tokens


class QuotaBook:
    """Owner of all accounts and reservations."""

    def __init__(
        self,
        limits: LimitTable,
        *,
        block_tokens: int,
        clock_ns: Callable[[], int],
        utc_s: Callable[[], float] = time.time,
        last_reservation: int = 0,
    ) -> None:
        """`last_reservation`: numbers begin above it; records name them, so no other life of the book may have given them."""
        self._limits = limits
        self._block_tokens = block_tokens
        self._clock_ns = clock_ns
        self._utc_s = utc_s
        self._accounts: dict[Subject, Account] = {}
        self._reservations: dict[int, _Reservation] = {}
        self._lost: OrderedDict[int, _Reservation] = OrderedDict()
        self._last_reservation = last_reservation
        self._tokens_reserved = 0

    @property
    def num_reservations(self) -> int:
        """Open requests of all."""
        return len(self._reservations)

    @property
    def tokens_reserved(self) -> int:
        """Prompt and output tokens that open requests hold."""
        return self._tokens_reserved

    def change_limits(self, limits: LimitTable) -> None:
        """Other limits from now on, for open requests' further blocks as well."""
        self._limits, now = limits, self._now()
        for (subject, name), account in self._accounts.items():
            found = limits.find(subject, name)
            if found != account.limits:
                account.change_limits(found, now)

    def reserve(
        self,
        subjects: Sequence[Subject],
        owner: Hashable,
        *,
        prompt_tokens: int,
        max_output_tokens: int,
        num_further: int = 0,
        is_further: bool = False,
    ) -> QuotaGrant | QuotaDenial:
        """Let a request start, or not. A refused one leaves no trace: it costs nothing of any limit.

        Each prompt of a list is one. A list starts as a whole: if all of them fit, or by itself where it has more prompts than may
        be open.

        Args:
            num_further: prompts of a list that will be asked for next.
            is_further: one of those, whose list has started.
        """
        now = self._now()
        accounts = {subject: self._peek(subject, now) for subject in subjects}
        counts_tokens = any(account.limits.counts_tokens for account in accounts.values())
        block = min(self._block_tokens, max_output_tokens) if counts_tokens else max_output_tokens
        tokens = prompt_tokens + block
        for subject, account in accounts.items():
            denial = find_denial(subject, account, tokens, now, num_further=num_further, is_further=is_further)
            if denial is not None:
                return denial
        for subject, account in accounts.items():
            account.open(tokens, now)
            self._accounts[subject] = account
        return self._add(_Reservation(tuple(accounts), owner, prompt_tokens, block, max_output_tokens, now.day, tokens))

    def look_up(self, subjects: Sequence[Subject]) -> QuotaDenial | None:
        """Count a request that takes no tokens and is over at once; a refused one costs nothing. Another life of the book knows
        nothing of it: no record tells.
        """
        now = self._now()
        accounts = {subject: self._peek(subject, now) for subject in subjects}
        for subject, account in accounts.items():
            denial = find_lookup_denial(subject, account, now)
            if denial is not None:
                return denial
        for subject, account in accounts.items():
            account.look_up(now)
            self._accounts[subject] = account
        return None

    def resume(
        self,
        subjects: Sequence[Subject],
        owner: Hashable,
        *,
        prompt_tokens: int,
        output_tokens: int,
        max_output_tokens: int,
        reservation: int = 0,
    ) -> QuotaGrant:
        """A request goes on that an earlier life of this book let start, with what was covered then, and by the number that it has
        in the log, if nobody has that.
        """
        now, tokens = self._now(), prompt_tokens + output_tokens
        for subject in dict.fromkeys(subjects):
            account = self._accounts[subject] = self._peek(subject, now)
            account.reopen(tokens, now)
        unique = tuple(dict.fromkeys(subjects))
        held = _Reservation(
            unique,
            owner,
            prompt_tokens,
            output_tokens,
            max_output_tokens,
            now.day,
            tokens,
            took_request=False,
        )
        is_free = 0 < reservation <= self._last_reservation and not (
            reservation in self._reservations or reservation in self._lost
        )
        return self._add(held, reservation if is_free else None)

    def extend(self, reservation: int, owner: Hashable) -> QuotaGrant | QuotaDenial:
        """Cover the next block of output; at the request's own limit the grant just repeats what is covered."""
        held = self._find(reservation, owner)
        if held is None:
            return QuotaDenial("quota_exhausted", "the reservation is not known; the request must end", NEVER_RETRY_S)
        block, now = min(self._block_tokens, held.max_output_tokens - held.output_tokens), self._now()
        accounts = [self._accounts[subject] for subject in held.subjects]
        for subject, account in zip(held.subjects, accounts, strict=True):
            denial = find_token_denial(subject, account, block, now, "quota_exhausted")
            if block and denial is not None:
                return denial
        for account in accounts:
            account.hold(block, now)
        if now.day > held.day:
            held.day, held.day_tokens = now.day, 0
        held.day_tokens += block
        held.output_tokens += block
        self._tokens_reserved += block
        return QuotaGrant(reservation, held.output_tokens)

    def settle(
        self,
        reservation: int,
        owner: Hashable,
        *,
        prompt_tokens: int,
        output_tokens: int,
        is_final: bool = True,
        is_begun: bool = True,
    ) -> bool:
        """End a reservation at what was really used. More than was reserved is not possible, and counts as all of it.

        Args:
            is_final: False where another number may follow, which counts then: the auditor's, or the owner's own, that has heard of
                the log what it did not know.
            is_begun: False where nothing was asked of an engine and no record says so: then it was no request.
        Returns: whether there was such a reservation.
        """
        held = self._find(reservation, owner) or self._lost.get(reservation)
        if held is None or held.owner != owner:
            return False
        used = min(prompt_tokens, held.prompt_tokens) + min(output_tokens, held.output_tokens)
        if reservation in self._lost:
            self._recount(held, used)
            if is_final:
                del self._lost[reservation]
        else:
            self._end(reservation, used, is_final=is_final, is_begun=is_begun)
        return True

    def release_owner(self, owner: Hashable) -> int:
        """The owner is gone, and its requests were cut. How much of each was computed it says no more: all of it counts as used,
        until the auditor tells.

        Returns: how many reservations ended.
        """
        numbers = [number for number, held in self._reservations.items() if held.owner == owner]
        for number in numbers:
            self._end(number, self._reservations[number].tokens, is_final=False)
        return len(numbers)

    def correct(self, reservation: int, subjects: Sequence[Subject], tokens: int) -> None:
        """What a request came to by the engine's count, whose gateway is gone or could not have its end recorded. More than was
        reserved counts as all of it, and what is not known, or was reserved for others, changes nothing.
        """
        held = self._reservations.get(reservation) or self._lost.get(reservation)
        if held is None or set(held.subjects) != set(subjects):
            return
        if reservation in self._reservations:
            held.told = tokens
            return
        del self._lost[reservation]
        self._recount(held, min(tokens, held.tokens))

    def charge(self, subjects: Sequence[Subject], *, requests: int, tokens: int, at_s: float) -> None:
        """Count what ended before this book was begun. To be called in the order of time."""
        now = self._now()
        age_ns = max(0, int((self._utc_s() - at_s) * 10**9))
        then = Now(now.monotonic_ns - age_ns, now.day, now.day_left_s)
        is_today = int(at_s) // DAY_S == now.day
        for subject in dict.fromkeys(subjects):
            account = self._accounts.get(subject)
            if account is None:
                account = self._accounts[subject] = Account(self._limits.find(*subject), then)
            account.charge(requests, tokens, then, is_today=is_today)

    def allowances(self, subjects: Sequence[Subject]) -> Allowances:
        """What is left to a request of these subjects: of each kind of limit the one with the least left."""
        now = self._now()
        accounts = [self._peek(subject, now) for subject in subjects]
        days = [
            Allowance(limit, max(0, limit - account.day_tokens), now.day_left_s * 1000)
            for account in accounts
            if (limit := account.limits.tokens_per_day)
        ]
        return Allowances(
            least_left([account.requests for account in accounts], now),
            least_left([account.tokens for account in accounts], now),
            tightest(days),
        )

    def lookups_left(self, subjects: Sequence[Subject]) -> Allowance | None:
        """The same of lookups, which only those look at that ask for one."""
        now = self._now()
        return least_left([self._peek(subject, now).lookups for subject in subjects], now)

    def forget_idle(self) -> None:
        """Drop accounts that are as good as new, so that memory follows the subjects that are active."""
        now = self._now()
        for subject in [one for one, account in self._accounts.items() if account.is_idle(now)]:
            del self._accounts[subject]

    def check_integrity(self) -> None:
        """Conservation: counters equal what the reservations say, and no bucket is outside its bounds."""
        now = self._now()
        open_of: dict[Subject, int] = {}
        tokens_of: dict[Subject, int] = {}
        for held in self._reservations.values():
            tokens = held.tokens
            assert 0 <= held.output_tokens <= held.max_output_tokens
            assert 0 <= held.day_tokens <= tokens
            for subject in held.subjects:
                open_of[subject] = open_of.get(subject, 0) + 1
                tokens_of[subject] = tokens_of.get(subject, 0) + tokens
        assert self._tokens_reserved == sum(one.tokens for one in self._reservations.values())
        assert not self._lost.keys() & self._reservations.keys()
        assert open_of.keys() <= self._accounts.keys()
        for subject, account in self._accounts.items():
            assert account.num_open == open_of.get(subject, 0)
            assert account.in_flight == tokens_of.get(subject, 0)
            assert account.day_tokens >= 0
            for bucket in (account.requests, account.lookups, account.tokens):
                assert bucket is None or 0 <= bucket.available(now.monotonic_ns) <= bucket.per_minute

    def _now(self) -> Now:
        utc_s = int(self._utc_s())
        return Now(self._clock_ns(), utc_s // DAY_S, DAY_S - utc_s % DAY_S)

    def _peek(self, subject: Subject, now: Now) -> Account:
        """The account, or one as it would be; it is kept only by who charges it."""
        account = self._accounts.get(subject)
        if account is None:
            return Account(self._limits.find(*subject), now)
        account.turn(now)
        return account

    def _add(self, reservation: _Reservation, number: int | None = None) -> QuotaGrant:
        if number is None:
            self._last_reservation += 1
            number = self._last_reservation
        self._reservations[number] = reservation
        self._tokens_reserved += reservation.tokens
        return QuotaGrant(number, reservation.output_tokens)

    def _find(self, reservation: int, owner: Hashable) -> _Reservation | None:
        held = self._reservations.get(reservation)
        return held if held is not None and held.owner == owner else None

    def _end(self, reservation: int, used: int, *, is_final: bool, is_begun: bool = True) -> None:
        """Close it at `used`; where that is not final at what the auditor told, or else keep it until it tells."""
        held = self._reservations[reservation]
        if not is_final and held.told is not None:
            used, is_final = min(held.told, held.tokens), True
        self._close(reservation, used, is_begun=is_begun)
        if not is_final:
            self._lost[reservation] = held
        if len(self._lost) > MAX_LOST:
            self._lost.popitem(last=False)

    def _recount(self, held: _Reservation, used: int) -> None:
        """One that has ended came to another number than was said."""
        now, unused = self._now(), held.counted - used
        is_today = held.day == now.day
        unused_today = min(unused, held.day_tokens) if is_today else 0
        for subject in held.subjects:
            account = self._accounts.get(subject)
            if unused < 0:
                account = self._accounts[subject] = account or self._peek(subject, now)
                account.charge(0, -unused, now, is_today=is_today)
            elif account is not None:  # Else it is as good as new.
                account.give_back(unused, unused_today, now)
        held.counted = used
        held.day_tokens -= unused_today

    def _close(self, reservation: int, used: int, *, is_begun: bool) -> None:
        held, now = self._reservations.pop(reservation), self._now()
        reserved = held.tokens
        unused = reserved - used
        unused_today = min(unused, held.day_tokens) if held.day == now.day else 0
        held.counted = used
        held.day_tokens -= unused_today
        self._tokens_reserved -= reserved
        for subject in held.subjects:
            account = self._accounts[subject]
            gives_back = held.took_request and not is_begun
            account.close(reserved, unused, unused_today, now, gives_back=gives_back)
