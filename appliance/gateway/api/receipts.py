"""`GET /audit/request/{id}`: a client's own receipt, which `casemate audit verify-receipt` and any C2SP tool can check.

`GET /audit/proof/{id}`: the proof that a record is in the log, by its index. It is hashes only: whoever has it needs the record.
"""

from appliance.gateway.errors import NotFound
from appliance.gateway.exchange import Exchange
from appliance.gateway.peers.auditor import AuditorPeer
from appliance.messages.audit import ReceiptRecord
from audit.receipt import AuditReceipt, ReceiptEntry, encode_receipt

MAX_INDEX_DIGITS = 18


class ReceiptEndpoint:
    """Gives out receipts; the auditor decides whose they are."""

    def __init__(self, auditor: AuditorPeer) -> None:
        self._auditor = auditor

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        who = exchange.identified
        receipt = await self._auditor.fetch_receipt(exchange.segment, who.client_id, who.subject)
        body = AuditReceipt(
            intent=_entry(receipt.intent),
            outcome=None if receipt.outcome is None else _entry(receipt.outcome),
            log_vkey=receipt.log_vkey,
        )
        await exchange.respond_bytes(200, encode_receipt(body), b"application/json")


class ProofEndpoint:
    """Gives out proofs."""

    def __init__(self, auditor: AuditorPeer) -> None:
        self._auditor = auditor

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        index = exchange.segment
        if not (index.isascii() and index.isdigit() and len(index) <= MAX_INDEX_DIGITS):
            raise NotFound("record_not_found", "expected the index of a record")
        proof = await self._auditor.fetch_proof(int(index))
        await exchange.respond_bytes(200, proof.encode(), b"text/plain; charset=utf-8")


def _entry(record: ReceiptRecord) -> ReceiptEntry:
    return ReceiptEntry(index=record.index, record=record.record.decode(), proof=record.proof)
