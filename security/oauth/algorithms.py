"""The signature algorithms of tokens: an explicit list, never the library's idea of what is recommended.

`Ed25519` is the fully specified name (RFC 9864) of what used to be called EdDSA.
"""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

from security.keys import SigningPrivateKey

ALGORITHMS = ("ES256", "Ed25519")
JoseKey = ECKey | OKPKey

_registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
MODELS: dict[str, Any] = {name: _registry.get_alg(name) for name in ALGORITHMS}
"""joserfc's implementation of each algorithm: it checks the key's type and curve before it uses it."""


def algorithm_of(key: JoseKey) -> str | None:
    """The one algorithm that a key may be used with; None for a curve that has none here."""
    if isinstance(key, ECKey):
        return "ES256" if key.curve_name == "P-256" else None
    return "Ed25519" if key.curve_name == "Ed25519" else None


def import_private_key(key: SigningPrivateKey) -> JoseKey:
    """A private key in the form that signs tokens, its id the RFC 7638 thumbprint."""
    match key:
        case EllipticCurvePrivateKey():
            imported: JoseKey = ECKey(key, key)
        case Ed25519PrivateKey():
            imported = OKPKey(key, key)
    imported.ensure_kid()
    return imported
