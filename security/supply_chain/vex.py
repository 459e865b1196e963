"""VEX: what the vendor says about vulnerabilities in parts of a release. OpenVEX 0.2.0.

A statement counts for exactly the package URLs that it names. A document without statements is none, and a statement says why a
part is not affected, or what to do where it is. Source: OpenVEX specification 0.2.0 and its JSON schema.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from security.errors import EvidenceRejected, MalformedDocument
from security.json_object import parse_json_object

CONTEXT = "https://openvex.dev/ns/v0.2.0"
MAX_VEX_BYTES = 16 << 20
Status = Literal["not_affected", "affected", "fixed", "under_investigation"]
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)


@dataclass(frozen=True, slots=True)
class VexStatement:
    """What is said about one vulnerability in some parts."""

    vulnerability: str
    products: tuple[str, ...]
    """Package URLs."""
    status: Status
    justification: str = ""
    """One of JUSTIFICATIONS where the status is `not_affected`."""
    action: str = ""
    """What to do, where the status is `affected`."""


def encode_vex(document_id: str, author: str, timestamp: str, statements: Iterable[VexStatement]) -> bytes:
    """The document. `timestamp` is given, so that the same statements give the same bytes.

    Raises: EvidenceRejected for what OpenVEX does not allow.
    """
    listed = list(statements)
    if not listed:
        raise EvidenceRejected("VEX: has no statement: expected at least one")
    for statement in listed:
        _verify(statement)
    document = {
        "@context": CONTEXT,
        "@id": document_id,
        "author": author,
        "timestamp": timestamp,
        "version": 1,
        "statements": [_encode(statement) for statement in listed],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_vex(data: bytes) -> list[VexStatement]:
    """The statements of a document. Raises: EvidenceRejected."""
    if len(data) > MAX_VEX_BYTES:
        raise EvidenceRejected(f"VEX: longer than {MAX_VEX_BYTES} bytes")
    try:
        document = parse_json_object(data)
        if document.get("@context") != CONTEXT:
            raise MalformedDocument(f"expected @context {CONTEXT}")
        return [_parse(entry) for entry in document["statements"]]
    except (MalformedDocument, KeyError, TypeError, AttributeError) as error:
        raise EvidenceRejected(f"VEX: {error}") from None


def _encode(statement: VexStatement) -> dict[str, object]:
    encoded: dict[str, object] = {
        "vulnerability": {"name": statement.vulnerability},
        "products": [{"@id": purl} for purl in statement.products],
        "status": statement.status,
    }
    reasons = {"justification": statement.justification, "action_statement": statement.action}
    return encoded | {name: reason for name, reason in reasons.items() if reason}


def _verify(statement: VexStatement) -> None:
    if statement.status == "not_affected" and statement.justification not in JUSTIFICATIONS:
        raise EvidenceRejected(f"VEX: {statement.vulnerability}: not_affected needs one of OpenVEX's justifications")
    if statement.status == "affected" and not statement.action:
        raise EvidenceRejected(f"VEX: {statement.vulnerability}: affected needs an action: what to do about it")


def _parse(entry: dict[str, object]) -> VexStatement:
    status = entry["status"]
    if status not in get_args(Status):
        raise MalformedDocument(f"status {status!r:.80} is none")
    products = tuple(str(product["@id"]) for product in entry["products"])  # type: ignore[attr-defined]
    name = str(entry["vulnerability"]["name"])  # type: ignore[index]
    justification, action = (str(entry.get(key) or "") for key in ("justification", "action_statement"))
    statement = VexStatement(name, products, status, justification, action)  # type: ignore[arg-type]
    _verify(statement)
    return statement
