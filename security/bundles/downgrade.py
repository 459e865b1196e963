"""Leave to go back to older software: the signatures of two operators over exactly this step.

Old software has old holes, and a host that can be talked into it has them again. So the other slot, and newer metadata that
names an older target, are taken only if two people with the role `operator` have signed: from which release, to which, until when.
"""

import datetime
from dataclasses import dataclass

from security.bundles.slots import SlotContent
from security.errors import BundleRejected, MalformedDocument
from security.model_signing.signer import ModelSigner
from security.stewards.envelope import add_signature, find_signers, parse_envelope, sign_envelope
from security.stewards.importing import find_signer
from security.stewards.role_file import MIN_APPROVALS, Person, RoleFile, parse_time
from security.stewards.statements import (
    STATEMENT_PAYLOAD_TYPE,
    Statement,
    encode_model_statement,
    format_time,
    parse_model_statement,
)

DOWNGRADE = "urn:casemate:downgrade:1"


@dataclass(frozen=True, slots=True)
class Step:
    """From one release to another, by their digests."""

    from_digest: str
    to_digest: str
    to_version: str


def step_between(running: SlotContent, version: str, digest: str) -> Step:
    """The step from what runs."""
    return Step(running.digest, digest, version)


def sign_downgrade(step: Step, roles: RoleFile, signer: ModelSigner, *, until: datetime.datetime) -> bytes:
    """The first operator's leave. Raises: ModelNotApproved, KeyUnusable."""
    find_signer(roles, signer, "operator")
    predicate = {"from_digest": step.from_digest, "expires_at": format_time(until)}
    payload = encode_model_statement(Statement(DOWNGRADE, step.to_version, step.to_digest, predicate))
    return sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer)


def countersign_downgrade(data: bytes, roles: RoleFile, signer: ModelSigner) -> tuple[bytes, Person]:
    """The second operator's leave, to the same step. Raises: ModelNotApproved, BundleRejected, KeyUnusable."""
    person = find_signer(roles, signer, "operator")
    try:
        parse_model_statement(parse_envelope(data).payload, DOWNGRADE)
        return add_signature(data, signer), person
    except MalformedDocument as error:
        raise BundleRejected(f"leave to go back: {error}") from None


def verify_downgrade(data: bytes, step: Step, roles: RoleFile, *, now: datetime.datetime) -> tuple[str, ...]:
    """Verify that two operators allow exactly this step now.

    Returns: their names.
    Raises: BundleRejected.
    """
    try:
        envelope = parse_envelope(data)
        if envelope.payload_type != STATEMENT_PAYLOAD_TYPE:
            raise MalformedDocument("payloadType is of something else")
        statement = parse_model_statement(envelope.payload, DOWNGRADE)
        signers = find_signers(envelope, roles.keys_of("operator"))
        until = parse_time(statement.predicate.get("expires_at"), "expires_at")
    except MalformedDocument as error:
        raise BundleRejected(f"leave to go back: {error}") from None
    found = Step(str(statement.predicate.get("from_digest")), statement.root, statement.model)
    if found != step:
        raise BundleRejected("leave to go back: was given for another step than from what runs to this release")
    if now >= until:
        raise BundleRejected(f"leave to go back: ended on {until:%Y-%m-%d %H:%M} UTC")
    names = sorted({person.name for key_id in signers if (person := roles.person_of(key_id)) is not None})
    if len(names) < MIN_APPROVALS:
        raise BundleRejected(f"leave to go back: given by {len(names)} operators, expected {MIN_APPROVALS}")
    return tuple(names)
