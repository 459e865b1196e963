"""The auditor as the gateway sees it: intents before, outcomes after, receipts on request."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from appliance.gateway.errors import BadRequest, GatewayFault, InternalFault, NotFound, PeerUnavailable
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.messages.audit import (
    MAX_UID_CHARS,
    AppendEvent,
    AppendIntent,
    AppendOutcome,
    AppendRefused,
    AuditorStatus,
    FetchProof,
    FetchReceipt,
    IntentRecorded,
    Proof,
    Receipt,
    Recorded,
)
from appliance.messages.stewardship import (
    BodiesDestroyed,
    BodyKeyKept,
    BodyShare,
    DecideChange,
    FetchRules,
    HashRootKept,
    KeepBodyKey,
    KeepHashRoot,
    OpenBody,
    ProposeChange,
    RulesNow,
)

_Answer = TypeVar("_Answer")

TOLD = 0
"""Correlation of what nobody waits for; questions count from 1."""

log = structlog.get_logger(__name__)


class AuditorPeer:
    """The one auditor. `on_lost` is called when its link ends: nothing may be answered unrecorded."""

    def __init__(self, timeout_s: float, on_lost: Callable[[GatewayFault], None]) -> None:
        self._questions = Questions("audit_unavailable", "the audit log", timeout_s)
        self._on_lost = on_lost
        self.on_destroyed: Callable[[BodiesDestroyed], None] = lambda _message: None
        self.status: AuditorStatus | None = None
        self.status_at = 0.0

    @property
    def connected(self) -> bool:
        """There is a link."""
        return self._questions.connected

    def verify_connected(self) -> None:
        """Refuse early. Raises: PeerUnavailable."""
        self._questions.verify_connected()

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        self._questions.attach(link)
        try:
            await link.serve(self._handle)
        finally:
            if self._questions.detach(link):
                self.status = None
                self._on_lost(self._questions.unavailable("was lost: nothing is answered that cannot be recorded"))

    def send_intent(
        self, build: Callable[[int], AppendIntent], if_late: Callable[[int], AppendOutcome | None]
    ) -> Awaitable[IntentRecorded]:
        """Append an intent, which is sent now; it is durable when what this returns has been awaited, which the caller MUST do.

        Args:
            if_late: builds the outcome, from its index, of an intent that became durable when nobody awaited it any more; None if
                that is cared for.
        Raises: PeerUnavailable; awaiting raises that and InternalFault.
        """

        def close(answer: object) -> None:
            if isinstance(answer, IntentRecorded) and (outcome := if_late(answer.index)) is not None:
                self._questions.tell(outcome)

        return self._recorded(self._questions.ask(build, close))

    async def _recorded(self, asked: Awaitable[object]) -> IntentRecorded:
        return self._checked(await asked, IntentRecorded)

    async def record_outcome(self, build: Callable[[int], AppendOutcome]) -> Recorded:
        """Append an outcome; when this returns it is durable. Raises: PeerUnavailable, InternalFault."""
        return self._checked(await self._questions.ask(build), Recorded)

    async def record(self, event: bytes) -> None:
        """Append an event; when this returns it is durable. Raises: PeerUnavailable, InternalFault."""
        self._checked(await self._questions.ask(lambda number: AppendEvent(number, event)), Recorded)

    def report(self, event: bytes) -> None:
        """Append an event that nobody waits for. Without an auditor it is dropped: nothing was served either."""
        self._questions.tell(AppendEvent(TOLD, event))

    async def fetch_receipt(self, request_uid: str, client_id: str, subject: str) -> Receipt:
        """The receipt of a client's own request, or of a person's by it. Raises: NotFound, PeerUnavailable, InternalFault."""
        if len(request_uid) > MAX_UID_CHARS:
            # No message carries it: the link would end, and everybody's answers with it.
            raise NotFound("receipt_not_found", "no request of this client has this id")
        answer = await self._questions.ask(lambda number: FetchReceipt(number, request_uid, client_id, subject))
        return self._checked(answer, Receipt)

    async def fetch_proof(self, index: int) -> str:
        """The tlog-proof of one record. Raises: NotFound, PeerUnavailable, InternalFault."""
        answer = await self._questions.ask(lambda number: FetchProof(number, index))
        return self._checked(answer, Proof).proof

    async def keep_body_key(self, build: Callable[[int], KeepBodyKey]) -> bytes:
        """The second share of a new key, which is kept. Raises: PeerUnavailable, InternalFault."""
        return self._checked(await self._questions.ask(build), BodyKeyKept).share

    async def keep_hash_root(self, build: Callable[[int], KeepHashRoot]) -> bytes:
        """The root of a tenant's keyed hashes, which is kept. Raises: PeerUnavailable, InternalFault."""
        return self._checked(await self._questions.ask(build), HashRootKept).root

    async def open_body(self, build: Callable[[int], OpenBody]) -> BodyShare:
        """The second share of a record's body; when this returns it is recorded who opens it.

        Raises: NotFound, PeerUnavailable, InternalFault.
        """
        return self._checked(await self._questions.ask(build), BodyShare)

    async def govern(self, build: Callable[[int], ProposeChange | DecideChange | FetchRules]) -> RulesNow:
        """Propose, decide or look. Raises: BadRequest, PeerUnavailable, InternalFault."""
        return self._checked(await self._questions.ask(build), RulesNow)

    def _handle(self, message: Any) -> None:
        if isinstance(message, AuditorStatus):
            self.status, self.status_at = message, time.monotonic()
        elif isinstance(message, BodiesDestroyed):
            self.on_destroyed(message)
        elif message.correlation == TOLD:
            if (
                isinstance(message, AppendRefused) and message.code != "rationed"
            ):  # Those are counted in a record of their own.
                log.error("event_refused", code=message.code, reason=message.message)
        else:
            self._questions.answer(message.correlation, message)

    def _checked(self, answer: object, expected: type[_Answer]) -> _Answer:
        if isinstance(answer, expected):
            return answer
        if isinstance(answer, AppendRefused):
            match answer.code:
                case "not_found":
                    raise NotFound("receipt_not_found", answer.message)
                case "refused":
                    raise BadRequest("refused", answer.message)
                case "not_durable":
                    raise PeerUnavailable("audit_unavailable", "the audit log cannot take records: " + answer.message)
                case code:
                    raise InternalFault("audit_refused", f"the auditor refused a record: {code}")
        raise InternalFault("audit_refused", f"the auditor answered with {type(answer).__name__}")
