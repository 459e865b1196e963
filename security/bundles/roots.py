"""Making and signing a TUF root: which keys may sign what of a repository.

A root is made from public keys alone and then signed by its holders one after the other, each on their own machine. Keys are on
P-256 or P-384 (what TUF's client verifies), in files or behind PKCS#11, and the same keys sign role files.
Source: TUF specification 1.0, sections 4.3 and 6.1.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from securesystemslib.signer import Key, Signature, Signer, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from security.bundles.root_document import parse_root
from security.bundles.trust import Owner
from security.errors import KeyUnusable, TrustUnusable
from security.model_signing.signer import ModelSigner

TufRole = Literal["root", "targets", "snapshot", "timestamp"]
TUF_ROLES: tuple[TufRole, ...] = ("root", "targets", "snapshot", "timestamp")
_SCHEMES = {"secp256r1": "ecdsa-sha2-nistp256", "secp384r1": "ecdsa-sha2-nistp384"}


class TufSigner(Signer):
    """One of our signers, as python-tuf calls it."""

    def __init__(self, signer: ModelSigner) -> None:
        self._signer = signer
        self._key = tuf_key(signer.public_key)

    @property
    def public_key(self) -> Key:
        """The key by which others verify."""
        return self._key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> "Signer":
        """Not used: signers are made from open keys."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign. Raises: KeyUnusable."""
        return Signature(self._key.keyid, self._signer.sign(payload).hex())


def tuf_key(key: EllipticCurvePublicKey) -> SSlibKey:
    """A public key as TUF metadata has it. Raises: KeyUnusable for P-521."""
    scheme = _SCHEMES.get(key.curve.name)
    if scheme is None:
        raise KeyUnusable(f"a key on {key.curve.name}: TUF metadata is signed by keys on P-256 or P-384")
    return SSlibKey.from_crypto(key, scheme=scheme)


def build_root(
    keys: Mapping[TufRole, Sequence[EllipticCurvePublicKey]],
    thresholds: Mapping[TufRole, int],
    *,
    expires_at: datetime.datetime,
    version: int = 1,
) -> bytes:
    """An unsigned root. Raises: TrustUnusable for a threshold that cannot be met."""
    root = Root(version=version, expires=expires_at.replace(microsecond=0), consistent_snapshot=True)
    for role in TUF_ROLES:
        for key in keys[role]:
            root.add_key(tuf_key(key), role)
        if not 1 <= thresholds[role] <= len(root.roles[role].keyids):
            raise TrustUnusable(f"root: {role}: {thresholds[role]} signatures by {len(keys[role])} keys cannot be")
        root.roles[role].threshold = thresholds[role]
    data: bytes = Metadata(root).to_bytes()
    return data


def sign_root(data: bytes, signer: ModelSigner, *, before: bytes | None = None) -> bytes:
    """Add a signature to a root; one that has the key's already is given back as it is.

    Args:
        before: the root that this one follows, whose holders sign as well.
    Raises: TrustUnusable for what is no root, or does not follow `before`; KeyUnusable for a key that neither names.
    """
    metadata, parts = _parse_unsigned(data), [_parse_unsigned(one) for one in (data, before) if one is not None]
    if before is not None and parts[1].signed.version + 1 != metadata.signed.version:
        raise TrustUnusable(
            f"root: version {metadata.signed.version} does not follow version {parts[1].signed.version}"
        )
    key_id = tuf_key(signer.public_key).keyid
    if (
        key_id in metadata.signatures
    ):  # Another signature by it would give the file another digest, and say nothing more.
        return data
    if not any(key_id in part.signed.roles[Root.type].keyids for part in parts):
        raise KeyUnusable("the key is none of those that this root names: its signature would count for nothing")
    metadata.sign(TufSigner(signer), append=True)
    signed: bytes = metadata.to_bytes()
    return signed


def version_of_root(data: bytes) -> int:
    """The version that a root says it has, whoever signed it. Raises: TrustUnusable."""
    return int(_parse_unsigned(data).signed.version)


def _parse_unsigned(data: bytes) -> Metadata[Root]:
    try:
        metadata = Metadata[Root].from_bytes(data)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises: this is no root
        raise TrustUnusable(f"root: {error}") from None
    if not isinstance(metadata.signed, Root):
        raise TrustUnusable("root: is TUF metadata of another role")
    return metadata


def is_complete(data: bytes, owner: Owner, *, before: bytes | None = None) -> bool:
    """Whether enough holders have signed a root, and enough of the root before it where there is one."""
    try:
        parse_root(data, owner)
        if before is not None:
            metadata = Metadata[Root].from_bytes(data)
            parse_root(before, owner).verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (TrustUnusable, RepositoryError):
        return False
    return True
