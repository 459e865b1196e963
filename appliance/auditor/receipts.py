"""Receipts on request: the records of one request with proofs, once a signed checkpoint covers them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.auditor.peer import Peer, Send
from appliance.auditor.requests import RequestRecords
from appliance.messages.audit import AppendRefused, FetchProof, Proof, Receipt, ReceiptRecord
from audit.append import LogWriter
from audit.errors import AuditFault, EntryNotFound

MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    peer: Peer
    correlation: int
    intent_index: int
    outcome_index: int | None
    deadline_s: float

    @property
    def needed_size(self) -> int:
        return max(self.intent_index, self.outcome_index or 0) + 1


class ReceiptDesk:
    """Those who wait for a receipt. They wait for the next checkpoint at most, as none is made for them.

    Args:
        cosigned: the last checkpoint with the words of a quorum of witnesses, verified; empty where there is none. Proofs of what
            it covers are under it, so that whoever knows the witnesses need not take the log's word for there being one history.
    """

    def __init__(self, writer: LogWriter, send: Send, wait_s: float, cosigned: Callable[[], bytes]) -> None:
        self._writer = writer
        self._send = send
        self._wait_s = wait_s
        self._cosigned = cosigned
        self._waiting: deque[_Waiting] = deque()

    @property
    def has_waiting(self) -> bool:
        """Somebody waits."""
        return bool(self._waiting)

    def ask(self, peer: Peer, correlation: int, records: RequestRecords, now_s: float) -> None:
        """Answer now, or with the checkpoint that covers the records."""
        if len(self._waiting) >= MAX_WAITING:
            self._send(peer, AppendRefused(correlation, "not_found", "too many receipts are waited for"))
            return
        deadline_s = now_s + self._wait_s
        self._waiting.append(_Waiting(peer, correlation, records.intent_index, records.outcome_index, deadline_s))

    def prove(self, peer: Peer, message: FetchProof) -> None:
        """The proof of one record, which is hashes only; to gateways."""
        if peer.peer_role != "gateway":
            self._send(peer, AppendRefused(message.correlation, "not_permitted", "only a gateway asks for proofs"))
            return
        try:
            proof = self._writer.prove(message.index, self._cosigned())
        except EntryNotFound:
            reason = f"no record {message.index} under a signed checkpoint yet"
            self._send(peer, AppendRefused(message.correlation, "not_found", reason))
        except AuditFault as fault:
            self._send(peer, AppendRefused(message.correlation, "damaged", str(fault)))
        else:
            self._send(peer, Proof(message.correlation, proof.decode()))

    def answer(self, now_s: float, fault: str) -> None:
        """Answer all that the last checkpoint covers, and refuse those who waited too long.

        Args:
            fault: why no checkpoint can be made now; empty when one can.
        """
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            if waiting.needed_size <= self._writer.checkpoint.size:
                self._send(waiting.peer, self._receipt(waiting))
            elif fault:
                self._send(waiting.peer, AppendRefused(waiting.correlation, "not_durable", fault))
            elif now_s >= waiting.deadline_s:
                message = "the request's records are not under a signed checkpoint yet"
                self._send(waiting.peer, AppendRefused(waiting.correlation, "not_found", message))
            else:
                self._waiting.append(waiting)

    def forget(self, is_gone: Callable[[Peer], bool]) -> None:
        """Drop those whose peer is gone."""
        self._waiting = deque(waiting for waiting in self._waiting if not is_gone(waiting.peer))

    def _receipt(self, waiting: _Waiting) -> Receipt | AppendRefused:
        try:
            outcome = None if waiting.outcome_index is None else self._record(waiting.outcome_index)
            intent = self._record(waiting.intent_index)
        except AuditFault as fault:
            return AppendRefused(waiting.correlation, "damaged", str(fault))
        return Receipt(waiting.correlation, intent, outcome, self._writer.key.encode())

    def _record(self, index: int) -> ReceiptRecord:
        return ReceiptRecord(index, self._writer.read(index), self._writer.prove(index, self._cosigned()).decode())
