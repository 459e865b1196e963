"""A TUF root as a host first believes it, and what its keys vouch for. See `trust` for where it lies.

Source: The Update Framework specification, section 5.3; a root is signed by its own keys.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from security.bundles.trust import MAX_ROOT_BYTES, Owner
from security.errors import TrustUnusable
from security.model_signing.elliptic import CURVES, hash_of_curve
from security.stewards.envelope import key_id_of
from security.stewards.role_file import Anchor


def parse_root(data: bytes, owner: Owner) -> Root:
    """Parse a TUF root that signs itself, as a first root does.

    Raises: TrustUnusable.
    """
    if len(data) > MAX_ROOT_BYTES:
        raise TrustUnusable(f"{owner} root: longer than {MAX_ROOT_BYTES} bytes")
    try:
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise TrustUnusable(f"{owner} root: is TUF metadata of another role")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError, KeyError, TypeError) as error:
        raise TrustUnusable(f"{owner} root: {error}") from None
    return metadata.signed


def anchor_of(root: Root) -> Anchor:
    """The keys of a root's own role, and their threshold.

    Raises: TrustUnusable for a key that cannot sign role files.
    """
    role = root.roles[Root.type]
    keys = {}
    for key_id in role.keyids:
        key = _load_key(root.keys[key_id].keyval.get("public", ""))
        keys[key_id_of(key)] = key
    return Anchor(keys, role.threshold)


def _load_key(text: str) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or hash_of_curve(key.curve) is None:
        raise TrustUnusable(f"root: a root key is of another kind: expected {CURVES}")
    return key
