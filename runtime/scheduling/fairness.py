"""Who is next among tenants: start-time fair queueing, with tokens as the measure of work.

Every request gets a start tag as it arrives: the later of the common virtual time and of the end of its tenant's request before.
The line is in order of these tags, so tenants that wait are served in turn, by tokens and not by requests, however many one of
them has sent; a tenant that comes back from idleness neither pays for its absence nor is paid. Within a tenant the order is
that of arrival, and with one tenant alone it is first come, first served.

Source: Start-time Fair Queueing, Goyal, Vin and Cheng 1996.
"""

_MOST_TENANTS = 1024
"""Remembered before those that owe nothing are forgotten."""


class FairClock:
    """Virtual time, in tokens of work."""

    def __init__(self) -> None:
        self._now = 0
        self._ends: dict[bytes, int] = {}

    def tag(self, namespace: bytes, num_tokens: int) -> int:
        """The start tag of a tenant's next request, which is expected to take so many tokens."""
        start = max(self._now, self._ends.get(namespace, 0))
        self._ends[namespace] = start + num_tokens
        if len(self._ends) > _MOST_TENANTS:
            self._ends = {tenant: end for tenant, end in self._ends.items() if end > self._now}
        return start

    def serve(self, tag: int) -> None:
        """A request with this tag was admitted: nobody who arrives later starts before it."""
        self._now = max(self._now, tag)
