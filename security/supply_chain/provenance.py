"""Provenance: how a release was made, as a signed SLSA statement over its files. One DSSE envelope a line (`.intoto.jsonl`).

The subjects are the release's files, the SBOM and the VEX among them, so that one signature covers all. A verifier refuses
parameters that it does not know: they could have changed what was built. Source: SLSA provenance v1; in-toto Statement v1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from security.errors import EvidenceRejected, MalformedDocument
from security.json_object import parse_json_object
from security.model_signing.signer import ModelSigner
from security.stewards.envelope import MAX_ENVELOPE_BYTES, find_signers, key_id_of, parse_envelope, sign_envelope
from security.stewards.statements import STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE
from security.supply_chain.components import Component

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:casemate:image-build:1"
PARAMETERS = frozenset(("source_commit", "dockerfile_sha256", "wheels_lock_sha256", "debs_lock_sha256", "target"))


@dataclass(frozen=True, slots=True)
class Provenance:
    """How files came about."""

    subjects: Mapping[str, str]
    """SHA-256, hexadecimal, of each file by its name."""
    parameters: Mapping[str, str]
    builder: str
    dependencies: Mapping[str, str]
    """SHA-256, hexadecimal, of what was built from, by package URL."""


def sign_provenance(provenance: Provenance, signer: ModelSigner) -> bytes:
    """One line of a `.intoto.jsonl` file. Raises: KeyUnusable."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(provenance.subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(provenance.parameters),
                "internalParameters": {},
                "resolvedDependencies": [
                    {"uri": purl, "digest": {"sha256": digest}}
                    for purl, digest in sorted(provenance.dependencies.items())
                ],
            },
            "runDetails": {"builder": {"id": provenance.builder}},
        },
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    envelope = json.loads(sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer))
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def dependencies_of(components: Sequence[Component]) -> dict[str, str]:
    """What provenance says of components that came as files."""
    return {component.purl: component.sha256 for component in components if component.sha256}


def verify_provenance(line: bytes, keys: Sequence[EllipticCurvePublicKey]) -> Provenance:
    """Verify the signature by one of the keys, and parse.

    Raises: EvidenceRejected.
    """
    try:
        envelope = parse_envelope(line[: MAX_ENVELOPE_BYTES + 1])
        if envelope.payload_type != STATEMENT_PAYLOAD_TYPE:
            raise MalformedDocument(f"payloadType is not {STATEMENT_PAYLOAD_TYPE}")
        if not find_signers(envelope, {key_id_of(key): key for key in keys}):
            raise MalformedDocument("signed by none of the keys given")
        return _parse(parse_json_object(envelope.payload))
    except (MalformedDocument, KeyError, TypeError, AttributeError) as error:
        raise EvidenceRejected(f"provenance: {error}") from None


def _parse(statement: dict[str, Any]) -> Provenance:
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
        raise MalformedDocument("not an SLSA provenance v1")
    definition = statement["predicate"]["buildDefinition"]
    if definition["buildType"] != BUILD_TYPE:
        raise MalformedDocument(f"buildType is another than {BUILD_TYPE}")
    parameters = definition["externalParameters"]
    if unknown := set(parameters) - PARAMETERS:
        raise MalformedDocument(f"externalParameters: {min(unknown)[:80]} is not known")
    return Provenance(
        subjects={str(one["name"]): str(one["digest"]["sha256"]) for one in statement["subject"]},
        parameters={str(name): str(value) for name, value in parameters.items()},
        builder=str(statement["predicate"]["runDetails"]["builder"]["id"]),
        dependencies={str(one["uri"]): str(one["digest"]["sha256"]) for one in definition["resolvedDependencies"]},
    )
