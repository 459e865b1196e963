"""Signs access tokens in the profile of RFC 9068 section 2.

authlib's generator would give client_credentials ten days, name the client as audience, and leave the key's id out of the
header; none of its code is used.
"""

import secrets
from collections.abc import Callable

import msgspec
from joserfc import jwt

from security.clients import Client
from security.oauth.algorithms import ALGORITHMS
from security.oauth.signing_keys import SigningKeys


class MintedToken(msgspec.Struct, frozen=True):
    """What was signed into an access token: everything but the token."""

    client_id: str
    subject: str
    tenant: str
    role: str
    scope: str
    issuer: str
    audience: str
    kid: str
    jti: str
    issued_at: int
    expires_at: int


class AccessTokenMinter:
    """Mints tokens of one issuer for one resource server."""

    def __init__(
        self, *, issuer: str, resource: str, keys: SigningKeys, lifetime_s: int, clock: Callable[[], float]
    ) -> None:
        self.issuer = issuer
        self.resource = resource
        self.lifetime_s = lifetime_s
        self._keys = keys
        self._clock = clock

    def mint(self, client: Client, scope: str) -> tuple[MintedToken, str]:
        """Sign a token for a client that was authenticated; `scope` MUST be among what the client has."""
        key, now = self._keys.current, int(self._clock())
        minted = MintedToken(
            client_id=client.client_id,
            subject=client.client_id,  # RFC 9068 section 2.2: without a resource owner, the client itself.
            tenant=client.tenant,
            role=client.role.value,
            scope=scope,
            issuer=self.issuer,
            audience=self.resource,
            kid=key.kid,
            jti=secrets.token_urlsafe(16),
            issued_at=now,
            expires_at=now + self.lifetime_s,
        )
        claims = {
            "iss": minted.issuer,
            "sub": minted.subject,
            "aud": minted.audience,
            "client_id": minted.client_id,
            "exp": minted.expires_at,
            "iat": minted.issued_at,
            "jti": minted.jti,
            "scope": minted.scope,
            "roles": [minted.role],
            "tenant": minted.tenant,
        }
        header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid}
        return minted, jwt.encode(header, claims, key.key, algorithms=ALGORITHMS)
