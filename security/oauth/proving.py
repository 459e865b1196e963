"""What a client signs: proofs of possession (RFC 9449 section 4.2) and who it is (RFC 7523 section 3), with ES256.

The other side of `dpop` and `client_assertion`. A `ProofKey` lives in memory and as long as one session: a token bound to it
is worth nothing to whoever has the token alone.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from joserfc import jwt

from security.keys import SigningPrivateKey, generate_p256
from security.oauth.algorithms import JoseKey, algorithm_of, import_private_key
from security.oauth.dpop import hash_token

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME_S = 60


class ProofKey:
    """A key pair, and the proofs that it gives."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._key = import_private_key(generate_p256())
        self._clock = clock
        self._jwk = dict(self._key.as_dict(private=False))
        for name in ("kid", "use", "alg", "key_ops"):
            self._jwk.pop(name, None)

    @property
    def thumbprint(self) -> str:
        """RFC 7638: `dpop_jkt`, and `jkt` of the tokens bound to it."""
        return str(self._key.thumbprint())

    def prove(self, method: str, url: str, *, token: str = "", nonce: str = "") -> str:
        """A proof for one request, good once.

        Args:
            url: of the request, without query and fragment.
            token: the access token that goes with it; empty at the token endpoint.
            nonce: the server's, where it gave one.
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(self._clock()),
        }
        if token:
            claims["ath"] = hash_token(token)
        if nonce:
            claims["nonce"] = nonce
        return _sign(self._key, {"typ": "dpop+jwt", "jwk": self._jwk}, claims)

    def __repr__(self) -> str:
        return "ProofKey(<hidden>)"


def make_assertion(key: SigningPrivateKey, client_id: str, audience: str, *, now: float) -> str:
    """An assertion of a client that is registered for `private_key_jwt`, good once and for a minute."""
    signing = import_private_key(key)
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": int(now),
        "exp": int(now) + ASSERTION_LIFETIME_S,
    }
    return _sign(signing, {"typ": "client-authentication+jwt", "kid": signing.kid}, claims)


def public_key_set(key: SigningPrivateKey) -> dict[str, Any]:
    """The JWK Set by which such a client is registered (RFC 7517 section 5)."""
    return {"keys": [dict(import_private_key(key).as_dict(private=False))]}


def _sign(key: JoseKey, header: dict[str, Any], claims: dict[str, Any]) -> str:
    algorithm = algorithm_of(key)
    assert algorithm is not None
    return jwt.encode({"alg": algorithm, **header}, claims, key, algorithms=[algorithm])
