"""ID tokens of the provider by which people sign in: untrusted, checked in full (OpenID Connect Core sections 2 and 3.1.3.7),
and what a person is worth here.

Only for a sign-in that we began ourselves, whose nonce is in the token. At an API an ID token never opens anything
(`profiles`).
"""

import hmac
import time
from collections.abc import Callable
from typing import Any

import msgspec

from security.errors import MalformedDocument, TokenRejected
from security.oauth.access_token import parse_string, verify_times
from security.oauth.algorithms import FOREIGN_ALGORITHMS, algorithms_of
from security.oauth.jws import RULE_CHANGING_MEMBERS, is_signed_by, parse_jws
from security.oauth.key_ring import KeyRing
from security.oauth.profiles import Mapping
from security.scopes import Role
from security.users import MAX_NAME_CHARS

MAX_ID_TOKEN_CHARS = 16 << 10
MAX_LIFETIME_S = 86_400
SKEW_S = 30
MAX_SUBJECT_CHARS = 200
_TYPES = ("", "jwt")
_ROLE_CLAIMS = ("roles", "groups", "realm_access.roles")
_LOGIN_CLAIMS = ("preferred_username", "upn", "email")


class Vouched(msgspec.Struct, frozen=True, kw_only=True):
    """A person whom the provider vouches for."""

    subject: str
    """The provider's `sub`."""
    login: str
    name: str
    role: Role
    tenant: str


class IdTokenCheck:
    """Checks the ID tokens of one provider for one client of its."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str,
        client_id: str,
        roles: dict[str, Role],
        default_role: Role | None,
        tenant: str | None = "default",
        tenant_claim: str | None = None,
        tenants: dict[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            client_id: who this authority is there, the audience.
            tenant, tenant_claim, tenants: as of other issuers (`profiles.Mapping`).
        """
        self._keys = keys
        self._mapping = Mapping(
            name="",
            issuer=issuer,
            audience=client_id,
            tenant=tenant,
            tenant_claim=tenant_claim,
            tenants=tenants or {},
            roles=roles,
            default_role=default_role,
            scopes={},
        )
        self._clock = clock

    async def verify(self, token: str, nonce: str) -> Vouched:
        """Who it is.

        Args:
            nonce: of the sign-in that it must belong to.
        Raises: TokenRejected, KeysUnavailable.
        """
        await self._keys.keep_fresh()
        claims = await self._verify_signature(token)
        # Section 3.1.3.7 (2), (3) to (5): whose it is, and whom it is for.
        client_id = self._mapping.audience
        if parse_string(claims, "iss") != self._mapping.issuer:
            raise TokenRejected("iss: the ID token is from another issuer")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or client_id not in audiences:
            raise TokenRejected("aud: the ID token is for somebody else")
        if claims.get("azp", client_id if len(audiences) == 1 else None) != client_id:
            raise TokenRejected("azp: the ID token was given to somebody else")
        # (9), (10)
        verify_times(claims, self._clock(), SKEW_S, MAX_LIFETIME_S)
        # (11)
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise TokenRejected("nonce: the ID token is of another sign-in")
        subject = parse_string(claims, "sub")
        if len(subject) > MAX_SUBJECT_CHARS or not subject.isprintable():
            raise TokenRejected("sub: cannot be a name here")
        login = _find_text(claims, _LOGIN_CLAIMS) or subject[:MAX_NAME_CHARS]
        return Vouched(
            subject=subject,
            login=login,
            name=_find_text(claims, ("name",)) or login,
            role=self._mapping.find_role(claims, _ROLE_CLAIMS),
            tenant=self._mapping.find_tenant(claims, _ROLE_CLAIMS),
        )

    async def _verify_signature(self, token: str) -> dict[str, Any]:
        try:
            jws = parse_jws(token, max_chars=MAX_ID_TOKEN_CHARS)
        except MalformedDocument as error:
            raise TokenRejected(f"the ID token{error}") from None
        header = jws.header
        if any(name in header for name in ("jwk", *RULE_CHANGING_MEMBERS)):
            raise TokenRejected("the ID token's header changes rules")
        algorithm, kid = header.get("alg"), header.get("kid")
        if str(header.get("typ", "")).lower() not in _TYPES or algorithm not in FOREIGN_ALGORITHMS:
            raise TokenRejected("the ID token is of another type, or signed by an algorithm that is not supported")
        if not isinstance(kid, str):
            raise TokenRejected("kid: expected the id of a key")
        key = self._keys.find(kid)
        if key is None and await self._keys.refresh():
            key = self._keys.find(kid)
        if key is None or algorithm not in algorithms_of(key) or not is_signed_by(jws, key, str(algorithm)):
            raise TokenRejected("the ID token's signature does not hold")
        return jws.payload()


def _find_text(claims: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of these claims that may be shown, cut; empty if there is none."""
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and value.strip() and value.isprintable():
            return value.strip()[:MAX_NAME_CHARS]
    return ""
