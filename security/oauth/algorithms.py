"""The signature algorithms of tokens: explicit lists, never the library's idea of what is recommended.

Our own tokens are signed with ES256 or Ed25519 and nothing else is accepted for them. Clients' assertions, proofs of
possession and the tokens of other issuers may use RSA and P-384 as well, as that is what those have. `Ed25519` is the fully
specified name (RFC 9864) of what used to be called EdDSA, which is taken for the same. An RSA key is used with the algorithm
that its JWK names, or with either.
"""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from security.keys import SigningPrivateKey

ALGORITHMS = ("ES256", "Ed25519")
FOREIGN_ALGORITHMS = ("ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256")
MIN_RSA_BITS = 2048
JoseKey = ECKey | OKPKey | RSAKey

_registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
MODELS: dict[str, Any] = {name: _registry.get_alg(name) for name in ALGORITHMS}
"""joserfc's implementation of each algorithm: it checks the key's type and curve before it uses it."""


_foreign = JWSRegistry(algorithms=[name for name in FOREIGN_ALGORITHMS if name != "EdDSA"], strict_check_header=False)
FOREIGN_MODELS: dict[str, Any] = {
    name: _foreign.get_alg("Ed25519" if name == "EdDSA" else name) for name in FOREIGN_ALGORITHMS
}

_CURVE_ALGORITHMS = {"P-256": ("ES256",), "P-384": ("ES384",), "Ed25519": ("Ed25519", "EdDSA")}


def algorithms_of(key: JoseKey) -> tuple[str, ...]:
    """The algorithms that a key may be used with; none for a curve that has none here, or an RSA key that is too short."""
    if isinstance(key, RSAKey):
        return ("PS256", "RS256") if key.public_key.key_size >= MIN_RSA_BITS else ()
    return _CURVE_ALGORITHMS.get(key.curve_name, ())


def is_same_algorithm(one: object, other: str) -> bool:
    """True for equal names, and for the two of Ed25519: a key is published under either, and used under the other."""
    return one == other or (other in _CURVE_ALGORITHMS["Ed25519"] and one in _CURVE_ALGORITHMS["Ed25519"])


def algorithm_of(key: JoseKey) -> str | None:
    """The one algorithm that a key of ours is used with; None for a key that none of ours can be."""
    found = next(iter(algorithms_of(key)), None)
    return found if found in ALGORITHMS else None


def import_private_key(key: SigningPrivateKey) -> JoseKey:
    """A private key in the form that signs tokens, its id the RFC 7638 thumbprint."""
    match key:
        case EllipticCurvePrivateKey():
            imported: JoseKey = ECKey(key, key)
        case Ed25519PrivateKey():
            imported = OKPKey(key, key)
    imported.ensure_kid()
    return imported
