"""Whether the host's clock was left alone while the appliance ran: a jump of more than a day suspends installs.

What is expired is judged by the clock. One that was set by more than a day while everything ran, in however many steps, is right
now or was before, and nobody knows which until somebody has looked; then the appliance is started anew. The log has it.
"""

from pathlib import Path

from audit.checkpoint import parse_checkpoint
from audit.entry import parse_canonical
from audit.errors import EntryNotFound
from audit.event_form import FAILURE
from audit.note import parse_note
from audit.permissions import kind_of
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH
from security.errors import TrustUnusable

_JUMPED, _STARTED = "log_clock_jumped", "log_started"
_MARKS = (_JUMPED.encode(), _STARTED.encode())


def verify_clock_was_left(state: Path) -> None:
    """Look into the log, from its end to its last start.

    Raises: TrustUnusable where the clock jumped since; AuditFault where the log cannot be read.
    """
    reader = LogReader(state / "audit" / "log")
    try:
        size = parse_checkpoint(parse_note(reader.checkpoint_note()).text).size
    except EntryNotFound:
        return  # It never ran.
    for number in reversed(range(-(-size // TILE_WIDTH))):
        for entry in reversed(reader.read_bundle(number, size)):
            if not any(mark in entry for mark in _MARKS):  # Of millions nearly all.
                continue
            event = parse_canonical(entry)
            kind = kind_of(event)
            if kind == _STARTED:
                return
            if kind == _JUMPED and event.get("status_id") == FAILURE:
                raise TrustUnusable(
                    f"{event.get('status_detail', 'the clock was set')}: see that the clock is right, then start the appliance anew"
                )
