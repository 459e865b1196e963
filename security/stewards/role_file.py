"""The role file: which people may import, approve and roll back, and with which keys. Signed by the root of trust.

    {"type": "casemate.roles/1", "version": 3, "expires_at": "2027-11-25T00:00:00Z", "approvals_required": 2,
     "people": [{"name": "ada", "roles": ["importer", "steward"], "keys": ["-----BEGIN PUBLIC KEY-----…"]}]}

Rules count people, not keys: a person may have several keys and is still one. So no key may stand twice in the file.
What always holds: a file is used only if as many of the anchor's keys as its threshold says have signed it, it has not
expired, and its version is not below one that was used before.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from security.errors import MalformedDocument, TrustUnusable
from security.json_object import parse_json_object
from security.model_signing.elliptic import CURVES, hash_of_curve
from security.stewards.envelope import find_signers, key_id_of, parse_envelope

ROLE_FILE_TYPE = "application/vnd.casemate.roles+json"
FORMAT = "casemate.roles/1"
MIN_APPROVALS = 2
_MAX_PEOPLE = 1000

Role = Literal["importer", "steward", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""`importer` brings models in, `steward` approves and retires them, `operator` agrees to older software."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Keys that may sign role files, and how many of them must."""

    keys: Mapping[str, EllipticCurvePublicKey]
    """By key id."""
    threshold: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, with the keys by which they sign."""

    name: str
    roles: frozenset[Role]
    keys: Mapping[str, EllipticCurvePublicKey]


@dataclass(frozen=True, slots=True)
class RoleFile:
    """A verified role file."""

    version: int
    expires_at: datetime.datetime
    approvals_required: int
    people: tuple[Person, ...]

    def keys_of(self, role: Role) -> dict[str, EllipticCurvePublicKey]:
        """The keys of all who have a role, by key id."""
        return {key_id: key for person in self.people if role in person.roles for key_id, key in person.keys.items()}

    def person_of(self, key_id: str) -> Person | None:
        """Whose key it is."""
        return next((person for person in self.people if key_id in person.keys), None)


def verify_role_file(data: bytes, anchor: Anchor, *, at: datetime.datetime, least_version: int = 1) -> RoleFile:
    """Verify and parse an untrusted role file.

    Args:
        at: now, in UTC; an expired file is refused.
        least_version: the highest version that was used before. The caller MUST remember it.
    Raises: TrustUnusable for whatever is refused.
    """
    try:
        envelope = parse_envelope(data)
        if envelope.payload_type != ROLE_FILE_TYPE:
            raise MalformedDocument(f"payloadType is {envelope.payload_type[:80]!r}, expected {ROLE_FILE_TYPE}")
        signers = find_signers(envelope, anchor.keys)
        if len(signers) < anchor.threshold:
            raise MalformedDocument(
                f"signed by {len(signers)} of the keys in the newest customer root, expected {anchor.threshold}: have its holders "
                "sign it (`casemate trust sign-roles`), and put that into force (`casemate trust install-roles`)"
            )
        roles = parse_role_file(envelope.payload)
    except MalformedDocument as error:
        raise TrustUnusable(f"role file: {error}") from None
    if at >= roles.expires_at:
        raise TrustUnusable(f"role file: expired on {roles.expires_at:%Y-%m-%d}, and today is {at:%Y-%m-%d}")
    if roles.version < least_version:
        raise TrustUnusable(f"role file: version {roles.version} is older than version {least_version} used before")
    return roles


def parse_role_file(payload: bytes) -> RoleFile:
    """Parse the signed part.

    Raises: MalformedDocument for whatever is refused.
    """
    document = parse_json_object(payload)
    expected = {"type", "version", "expires_at", "approvals_required", "people"}
    if set(document) != expected:
        raise MalformedDocument(f"expected exactly the members {', '.join(sorted(expected))}")
    if document["type"] != FORMAT:
        raise MalformedDocument(f"type: expected {FORMAT}")
    version = _parse_count(document["version"], "version", 1)
    approvals = _parse_count(document["approvals_required"], "approvals_required", MIN_APPROVALS)
    people = document["people"]
    if type(people) is not list or not 1 <= len(people) <= _MAX_PEOPLE:
        raise MalformedDocument(f"people: expected 1 to {_MAX_PEOPLE}")
    parsed = tuple(_parse_person(entry) for entry in people)
    _refuse_repetition("name", [person.name for person in parsed])
    _refuse_repetition("key", [key_id for person in parsed for key_id in person.keys])
    return RoleFile(version, parse_time(document["expires_at"], "expires_at"), approvals, parsed)


def _parse_person(entry: Any) -> Person:
    if type(entry) is not dict or set(entry) != {"name", "roles", "keys"}:
        raise MalformedDocument("people: each has name, roles and keys")
    name, roles, keys = entry["name"], entry["roles"], entry["keys"]
    if type(name) is not str or not (name.isascii() and name.isprintable() and 0 < len(name) <= 128):
        raise MalformedDocument("people: a name is 1 to 128 printable ASCII characters")
    if type(roles) is not list or not roles or not all(role in ROLES for role in roles):
        raise MalformedDocument(f"{name}: roles: expected some of {', '.join(ROLES)}")
    if type(keys) is not list or not keys:
        raise MalformedDocument(f"{name}: keys: expected at least one")
    parsed = [_parse_key(key, name) for key in keys]
    _refuse_repetition("key", [key_id_of(key) for key in parsed])
    return Person(name, frozenset(roles), {key_id_of(key): key for key in parsed})


def _parse_key(text: Any, name: str) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(text.encode("ascii"))
    except (ValueError, AttributeError, UnsupportedAlgorithm):
        raise MalformedDocument(f"{name}: keys: not a PEM public key") from None
    if not isinstance(key, EllipticCurvePublicKey) or hash_of_curve(key.curve) is None:
        raise MalformedDocument(f"{name}: keys: a key of another kind: expected {CURVES}")
    return key


def _parse_count(value: Any, name: str, least: int) -> int:
    if type(value) is not int or not least <= value < 1 << 31:
        raise MalformedDocument(f"{name}: expected a whole number from {least}")
    return value


def parse_time(text: Any, name: str) -> datetime.datetime:
    """A time in UTC, as `2026-11-25T12:00:00Z`. Raises: MalformedDocument."""
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    except (ValueError, TypeError):
        raise MalformedDocument(f"{name}: expected a time like 2026-11-25T12:00:00Z") from None


def _refuse_repetition(what: str, values: list[str]) -> None:
    if repeated := {value for value in values if values.count(value) > 1}:
        raise MalformedDocument(f"people: the same {what} occurs twice: {min(repeated)[:40]}")
