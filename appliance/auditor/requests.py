"""What the auditor remembers of requests: those that are open, and where the records of the latest lie.

| table | holds | bounded by |
|---|---|---|
| `open` | intents without an outcome | MAX_OPEN_INTENTS; a gateway that has more gets no more tickets |
| `latest` | request id to indices, for receipts | `audit.receipts_kept`; older requests are found by index only |
| `uncounted` | intents whose outcome was recorded without the engine's counts | MAX_UNCOUNTED |
"""

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from appliance.auditor.peer import Peer
from audit.entry import Json

MAX_OPEN_INTENTS = 100_000
MAX_UNCOUNTED = 10_000


@dataclass(slots=True)
class HeldOutcome:
    """A gateway's outcome that waits for the engine's counts."""

    peer: Peer
    correlation: int
    event: Json


@dataclass(slots=True, eq=False)
class OpenIntent:
    """A request that is being served, or whose gateway is gone."""

    index: int
    request_uid: str
    reporter: str
    peer: Peer | None
    """Its gateway; None once that is gone."""
    engine_instance: int | None = None
    """The engine that its ticket is for, which alone may count for it; None for intents of a former life."""
    shared: bytes = b""
    """What its outcome must have in common with it (see `audit.closing.shared_members`); empty for intents of a former life."""
    prompt_tokens: object = None
    """The length of its prompt, as it tells it."""
    engine: Json | None = None
    """What the engine counted."""
    held: HeldOutcome | None = None
    deadline_s: float | None = None
    """When the outcome is recorded without the engine's counts."""
    lost_reason: str = ""
    """Why the auditor has to close it itself."""
    lost_detail: str = ""
    is_closing: bool = False
    """Its outcome is on the way to the disk."""
    reservation: object = None
    """Its number at policy, as it tells it; read when the auditor closes it."""


class RequestRecords(msgspec.Struct, gc=False):
    """Where the records of a request lie, and whose they are. `receipts_kept` of them are kept, which no collection walks."""

    client_id: str
    subject: str
    """The client itself, or the person it acts for."""
    intent_index: int
    outcome_index: int | None = None


class RequestBook:
    """The tables of requests."""

    def __init__(self, receipts_kept: int) -> None:
        self.open: dict[int, OpenIntent] = {}
        self._receipts_kept = receipts_kept
        self._latest: OrderedDict[str, RequestRecords] = OrderedDict()
        self._uncounted: OrderedDict[int, tuple[int | None, int]] = OrderedDict()
        """By intent: the engine that may count for it, and the index of its outcome."""

    def note_intent(self, intent: OpenIntent, client_id: str, subject: str) -> None:
        """An intent is durable."""
        self.open[intent.index] = intent
        self._latest[intent.request_uid] = RequestRecords(client_id, subject, intent.index)
        self._latest.move_to_end(intent.request_uid)
        if len(self._latest) > self._receipts_kept:
            self._latest.popitem(last=False)

    def note_outcome(self, intent_index: int, request_uid: str, outcome_index: int) -> None:
        """An outcome is durable."""
        self.open.pop(intent_index, None)
        records = self._latest.get(request_uid)
        if records is not None and records.intent_index == intent_index:
            records.outcome_index = outcome_index

    def find(self, request_uid: str, client_id: str, subject: str) -> RequestRecords | None:
        """Somebody's own request, if it is among the latest: not that of another person by the same client."""
        records = self._latest.get(request_uid)
        if records is None or (records.client_id, records.subject) != (client_id, subject):
            return None
        return records

    def knows(self, request_uid: str) -> bool:
        """Whether a request of this id is among the latest."""
        return request_uid in self._latest

    def outcome_of(self, request_uid: str, intent_index: int) -> int | None:
        """Where the outcome of an intent lies, if it is among the latest."""
        records = self._latest.get(request_uid)
        return records.outcome_index if records is not None and records.intent_index == intent_index else None

    def note_uncounted(self, intent: OpenIntent, outcome_index: int) -> None:
        """An outcome was recorded before the engine told its counts."""
        self._uncounted[intent.index] = (intent.engine_instance, outcome_index)
        if len(self._uncounted) > MAX_UNCOUNTED:
            self._uncounted.popitem(last=False)

    def take_uncounted(self, intent_index: int, engine_instance: int | None) -> int | None:
        """Where the outcome lies that still misses this engine's counts, which are taken as told now; None for no such outcome."""
        expected, outcome_index = self._uncounted.get(intent_index, (None, None))
        if outcome_index is not None and expected in (None, engine_instance):
            del self._uncounted[intent_index]
            return outcome_index
        return None

    def oldest_open(self, default: int) -> int:
        """Index of the first intent without an outcome; `default` when there is none."""
        return next(iter(self.open), default)
