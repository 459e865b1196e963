"""How often one client at one address may fail at the token endpoint, so that nobody guesses at speed or floods the log.

Two buckets are charged for each failure: that of the address *and* the client it claims to be, and a larger one of the
address alone. So a program with an outdated secret locks out itself and not its neighbours behind the same address, and a
guesser who goes through many clients is stopped as well. A client that has shown who it is guesses at nobody: what it does
wrong is charged to a bucket of its own, as large as an address's, so that it cannot fill the log either. While one of these
is empty there is no answer but "later", and credentials are not looked at. What is refused so is only counted, and the
counts are handed out once a while for one record each.

An IPv6 source is its /64, as one machine has that many addresses. At most MAX_BUCKETS are remembered, the least recently
charged forgotten first: about 6 MB.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

import msgspec

MAX_BUCKETS = 20_000
ADDRESS_FACTOR = 10
"""How many times more an address may fail than one client at it."""

_Key = tuple[str, str | None, bool]
"""Address and claimed client, or None for the address alone; and whether the client had shown who it is."""


class Suppressed(msgspec.Struct, frozen=True):
    """Attempts that were refused without a record of their own."""

    source: str
    client_id: str
    """Empty where a whole address was refused."""
    attempts: int
    first_ago_ms: int = 0
    last_ago_ms: int = 0
    """How long ago the first and the last of them came."""


class _Bucket(msgspec.Struct):
    level: float
    updated_at: float
    suppressed: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


class FailureLimit:
    """Owner of the buckets."""

    def __init__(
        self, max_failures_per_minute: int, *, clock: Callable[[], float], max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._per_minute = max_failures_per_minute
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[_Key, _Bucket] = OrderedDict()
        self._forgotten = _Bucket(0.0, 0.0)
        """What was only counted in buckets that are no more."""

    def retry_after_s(self, address: str, client_id: str) -> int:
        """0 if the client may try from there; or else the seconds until it may, and the attempt is counted."""
        source = normalize_source(address)
        for key in ((source, None, False), (source, client_id, False), (source, client_id, True)):
            bucket = self._buckets.get(key)
            if bucket is None:
                continue
            self._refill(key, bucket)
            if bucket.level < 1:
                _suppress(bucket, 1, bucket.updated_at, bucket.updated_at)
                return max(1, math.ceil((1 - bucket.level) * 60 / self._capacity(key)))
        return 0

    def count_failure(self, address: str, client_id: str, *, is_proven: bool = False) -> None:
        """The client failed from there, before it had shown who it is or after."""
        source = normalize_source(address)
        unproven: tuple[_Key, ...] = ((source, None, False), (source, client_id, False))
        for key in ((source, client_id, True),) if is_proven else unproven:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = _Bucket(float(self._capacity(key)), self._clock())
                self._forget_oldest()
            self._refill(key, bucket)
            self._buckets.move_to_end(key)
            bucket.level = max(0.0, bucket.level - 1)

    def take_suppressed(self) -> list[Suppressed]:
        """What was only counted since the last call. Sources that were forgotten meanwhile are summed under '*'."""
        taken: list[Suppressed] = []
        for (source, client_id, _is_proven), bucket in self._buckets.items():
            if bucket.suppressed:
                taken.append(self._take(source, client_id or "", bucket))
        if self._forgotten.suppressed:
            taken.append(self._take("*", "", self._forgotten))
        return taken

    def _take(self, source: str, client_id: str, bucket: _Bucket) -> Suppressed:
        now, attempts, bucket.suppressed = self._clock(), bucket.suppressed, 0
        first_ago_ms, last_ago_ms = (round(1000 * (now - at)) for at in (bucket.first_at, bucket.last_at))
        return Suppressed(source, client_id, attempts, first_ago_ms, last_ago_ms)

    def _capacity(self, key: _Key) -> int:
        return self._per_minute * ADDRESS_FACTOR if key[1] is None or key[2] else self._per_minute

    def _refill(self, key: _Key, bucket: _Bucket) -> None:
        now, capacity = self._clock(), self._capacity(key)
        bucket.level = min(float(capacity), bucket.level + max(0.0, now - bucket.updated_at) * capacity / 60)
        bucket.updated_at = now

    def _forget_oldest(self) -> None:
        while len(self._buckets) > self._max_buckets:
            _key, bucket = self._buckets.popitem(last=False)
            _suppress(self._forgotten, bucket.suppressed, bucket.first_at, bucket.last_at)


def _suppress(bucket: _Bucket, attempts: int, first_at: float, last_at: float) -> None:
    if attempts:
        bucket.first_at = min(bucket.first_at, first_at) if bucket.suppressed else first_at
        bucket.last_at = max(bucket.last_at, last_at) if bucket.suppressed else last_at
        bucket.suppressed += attempts


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
