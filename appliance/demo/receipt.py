"""Verifies a receipt as a client would: with the log's public key, which it had before, and nothing else of the appliance."""

import json
from dataclasses import dataclass
from typing import Any

from appliance.errors import CommandFailed
from audit.checkpoint import Checkpoint
from audit.errors import AuditRejected
from audit.note import VerifierKey, parse_verifier_key
from audit.proof import verify_proof


@dataclass(frozen=True)
class VerifiedReceipt:
    """What a receipt proves: these records stand in the log at these places, under this checkpoint."""

    intent_index: int
    intent: dict[str, Any]
    outcome_index: int | None
    outcome: dict[str, Any] | None
    checkpoint: Checkpoint


def verify_receipt(document: dict[str, Any], vkey: str) -> VerifiedReceipt:
    """Verify the answer of `GET /audit/request/{id}` against the log's key.

    Args:
        document: `intent` and `outcome` (or null), each with `index`, `record` (the leaf's text) and `proof` (tlog-proof).
        vkey: the log's verifier key, from where the client trusts it; the one in the document is not used.
    Raises: CommandFailed that says what does not hold.
    """
    key = parse_verifier_key(vkey)
    try:
        intent_index, intent, checkpoint = _verify_record(document["intent"], key)
        outcome_index, outcome = None, None
        if document.get("outcome") is not None:
            outcome_index, outcome, checkpoint = _verify_record(document["outcome"], key)
    except (AuditRejected, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CommandFailed(f"the receipt does not verify: {error}") from error
    return VerifiedReceipt(intent_index, intent, outcome_index, outcome, checkpoint)


def _verify_record(part: dict[str, Any], key: VerifierKey) -> tuple[int, dict[str, Any], Checkpoint]:
    leaf = part["record"].encode()
    index, checkpoint = verify_proof(part["proof"].encode(), leaf, [key], key.name)
    return index, json.loads(leaf), checkpoint
