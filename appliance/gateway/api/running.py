"""One response that this worker makes in the background: what of it is not on the disk yet, and who listens."""

import asyncio
from collections.abc import Callable, Iterable

from appliance.gateway.api.background_store import Key, Page, Verdict
from appliance.gateway.api.response_words import Event, ResponseWords
from appliance.gateway.errors import BadRequest, GatewayFault, PeerUnavailable

MAX_UNWRITTEN_BYTES = 8 << 20
"""Of events that wait for the disk; a response with more is ended when the next come. Those that end an item have all of its
logprobs, and may be larger by themselves."""


class Running:
    """Events wait here until they are written, and are shown from here meanwhile: all but those that end the response."""

    def __init__(
        self, key: Key, words: ResponseWords, end_answer: Callable[[GatewayFault], None], *, is_streamed: bool
    ) -> None:
        self.key = key
        self.is_streamed = is_streamed
        self._words = words
        self._end_answer = end_answer
        self._first = 0
        self._events: list[bytes] = []
        self._last: list[bytes] = []
        """Those of the end, which are not shown before the whole response is written."""
        self._num_bytes = 0
        self._ending: bytes | None = None
        self._is_cancelled = False
        self._listeners: set[asyncio.Event] = set()

    def publish(self, events: Iterable[Event]) -> None:
        """More has come."""
        worded = [self._words.dialect.event(event) for event in events]
        if not self.is_streamed or not worded:
            return
        waited, self._num_bytes = self._num_bytes, self._num_bytes + sum(map(len, worded))
        self._events += worded
        if waited > MAX_UNWRITTEN_BYTES:
            self._end_answer(PeerUnavailable("responses_unavailable", "the disk does not take the response's events"))
        self.wake()

    def end(self, events: Iterable[Event], after: bytes = b"") -> None:
        """It is over. `after` goes with the last event."""
        worded = [self._words.dialect.event(event) for event in events]
        if self._is_cancelled and self._words.response["status"] != "cancelled":
            worded[-1:] = [self._words.dialect.event(event) for event in self._words.recall()]
        worded[-1] += after
        self._last = worded if self.is_streamed else []
        self._ending = self._words.record

    def stop(self, fault: GatewayFault) -> None:
        """It is over before its end."""
        self._is_cancelled = self._is_cancelled or fault.code == "aborted"
        self.end(self._words.stop("cancelled" if self._is_cancelled else "failed", fault))

    def cancel(self) -> None:
        """Somebody cancelled it: that stands in the file already, so that it cannot complete any more."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        if self._ending is None:
            self._end_answer(BadRequest("cancelled", "the response was cancelled"))
            return
        recalled = [self._words.dialect.event(event) for event in self._words.recall()]
        self._last[-1:] = recalled if self.is_streamed else []
        self._ending = self._words.record

    def events_from(self, _key: Key, number: int, waker: asyncio.Event) -> list[bytes] | None:
        """As `Mirrors.events_from`; `waker` is also set when it is over."""
        if number < self._first or not self.is_streamed:
            return None
        self._listeners.add(waker)
        return self._events[number - self._first :]

    def wake(self) -> None:
        """Let all that listen look again; who still listens says so then."""
        listeners, self._listeners = self._listeners, set()
        for waker in listeners:
            waker.set()

    @property
    def page(self) -> Page:
        """All that is not written."""
        return Page(self.key, self._first, [*self._events, *self._last], self._ending, self._is_cancelled)

    def take(self, page: Page, verdict: Verdict) -> bool:
        """What became of a page. True if the response needs no more of them."""
        if verdict == "cancelled":
            self.cancel()
            return False
        if verdict == "gone":
            self._end_answer(BadRequest("cancelled", "the response was deleted"))
            return True
        self._num_bytes -= sum(map(len, page.events))
        self._first += len(page.events)
        del self._events[: len(page.events)]
        return page.ending is not None
