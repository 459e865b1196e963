"""A token bucket in integers, so that refill is exact: no drift, no rounding that a patient client could collect.

The level is counted in shares: one unit is 60·10⁹ shares, one nanosecond refills as many shares as units are allowed per minute.
"""

SHARES_PER_UNIT = 60 * 10**9


class TokenBucket:
    """Holds at most what is allowed per minute, and starts full. Times are monotonic nanoseconds."""

    __slots__ = ("_level", "_updated_ns", "per_minute")

    def __init__(self, per_minute: int, now_ns: int) -> None:
        self.per_minute = per_minute
        self._level = per_minute * SHARES_PER_UNIT
        self._updated_ns = now_ns

    def available(self, now_ns: int) -> int:
        """Whole units that could be taken now."""
        self._refill(now_ns)
        return self._level // SHARES_PER_UNIT

    def is_full(self, now_ns: int) -> bool:
        """True when nothing is missing."""
        self._refill(now_ns)
        return self._level == self.per_minute * SHARES_PER_UNIT

    def take(self, units: int, now_ns: int) -> bool:
        """Take all of `units`, or nothing."""
        if units > self.available(now_ns):
            return False
        self._level -= units * SHARES_PER_UNIT
        return True

    def give_back(self, units: int, now_ns: int) -> None:
        """Return what was taken and not used. What the bucket cannot hold is lost, as time would have refilled it anyway."""
        self._refill(now_ns)
        self._level = min(self._level + units * SHARES_PER_UNIT, self.per_minute * SHARES_PER_UNIT)

    def charge(self, units: int, now_ns: int) -> None:
        """Take what was used already, as far as there is anything to take: the past is not refused."""
        self._refill(now_ns)
        self._level = max(0, self._level - units * SHARES_PER_UNIT)

    def resize(self, per_minute: int, now_ns: int) -> None:
        """Allow another number per minute from now on; what was taken stays taken."""
        self._refill(now_ns)
        missing = self.per_minute * SHARES_PER_UNIT - self._level
        self.per_minute = per_minute
        self._level = max(0, per_minute * SHARES_PER_UNIT - missing)

    def full_in_ns(self, now_ns: int) -> int:
        """Nanoseconds until nothing is missing, if nobody takes any."""
        self._refill(now_ns)
        return -(-(self.per_minute * SHARES_PER_UNIT - self._level) // self.per_minute)

    def wait_ns(self, units: int, now_ns: int) -> int | None:
        """Nanoseconds until `units` could be taken if nobody else took any; None if they never could."""
        if units > self.per_minute:
            return None
        self._refill(now_ns)
        missing = units * SHARES_PER_UNIT - self._level
        return 0 if missing <= 0 else -(-missing // self.per_minute)

    def _refill(self, now_ns: int) -> None:
        if now_ns <= self._updated_ns:
            return
        gained = (now_ns - self._updated_ns) * self.per_minute
        self._level = min(self._level + gained, self.per_minute * SHARES_PER_UNIT)
        self._updated_ns = now_ns
