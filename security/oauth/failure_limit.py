"""How often one source address may fail at the token endpoint, so that nobody guesses at speed or floods the log.

A bucket a source: it holds as many failures as are allowed per minute and refills evenly. While it is empty the source gets no
answer but "later", and its credentials are not looked at. What is refused so is only counted, and the counts are handed
out once a while for one record each. An IPv6 source is its /64, as one machine has that many addresses.

At most MAX_SOURCES sources are remembered, the least recent forgotten first: about 3 MB.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

import msgspec

MAX_SOURCES = 10_000


class Suppressed(msgspec.Struct, frozen=True):
    """Attempts of a source that were refused without a record of their own."""

    source: str
    attempts: int


class _Bucket(msgspec.Struct):
    level: float
    updated_at: float
    suppressed: int = 0


class FailureLimit:
    """Owner of the buckets."""

    def __init__(
        self, max_failures_per_minute: int, *, clock: Callable[[], float], max_sources: int = MAX_SOURCES
    ) -> None:
        self._capacity = float(max_failures_per_minute)
        self._per_second = max_failures_per_minute / 60
        self._clock = clock
        self._max_sources = max_sources
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._forgotten = 0

    def retry_after_s(self, address: str) -> int:
        """0 if the source may try; or else the seconds until it may, and the attempt is counted."""
        source = normalize_source(address)
        bucket = self._buckets.get(source)
        if bucket is None:
            return 0
        self._refill(bucket)
        if bucket.level >= 1:
            return 0
        bucket.suppressed += 1
        return max(1, math.ceil((1 - bucket.level) / self._per_second))

    def count_failure(self, address: str) -> None:
        """The source failed."""
        source = normalize_source(address)
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = _Bucket(self._capacity, self._clock())
            self._forget_oldest()
        self._refill(bucket)
        self._buckets.move_to_end(source)
        bucket.level = max(0.0, bucket.level - 1)

    def take_suppressed(self) -> list[Suppressed]:
        """What was only counted since the last call. Sources that were forgotten meanwhile are summed under '*'."""
        taken = [Suppressed(source, bucket.suppressed) for source, bucket in self._buckets.items() if bucket.suppressed]
        for bucket in self._buckets.values():
            bucket.suppressed = 0
        if self._forgotten:
            taken.append(Suppressed("*", self._forgotten))
            self._forgotten = 0
        return taken

    def _refill(self, bucket: _Bucket) -> None:
        now = self._clock()
        bucket.level = min(self._capacity, bucket.level + max(0.0, now - bucket.updated_at) * self._per_second)
        bucket.updated_at = now

    def _forget_oldest(self) -> None:
        while len(self._buckets) > self._max_sources:
            _source, bucket = self._buckets.popitem(last=False)
            self._forgotten += bucket.suppressed


def normalize_source(address: str) -> str:
    """The unit that is limited: an IPv4 address, an IPv6 /64 network, or the text itself if it is neither."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
