"""VEX: what the vendor says about vulnerabilities in parts of a release. OpenVEX 0.2.0.

A statement counts for exactly the package URLs that it names. Source: OpenVEX specification 0.2.0.
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


def encode_vex(document_id: str, author: str, timestamp: str, statements: Iterable[VexStatement]) -> bytes:
    """The document. `timestamp` is given, so that the same statements give the same bytes."""
    document = {
        "@context": CONTEXT,
        "@id": document_id,
        "author": author,
        "timestamp": timestamp,
        "version": 1,
        "statements": [_encode(statement) for statement in statements],
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
    return encoded | ({"justification": statement.justification} if statement.justification else {})


def _parse(entry: dict[str, object]) -> VexStatement:
    status, justification = entry["status"], str(entry.get("justification") or "")
    if status not in get_args(Status):
        raise MalformedDocument(f"status {status!r:.80} is none")
    if status == "not_affected" and justification not in JUSTIFICATIONS:
        raise MalformedDocument("not_affected needs one of OpenVEX's justifications")
    products = tuple(str(product["@id"]) for product in entry["products"])  # type: ignore[attr-defined]
    name = str(entry["vulnerability"]["name"])  # type: ignore[index]
    return VexStatement(name, products, status, justification)  # type: ignore[arg-type]
