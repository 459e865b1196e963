"""The signature algorithms of tokens: explicit lists, never the library's idea of what is recommended.

Our own tokens are signed with ES256, Ed25519, PS256 or RS256 (RFC 9068 section 2.1 wants the last of every authority), as the
configuration says, and nothing else is accepted for them. Clients' assertions, proofs of possession and the tokens of other
issuers may use P-384 as well, as that is what those have. `Ed25519` is the fully specified name (RFC 9864) of what used to be
called EdDSA, which is taken for the same, and given where the configuration says so, as many libraries know no other. An RSA
key is used with the algorithm that its JWK names, or with either (RFC 8725 section 3.1); one of ours always names it.
"""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from security.keys import SigningPrivateKey

ALGORITHMS = ("ES256", "Ed25519", "EdDSA", "PS256", "RS256")
FOREIGN_ALGORITHMS = ("ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256")
RSA_ALGORITHMS = ("PS256", "RS256")
MIN_RSA_BITS = 2048
JoseKey = ECKey | OKPKey | RSAKey

_registry = JWSRegistry(algorithms=[name for name in FOREIGN_ALGORITHMS if name != "EdDSA"], strict_check_header=False)
FOREIGN_MODELS: dict[str, Any] = {
    name: _registry.get_alg("Ed25519" if name == "EdDSA" else name) for name in FOREIGN_ALGORITHMS
}
"""joserfc's implementation of each algorithm: it checks the key's type and curve before it uses it."""
MODELS: dict[str, Any] = {name: FOREIGN_MODELS[name] for name in ALGORITHMS}

_CURVE_ALGORITHMS = {"P-256": ("ES256",), "P-384": ("ES384",), "Ed25519": ("Ed25519", "EdDSA")}


def algorithms_of(key: JoseKey) -> tuple[str, ...]:
    """The algorithms that a key may be used with; none for a curve that has none here, or an RSA key that is too short."""
    if isinstance(key, RSAKey):
        named = key.alg
        fitting = RSA_ALGORITHMS if named is None else tuple(one for one in RSA_ALGORITHMS if one == named)
        return fitting if key.public_key.key_size >= MIN_RSA_BITS else ()
    return _CURVE_ALGORITHMS.get(key.curve_name, ())


def is_same_algorithm(one: object, other: str) -> bool:
    """True for equal names, and for the two of Ed25519: a key is published under either, and used under the other."""
    return one == other or (other in _CURVE_ALGORITHMS["Ed25519"] and one in _CURVE_ALGORITHMS["Ed25519"])


def algorithm_of(key: JoseKey) -> str | None:
    """The one algorithm that a key of ours is used with; None for a key that none of ours can be."""
    fitting = algorithms_of(key)
    found = key.alg if key.alg in fitting else next(iter(fitting), None)
    return found if found in ALGORITHMS else None


def import_private_key(key: SigningPrivateKey | RSAPrivateKey, algorithm: str | None = None) -> JoseKey:
    """A private key in the form that signs tokens, its id the RFC 7638 thumbprint.

    Args:
        algorithm: of those that its kind can be used with the one that it is; one of RSA MUST have it.
    """
    match key:
        case RSAPrivateKey():
            assert algorithm in RSA_ALGORITHMS
            imported: JoseKey = RSAKey(key, key, {"alg": algorithm})
        case EllipticCurvePrivateKey():
            imported = ECKey(key, key)
        case Ed25519PrivateKey():
            imported = OKPKey(key, key, None if algorithm is None else {"alg": algorithm})
    imported.ensure_kid()
    return imported
