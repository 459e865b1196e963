"""What importers and stewards sign: in-toto statements about a model's root digest.

The subject is the model's name and the digest that stands for all of its files; the predicate says what is stated about it.
So an approval of one model is no approval of another, nor of the same files under another name.
Source: in-toto Attestation Framework, Statement v1.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from security.errors import MalformedDocument
from security.json_object import parse_json_object

STATEMENT_PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
IMPORT, APPROVAL, RETIREMENT = (f"urn:casemate:model-{what}:1" for what in ("import", "approval", "retirement"))


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement about one model."""

    predicate_type: str
    model: str
    root: str
    """SHA-256, hexadecimal, of the manifest."""
    predicate: Mapping[str, Any]


def format_time(at: datetime.datetime) -> str:
    """A time in UTC, to the second."""
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode_model_statement(statement: Statement) -> bytes:
    """The statement as it is signed."""
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": statement.model, "digest": {"sha256": statement.root}}],
        "predicateType": statement.predicate_type,
        "predicate": dict(statement.predicate),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_model_statement(payload: bytes, predicate_type: str) -> Statement:
    """Parse a statement of a stated kind whose signature was found good.

    Raises: MalformedDocument.
    """
    document = parse_json_object(payload)
    if set(document) != {"_type", "subject", "predicateType", "predicate"} or document["_type"] != STATEMENT_TYPE:
        raise MalformedDocument("statement: not an in-toto statement v1")
    if document["predicateType"] != predicate_type:
        raise MalformedDocument(f"statement: is another than {predicate_type}")
    match document["subject"]:
        case [{"name": str() as model, "digest": {"sha256": str() as root}}] if type(document["predicate"]) is dict:
            return Statement(predicate_type, model, root, document["predicate"])
    raise MalformedDocument("statement: expected one subject with a SHA-256 digest, and a predicate")
