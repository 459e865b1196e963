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
from tuf.api.metadata import Metadata, Root

from security.bundles.trust import Owner, parse_root
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


def sign_root(data: bytes, signer: ModelSigner) -> bytes:
    """Add a signature to a root. Raises: TrustUnusable, KeyUnusable."""
    try:
        metadata = Metadata[Root].from_bytes(data)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises: this is no root
        raise TrustUnusable(f"root: {error}") from None
    metadata.sign(TufSigner(signer), append=True)
    signed: bytes = metadata.to_bytes()
    return signed


def is_complete(data: bytes, owner: Owner) -> bool:
    """Whether enough holders have signed a root."""
    try:
        parse_root(data, owner)
    except TrustUnusable:
        return False
    return True
