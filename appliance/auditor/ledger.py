"""Events become durable records here, many in one commit; and here the disk is watched.

Whoever adds an event says what is to happen when it is durable and what when it is not: exactly one of the two is called, in
the order of adding. With the disk full the ledger takes nothing; the reserve is given up to record just that, and to publish what
is durable. Once it can be set aside anew, with as much left besides, a second record says for how long and how many were refused.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from appliance.auditor.alerts import raise_alert
from audit.append import LogWriter
from audit.entry import RANDOM_BYTES, Json, complete_entry, encode_event, parse_event
from audit.errors import NotDurable
from audit.events import log_event
from audit.permissions import AUDITOR
from audit.reserve import Reserve

log = structlog.get_logger(__name__)

OWN_NAME = f"{AUDITOR}/0"
SPACE_CHECK_INTERVAL_S = 1.0
DRAWN_AT_ONCE = 64

Durable = Callable[[int], None]
Refused = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the auditor reads it."""

    monotonic_s: Callable[[], float]
    utc_ms: Callable[[], int]


def _draw_random() -> Iterator[bytes]:
    """Random bits of one record after another, drawn for many: a system call for each costs as much as hashing the record."""
    while True:
        drawn = os.urandom(DRAWN_AT_ONCE * RANDOM_BYTES)
        for start in range(0, len(drawn), RANDOM_BYTES):
            yield drawn[start : start + RANDOM_BYTES]


def _ignore(_: object) -> None:
    return


def _lose(reason: str) -> None:
    log.error("log_event_lost", reason=reason)


class Ledger:
    """One log, as the auditor writes it."""

    def __init__(self, writer: LogWriter, reserve: Reserve, clock: Clock) -> None:
        self.writer = writer
        self._origin = writer.key.name
        self._reserve = reserve
        self._clock = clock
        self._random = _draw_random()
        self._waiting: list[tuple[Durable, Refused]] = []
        self._fault = ""
        self._full_since_ms = 0
        self._num_refused = 0
        self._next_space_check_s = 0.0

    @property
    def can_append(self) -> bool:
        """Records can be made durable."""
        return not self._fault

    @property
    def fault(self) -> str:
        """Why not; empty when they can."""
        return self._fault

    @property
    def has_waiting(self) -> bool:
        """A commit is due."""
        return bool(self._waiting)

    def open(self) -> None:
        """Set the reserve aside; where there is no space for it the ledger starts full.

        Raises: StorageFailed.
        """
        try:
            self._reserve.hold()
        except NotDurable as error:
            self._become_full(error)

    def add(self, event: Json, reporter: str, durable: Durable = _ignore, refused: Refused = _ignore) -> None:
        """Add an event for the next commit.

        Args:
            event: from `parse_event`; what only the auditor may say is put into it.
        Raises: EntryTooLarge: then neither callback is called.
        """
        if self._fault:
            self._num_refused += 1
            refused(self._fault)
            return
        self._append(event, reporter, durable, refused)

    def add_own(self, event: Json, durable: Durable = _ignore, refused: Refused = _ignore) -> None:
        """Add an event that the auditor itself made by a builder."""
        self.add(parse_event(encode_event(event)), OWN_NAME, durable, refused)

    def commit(self) -> None:
        """Make everything added durable, and tell.

        Raises: StorageFailed, after which the process MUST end; nothing was told then.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            indices = self.writer.commit()
        except NotDurable as error:
            self._num_refused += sum(1 for _, refused in waiting if refused is not _lose)
            self._become_full(error)
            for _, refused in waiting:
                refused(self._fault)
            return
        for index, (durable, _) in zip(indices, waiting, strict=True):
            durable(index)

    def publish_if_due(self) -> None:
        """Sign and publish what is durable, when it is time.

        Raises: StorageFailed.
        """
        try:
            self.writer.publish_if_due(self._clock.monotonic_s())
        except NotDurable as error:
            self._become_full(error)

    def publish(self) -> None:
        """Sign and publish what is durable, now.

        Raises: StorageFailed.
        """
        try:
            self.writer.publish()
        except NotDurable as error:
            self._become_full(error)

    def found_full(self, error: NotDurable) -> None:
        """What belongs to a record and lies beside the log found no space: nothing is taken, as if a record had found none.

        Raises: StorageFailed.
        """
        self._become_full(error)

    def watch_space(self) -> None:
        """With the disk full, see now and then whether there is space again.

        Raises: StorageFailed.
        """
        now_s = self._clock.monotonic_s()
        if not self._fault or now_s < self._next_space_check_s:
            return
        self._next_space_check_s = now_s + SPACE_CHECK_INTERVAL_S
        try:
            self._reserve.regain()
        except NotDurable:
            return
        facts: dict[str, str | int] = {
            "full_ms": max(0, self._clock.utc_ms() - self._full_since_ms),
            "num_refused": self._num_refused,
        }
        self._append_own(self.describe("log_writable", facts, "there is space again"), self._become_writable)
        self.commit()

    def describe(self, kind: str, facts: dict[str, str | int], detail: str = "", is_failure: bool = False) -> Json:
        """An event about this log itself."""
        return log_event(kind, log_name=self._origin, facts=facts, detail=detail, is_failure=is_failure)

    def _append(self, event: Json, reporter: str, durable: Durable, refused: Refused) -> None:
        entry = complete_entry(
            event,
            index=self.writer.next_index,
            time_ms=self._clock.utc_ms(),
            reporter=reporter,
            log_name=self._origin,
            random=next(self._random),
        )
        self.writer.append((entry,))
        self._waiting.append((durable, refused))

    def _append_own(self, event: Json, durable: Durable) -> None:
        """Add a record past the refusal; with the disk full even that may be too much, which only the process log tells."""
        self._append(parse_event(encode_event(event)), OWN_NAME, durable, _lose)

    def _become_full(self, error: NotDurable) -> None:
        if self._fault:
            return
        self._fault = f"the log's disk is full: {error}"
        raise_alert("log_full", self._fault)
        self._full_since_ms = self._clock.utc_ms()
        self._next_space_check_s = self._clock.monotonic_s() + SPACE_CHECK_INTERVAL_S
        self._reserve.release()
        self._append_own(self.describe("log_full", {}, self._fault, is_failure=True), _ignore)
        self.commit()

    def _become_writable(self, _: int) -> None:
        log.info("log_writable", num_refused=self._num_refused)
        self._fault, self._num_refused = "", 0
