"""The supervisor's own start and end, told as it tells those of the others. Nobody outlives it to tell that it was killed:

    state/run/supervisor     the process id of the one that runs; taken away when it ends in order

A start that finds the file tells it of the one before.
"""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

from appliance.errors import StartRefused
from appliance.statement.files import write_file
from audit.entry import Json
from audit.events import process_event

log = structlog.get_logger(__name__)

ROLE = "supervisor"
NO_WORD = "it left no word of its end: it was killed, or the host went down"
_MAX_PID_DIGITS = 10


class OwnLife:
    """Owner of the file, of whoever holds the state folder's lock."""

    def __init__(self, state: Path) -> None:
        self._path = state / "run" / "supervisor"
        self._is_told = True
        """What happened to the one before is in the log, or nothing did."""

    def begin(self, record: Callable[[Json, Callable[[], None] | None], None]) -> None:
        """Record the start, and the end before, if nobody told it. That is told by a later start if this one comes to no record.

        Args:
            record: takes an event, and what to call when it is durable.
        Raises: StartRefused.
        """
        before = self._read()
        if before is None:
            self._note()
        else:
            log.warning("supervisor_was_lost", pid=before)
            self._is_told = False
            lost = process_event("process_crashed", role=ROLE, instance=0, pid=before, detail=NO_WORD)
            record(lost, self._told)
        record(process_event("process_started", role=ROLE, instance=0, pid=os.getpid()), None)

    def stopping(self) -> Json:
        """What is to be recorded while the auditor is still there."""
        return process_event("process_stopped", role=ROLE, instance=0, pid=os.getpid())

    def end(self) -> None:
        """It ends in order."""
        if self._is_told:
            self._path.unlink(missing_ok=True)

    def _told(self) -> None:
        self._is_told = True
        try:
            self._note()
        except StartRefused as refused:
            log.error("own_life_not_noted", reason=str(refused))

    def _note(self) -> None:
        write_file(self._path, f"{os.getpid()}\n".encode())

    def _read(self) -> int | None:
        try:
            text = self._path.read_bytes()[:_MAX_PID_DIGITS].strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdigit() else 0


def ending_of(status: int, reason: str, dismissal: str, overdue: str) -> tuple[str, str]:
    """How a process ended while everything stopped: the kind of its record, and the words for it.

    Args:
        reason: what its status says.
        dismissal: why it was ended by us, as it was of no use any more; else empty.
        overdue: why it was killed, as it should have ended by itself; else empty.
    """
    if overdue:
        return "process_crashed", overdue
    if status == 0 or dismissal:
        return "process_stopped", dismissal
    return "process_crashed", reason
