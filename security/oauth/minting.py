"""Signs access tokens in the profile of RFC 9068 section 2.

authlib's generator would give client_credentials ten days, name the client as audience, and leave the key's id out of the
header; none of its code is used.
"""

import secrets
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from security.clients import Client
from security.oauth.jws import sign_jws
from security.oauth.signing_keys import SigningKeys


class Binding(msgspec.Struct, frozen=True):
    """What a token is bound to: a key by DPoP (RFC 9449 section 6), or a certificate (RFC 8705 section 3)."""

    method: Literal["jkt", "x5t#S256"]
    thumbprint: str


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a token is for."""

    client_id: str
    subject: str
    tenant: str
    role: str
    auth_time: int | None = None
    """When the person signed in; None for a service by itself."""
    actors: tuple[str, ...] = ()
    """Services that act for the subject, the nearest first (RFC 8693 section 4.1)."""
    session: str = ""
    """The family of refresh tokens that it comes from: ends with it."""
    expires_by: int | None = None
    """No later than this."""


def holder_of(client: Client) -> Holder:
    """A service by itself (RFC 9068 section 2.2: without a resource owner, `sub` is the client)."""
    return Holder(client_id=client.client_id, subject=client.client_id, tenant=client.tenant, role=client.role.value)


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
    actors: tuple[str, ...] = ()
    bound_to: str = ""


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

    def mint(self, holder: Holder, scope: str, binding: Binding | None = None) -> tuple[MintedToken, str]:
        """Sign a token for whoever was authenticated; `scope` MUST be among what they have."""
        key, now = self._keys.current, int(self._clock())
        expires_at = now + self.lifetime_s
        minted = MintedToken(
            client_id=holder.client_id,
            subject=holder.subject,
            tenant=holder.tenant,
            role=holder.role,
            scope=scope,
            issuer=self.issuer,
            audience=self.resource,
            kid=key.kid,
            jti=secrets.token_urlsafe(16),
            issued_at=now,
            expires_at=expires_at if holder.expires_by is None else min(expires_at, holder.expires_by),
            actors=holder.actors,
            bound_to="" if binding is None else binding.thumbprint,
        )
        claims: dict[str, Any] = {
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
        if holder.auth_time is not None:
            claims["auth_time"] = holder.auth_time
        if holder.session:
            claims["sid"] = holder.session
        if holder.actors:
            claims["act"] = _nest(holder.actors)
        if binding is not None:
            claims["cnf"] = {binding.method: binding.thumbprint}
        header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid}
        return minted, sign_jws(header, claims, key.key)


def _nest(actors: tuple[str, ...]) -> dict[str, Any]:
    nested: dict[str, Any] = {"sub": actors[0]}
    if len(actors) > 1:
        nested["act"] = _nest(actors[1:])
    return nested
