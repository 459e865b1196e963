"""People with keys, a customer's root, a role file, and a host that believes them: for tests of models and bundles."""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from security.bundles.roots import TUF_ROLES, build_root, sign_root
from security.bundles.trust import HostTrust
from security.model_signing.elliptic import hash_of_curve
from security.model_signing.signer import ModelSigner
from security.stewards.envelope import sign_envelope
from security.stewards.role_file import ROLE_FILE_TYPE, RoleFile, parse_role_file

FAR = datetime.datetime(2126, 1, 1, tzinfo=datetime.UTC)
DEFAULT_ROLES: Mapping[str, Sequence[str]] = {
    "ines": ("importer", "steward"),
    "ada": ("steward",),
    "bob": ("steward",),
    "olga": ("operator",),
    "omar": ("operator",),
}


@dataclass
class Holder:
    """Somebody with a key."""

    name: str
    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))

    @property
    def signer(self) -> ModelSigner:
        return ModelSigner(self.key.public_key(), self._sign)

    def _sign(self, message: bytes) -> bytes:
        digest = hash_of_curve(self.key.curve)
        assert digest is not None
        return self.key.sign(message, ECDSA(digest))

    @property
    def public_pem(self) -> str:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def write(self, folder: Path) -> Path:
        """The private key as a file, with the public one beside it; gives the private one's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.pem"
        path.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        (folder / f"{self.name}.pub").write_text(self.public_pem)
        return path


def role_document(people: Mapping[str, tuple[Sequence[str], Sequence[Holder]]], version: int = 1) -> dict[str, object]:
    """A role file's content."""
    return {
        "type": "casemate.roles/1",
        "version": version,
        "expires_at": "2126-01-01T00:00:00Z",
        "approvals_required": 2,
        "people": [
            {"name": name, "roles": list(roles), "keys": [holder.public_pem for holder in holders]}
            for name, (roles, holders) in people.items()
        ],
    }


def make_root(*holders: Holder, threshold: int = 1, expires_at: datetime.datetime = FAR) -> bytes:
    """A TUF root whose every role is the holders', signed by all of them."""
    keys = {role: [holder.key.public_key() for holder in holders] for role in TUF_ROLES}
    data = build_root(keys, dict.fromkeys(TUF_ROLES, threshold), expires_at=expires_at)
    for holder in holders:
        data = sign_root(data, holder.signer)
    return data


@dataclass
class Stewardship:
    """A customer: a root holder, and people by name."""

    root_holder: Holder = field(default_factory=lambda: Holder("root"))
    people: dict[str, Holder] = field(default_factory=lambda: {name: Holder(name) for name in DEFAULT_ROLES})

    def document(self, version: int = 1) -> dict[str, object]:
        people = {name: (DEFAULT_ROLES[name], [holder]) for name, holder in self.people.items()}
        return role_document(people, version)

    @property
    def roles(self) -> RoleFile:
        return parse_role_file(json.dumps(self.document()).encode())

    def signed_roles(self, version: int = 1) -> bytes:
        return sign_envelope(ROLE_FILE_TYPE, json.dumps(self.document(version)).encode(), self.root_holder.signer)

    def establish(self, state: Path) -> HostTrust:
        """Let the host of a state folder believe this customer."""
        trust = HostTrust(state / "trust")
        root = make_root(self.root_holder)
        trust.pin_root("customer", root, hashlib.sha256(root).hexdigest())
        trust.install_roles(self.signed_roles(), at=datetime.datetime.now(datetime.UTC))
        return trust

    def signer(self, name: str) -> ModelSigner:
        return self.people[name].signer
