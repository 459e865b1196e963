"""Everybody ↔ auditor. The auditor is the only writer of the log; all others append through it.

Events are canonical JSON without index, time, reporter and random bits: the auditor sets those, never the peer. Which
peer may append which event class is a table in `audit.permissions`.
"""

from typing import Annotated

import msgspec

from appliance.messages.engine import RequestIdField
from appliance.messages.stewardship import FromAuditor, ToAuditor

MAX_EVENT_BYTES = 60_000

Correlation = Annotated[int, msgspec.Meta(ge=0)]
"""Chosen by the peer; comes back in the answer."""
MAX_UID_CHARS = 64
MAX_REASON_CHARS = 200
RequestUid = Annotated[str, msgspec.Meta(max_length=MAX_UID_CHARS)]
"""A request's id, which the gateway makes; what a client sends in its place is compared with the bound first."""
EventBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_EVENT_BYTES)]


class AppendIntent(msgspec.Struct, frozen=True, array_like=True, tag="intent", gc=False):
    """Gateway only: a request is about to be served. Once that is durable, a `Ticket` to the engine and `IntentRecorded`."""

    correlation: Correlation
    event: EventBytes
    request_uid: RequestUid
    """The request's public id, as clients see it."""
    client_id: Annotated[str, msgspec.Meta(max_length=256)]
    model: Annotated[str, msgspec.Meta(max_length=256)]
    prompt_digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """SHA-256 of the prompt's token ids as little-endian uint32."""
    token_limit: Annotated[int, msgspec.Meta(ge=1)]
    lifetime_ms: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]
    """How long the ticket is good."""
    request_id: RequestIdField
    """The worker's own number of the request, under which it asks the engine."""
    engine_instance: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which engine is asked: the ticket goes to that one."""


class AppendOutcome(msgspec.Struct, frozen=True, array_like=True, tag="outcome", gc=False):
    """Gateway only: how the request of an earlier intent ended. Answered by `Recorded`."""

    correlation: Correlation
    intent_index: Annotated[int, msgspec.Meta(ge=0)]
    event: EventBytes


class AppendEvent(msgspec.Struct, frozen=True, array_like=True, tag="event", gc=False):
    """Any other event that the peer's row in the table allows. Answered by `Recorded`."""

    correlation: Correlation
    event: EventBytes


class CountTokens(msgspec.Struct, frozen=True, array_like=True, tag="count", gc=False):
    """Engine only, unanswered: what it computed for an intent, told by itself when the request has ended."""

    intent_index: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reason: Annotated[str, msgspec.Meta(max_length=64)]
    delivered_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """All output tokens that left the engine; `output_tokens` are those that the gateway let count."""


class TicketsRefused(msgspec.Struct, frozen=True, array_like=True, tag="tickets_refused"):
    """Engine only, unanswered: requests came to it for which there is no ticket that holds; nothing of them left it."""

    num_refused: Annotated[int, msgspec.Meta(ge=1)]
    """Since it was last told."""
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
    """What was wrong with the last of them."""


class FetchReceipt(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    """Gateway only: the records of one request with proofs. Answered by `Receipt` or `AppendRefused`."""

    correlation: Correlation
    request_uid: RequestUid
    client_id: Annotated[str, msgspec.Meta(max_length=256)]
    """Who asks: a client gets its own receipts only."""
    subject: Annotated[str, msgspec.Meta(max_length=512)] = ""
    """The person it acts for, who gets their own only; empty: none."""


class FetchUsage(msgspec.Struct, frozen=True, array_like=True, tag="fetch_usage", gc=False):
    """Policy only: what was used since a time, by what is recorded. Answered by `Usage` messages, the last of which says so."""

    correlation: Correlation
    since_ms: Annotated[int, msgspec.Meta(ge=0)]


class UsageRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Requests that ended in one minute, and the tokens that they count for."""

    minute: int
    """Since the epoch."""
    client_id: str
    subject: str
    tenant: str
    model: str
    requests: int
    tokens: int


class Usage(msgspec.Struct, frozen=True, array_like=True, tag="usage"):
    """Part of the answer to `FetchUsage`."""

    correlation: int
    rows: list[UsageRow]
    is_last: bool


class LostRequest(msgspec.Struct, frozen=True, array_like=True, tag="lost_request", gc=False):
    """Auditor to policy: a request whose gateway is gone is closed, at this count of its engine's."""

    reservation: Annotated[int, msgspec.Meta(ge=0)]
    """Policy's number, as the intent has it."""
    client_id: str
    subject: str
    tenant: str
    model: str
    tokens: Annotated[int, msgspec.Meta(ge=0)]


class FetchProof(msgspec.Struct, frozen=True, array_like=True, tag="fetch_proof"):
    """Gateway only: the proof of one record, which is hashes and tells nothing of it. Answered by `Proof` or `AppendRefused`."""

    correlation: Correlation
    index: Annotated[int, msgspec.Meta(ge=0)]


class IntentRecorded(msgspec.Struct, frozen=True, array_like=True, tag="intent_recorded", gc=False):
    """The intent is durable under this leaf index, and its ticket is on the way to the engine."""

    correlation: int
    index: int


class Ticket(msgspec.Struct, frozen=True, array_like=True, tag="ticket", gc=False):
    """Auditor to engine: leave to infer once. A MAC over all that stands here and the digest of the prompt's token ids."""

    worker: Annotated[int, msgspec.Meta(ge=0)]
    """The gateway worker whose intent it was, as its link to the auditor says it."""
    request_id: RequestIdField
    """That worker's number of the request."""
    index: Annotated[int, msgspec.Meta(ge=0)]
    """Leaf index of the durable intent."""
    model: Annotated[str, msgspec.Meta(max_length=256)]
    token_limit: Annotated[int, msgspec.Meta(ge=1)]
    """Most output tokens over all choices."""
    expires_at_ms: int
    """UTC, milliseconds since the epoch."""
    mac: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Recorded(msgspec.Struct, frozen=True, array_like=True, tag="recorded", gc=False):
    """The event is durable under this leaf index."""

    correlation: int
    index: int


class AppendRefused(msgspec.Struct, frozen=True, array_like=True, tag="append_refused"):
    """`code`: rationed (told in a record that sums up), not_permitted, malformed, too_large, unknown_intent, not_found,
    not_durable (disk full or failing), no_engine (nobody could check the ticket), damaged (the log's own files cannot be
    read), refused (a change that the rules do not allow)."""

    correlation: int
    code: str
    message: str


class ReceiptRecord(msgspec.Struct, frozen=True, array_like=True):
    """One leaf with its tlog-proof (C2SP) under a signed checkpoint."""

    index: int
    record: bytes
    proof: str


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag="receipt"):
    """A request's records; `outcome` is None while it is open."""

    correlation: int
    intent: ReceiptRecord
    outcome: ReceiptRecord | None
    log_vkey: str


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    """A tlog-proof (C2SP) under a signed checkpoint: the last that witnesses have cosigned, where it covers the record."""

    correlation: int
    proof: str


class TicketKey(msgspec.Struct, frozen=True, array_like=True, tag="ticket_key"):
    """Auditor to engine, first on their link: a fresh key for each pair of lives."""

    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

    def __repr__(self) -> str:
        return "TicketKey(<hidden>)"


class AuditorStatus(msgspec.Struct, frozen=True, array_like=True, tag="auditor_status", gc=False):
    """Sent to every gateway at least once a second."""

    tree_size: int
    checkpoint_size: int
    can_append: bool
    """False while records cannot be made durable; `detail` says why."""
    detail: str
    alarms: tuple[str, ...] = ()
    """What a person should look at although records are taken."""
    free_bytes: int = -1
    """Space on the log's disk; -1 while nobody has looked."""
    num_differences: int = 0
    """What reconciliations have found since the auditor's start."""
    cosigned_size: int = 0
    """Records that a quorum of witnesses vouches for."""
    cosigned_age_s: int = -1
    """Since its last word; -1 where there was none."""
    num_quorums_missed: int = 0
    """Rounds of cosigning that reached no quorum since the auditor's start."""


class Cosigned(msgspec.Struct, frozen=True, array_like=True, tag="cosigned"):
    """To readers: the last checkpoint that witnesses have cosigned, whenever it is another."""

    note: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]


PeerToAuditor = (
    AppendIntent
    | AppendOutcome
    | AppendEvent
    | CountTokens
    | TicketsRefused
    | FetchReceipt
    | FetchProof
    | FetchUsage
    | ToAuditor
)
AuditorToPeer = (
    IntentRecorded
    | Recorded
    | AppendRefused
    | Receipt
    | Proof
    | TicketKey
    | Ticket
    | AuditorStatus
    | Usage
    | LostRequest
    | Cosigned
    | FromAuditor
)
