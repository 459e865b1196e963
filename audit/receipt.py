"""Receipts: the records of one request with their proofs, in one JSON file that needs nothing but a public key to be verified.

`{"intent": {"index", "record", "proof"}, "log_vkey", "outcome": {...}}`, the outcome being absent while the request runs.
`record` is the leaf's text, `proof` a C2SP tlog-proof. The `log_vkey` in it is for convenience: whoever verifies MUST bring the
key from elsewhere, as a forger would put in his own.
"""

from collections.abc import Sequence

import msgspec

from audit.checkpoint import Checkpoint
from audit.entry import Json, parse_canonical, parse_sequence
from audit.errors import MalformedProof, ProofRejected
from audit.note import VerifierKey
from audit.permissions import kind_of
from audit.proof import MAX_PROOF_BYTES, verify_proof

MAX_RECEIPT_BYTES = 3 * MAX_PROOF_BYTES


class ReceiptEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One leaf with its proof."""

    index: int
    record: str
    proof: str


class AuditReceipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Intent and outcome of a request."""

    intent: ReceiptEntry
    outcome: ReceiptEntry | None = None
    log_vkey: str


class VerifiedReceipt(msgspec.Struct, frozen=True):
    """What a verified receipt shows."""

    intent: Json
    outcome: Json | None
    checkpoints: list[Checkpoint]


_decoder = msgspec.json.Decoder(AuditReceipt)


def encode_receipt(receipt: AuditReceipt) -> bytes:
    """The receipt as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(receipt, order="sorted"), indent=2) + b"\n"


def parse_receipt(data: bytes) -> AuditReceipt:
    """Parse an untrusted receipt. Verifies nothing.

    Raises: MalformedProof.
    """
    if len(data) > MAX_RECEIPT_BYTES:
        raise MalformedProof(f"receipt: {len(data)} bytes, at most {MAX_RECEIPT_BYTES} are taken")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedProof(f"receipt: {error}") from error


def verify_receipt(data: bytes, keys: Sequence[VerifierKey], origin: str) -> VerifiedReceipt:
    """Verify a receipt: every record is in the log under a signed checkpoint, and they belong to one request.

    Raises: AuditRejected.
    """
    receipt = parse_receipt(data)
    intent, checkpoint = _verify_entry(receipt.intent, keys, origin, "inference_intent")
    checkpoints = [checkpoint]
    outcome = None
    if receipt.outcome is not None:
        outcome, checkpoint = _verify_entry(receipt.outcome, keys, origin, "inference_outcome")
        checkpoints.append(checkpoint)
        answered = outcome["unmapped"]["casemate"].get("intent_index")
        if answered != receipt.intent.index:
            raise ProofRejected(f"receipt: the outcome is of intent {answered}, not of {receipt.intent.index}")
    return VerifiedReceipt(intent, outcome, checkpoints)


def _verify_entry(entry: ReceiptEntry, keys: Sequence[VerifierKey], origin: str, kind: str) -> tuple[Json, Checkpoint]:
    try:
        record, proof = entry.record.encode(), entry.proof.encode()
    except UnicodeEncodeError as error:
        raise MalformedProof("receipt: is not Unicode text") from error
    index, checkpoint = verify_proof(proof, record, keys, origin)
    event = parse_canonical(record)
    if not index == entry.index == parse_sequence(record):
        raise ProofRejected(f"receipt: the record of index {entry.index} is proven at {index}")
    if kind_of(event) != kind:
        raise ProofRejected(f"receipt: record {index} is of kind {kind_of(event)!r}, expected {kind!r}")
    return event, checkpoint
