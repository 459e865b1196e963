"""What a verified token must say before anybody believes it: the claims of RFC 9068 section 2.2, and ours.

Every claim has exactly one JSON type. Times are integers; a scope that is a list, a role that does not exist, a scope that
the role may not have: each refuses the token, even though its signature holds.
"""

import re
from typing import Any

import msgspec

from security.errors import MalformedDocument, TokenRejected
from security.scopes import GRANTABLE, Role, Scope, parse_role, parse_scopes

MAX_CLAIM_CHARS = 256
MAX_LIFETIME_S = 3600
MAX_AUDIENCES = 16
MAX_ACTORS = 4
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_TIME = 1 << 53
"""Integers beyond are not exact in every JSON parser."""


class AccessToken(msgspec.Struct, frozen=True):
    """Who asks and what it may do, from a token that was validated in full."""

    client_id: str
    subject: str
    tenant: str
    role: Role
    scopes: frozenset[Scope]
    issuer: str
    kid: str
    jti: str
    issued_at: int
    """UTC, seconds since the epoch."""
    expires_at: int
    actors: tuple[str, ...] = ()
    """Services that act for the subject, the nearest first."""
    session: str = ""
    key_thumbprint: str = ""
    """Good only with a proof by this key (`cnf.jkt`)."""
    certificate_thumbprint: str = ""
    """Good only over a connection with this certificate (`cnf.x5t#S256`)."""
    is_registered: bool = True
    """False for the token of an issuer elsewhere."""
    is_program: bool = False
    """An issuer elsewhere gave it to a program for itself, though it calls the subject by another name than the client."""

    @property
    def is_bound(self) -> bool:
        """It is worth nothing to whoever only has a copy."""
        return bool(self.key_thumbprint or self.certificate_thumbprint)


class ClaimRules(msgspec.Struct, frozen=True):
    """What this resource server expects."""

    issuer: str
    audience: str
    skew_s: int


def parse_access_token(claims: dict[str, Any], kid: str, rules: ClaimRules, now: float) -> AccessToken:
    """Check the claims of a token whose signature was verified with the key `kid`.

    Raises: TokenRejected, naming the claim.
    """
    # (1) RFC 9068 section 4: issuer and audience, compared as strings, both required.
    issuer = parse_string(claims, "iss")
    if issuer != rules.issuer:
        raise TokenRejected("iss: the token is from another issuer")
    verify_audience(claims.get("aud"), rules.audience)
    # (2) RFC 7519 section 4.1.4 to 4.1.6: times, with a skew that only ever forgives clocks.
    expires_at = verify_times(claims, now, rules.skew_s)
    # (3) RFC 9068 section 2.2: who, and which token.
    client_id, subject = parse_string(claims, "client_id"), parse_string(claims, "sub")
    jti, tenant = parse_string(claims, "jti"), parse_string(claims, "tenant")
    # (4) What it may do.
    role, scopes = _parse_rights(claims)
    issued_at = parse_time(claims, "iat")
    # (5) RFC 8693 section 4.1 and RFC 7800 section 3.1: for whom it acts, and what it is bound to.
    key_thumbprint, certificate_thumbprint = parse_confirmation(claims)
    return AccessToken(
        client_id,
        subject,
        tenant,
        role,
        scopes,
        issuer,
        kid,
        jti,
        issued_at,
        expires_at,
        actors=parse_actors(claims),
        session=parse_string(claims, "sid") if "sid" in claims else "",
        key_thumbprint=key_thumbprint,
        certificate_thumbprint=certificate_thumbprint,
    )


def parse_confirmation(claims: dict[str, Any]) -> tuple[str, str]:
    """The thumbprints that a token is bound to: of a key, of a certificate; empty where it is not bound.

    A confirmation that is not understood refuses the token: believing it unbound would be failing open.
    """
    if "cnf" not in claims:
        return "", ""
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or len(confirmation) != 1:
        raise TokenRejected("cnf: expected one confirmation")
    ((method, thumbprint),) = confirmation.items()
    if method not in ("jkt", "x5t#S256") or not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise TokenRejected("cnf: expected jkt or x5t#S256 with a SHA-256 thumbprint")
    return (thumbprint, "") if method == "jkt" else ("", thumbprint)


def parse_actors(claims: dict[str, Any]) -> tuple[str, ...]:
    """Who acts for the subject, the nearest first (RFC 8693 section 4.1). Raises: TokenRejected."""
    actors: list[str] = []
    nested = claims.get("act")
    while nested is not None:
        if not isinstance(nested, dict) or len(actors) >= MAX_ACTORS:
            raise TokenRejected(f"act: expected at most {MAX_ACTORS} nested actors")
        actors.append(parse_string(nested, "sub"))
        nested = nested.get("act")
    return tuple(actors)


def parse_string(claims: dict[str, Any], name: str) -> str:
    """A claim that is a short printable text. Raises: TokenRejected."""
    value = claims.get(name)
    if type(value) is not str or not 0 < len(value) <= MAX_CLAIM_CHARS or not value.isprintable():
        raise TokenRejected(f"{name}: expected a string of 1 to {MAX_CLAIM_CHARS} printable characters")
    return value


def parse_time(claims: dict[str, Any], name: str) -> int:
    """A claim that is a time. Raises: TokenRejected."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value < _MAX_TIME:  # bool is an int to isinstance.
        raise TokenRejected(f"{name}: expected seconds since the epoch as an integer")
    return value


def verify_audience(audience: Any, expected: str) -> None:
    """RFC 7519 section 4.1.3. Raises: TokenRejected."""
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not 0 < len(audiences) <= MAX_AUDIENCES:
        raise TokenRejected("aud: expected a string or a list of them")
    if not all(isinstance(one, str) for one in audiences):
        raise TokenRejected("aud: expected a string or a list of them")
    if expected not in audiences:
        raise TokenRejected("aud: the token is for another resource")


def verify_times(claims: dict[str, Any], now: float, skew_s: int, max_lifetime_s: int = MAX_LIFETIME_S) -> int:
    """RFC 7519 sections 4.1.4 to 4.1.6, and a life that is not too long. Returns: when it expires. Raises: TokenRejected."""
    expires_at, issued_at = parse_time(claims, "exp"), parse_time(claims, "iat")
    if expires_at + skew_s <= now:
        raise TokenRejected("exp: the token has expired")
    if issued_at - skew_s > now:
        raise TokenRejected("iat: the token is from the future")
    if not issued_at < expires_at <= issued_at + max_lifetime_s:
        raise TokenRejected(f"exp: expected at most {max_lifetime_s} seconds after iat")
    if "nbf" in claims and parse_time(claims, "nbf") - skew_s > now:
        raise TokenRejected("nbf: the token is not valid yet")
    return expires_at


def _parse_rights(claims: dict[str, Any]) -> tuple[Role, frozenset[Scope]]:
    roles, scope = claims.get("roles"), claims.get("scope")
    if not (isinstance(roles, list) and len(roles) == 1 and isinstance(roles[0], str)):
        raise TokenRejected("roles: expected a list of one role")
    if not isinstance(scope, str):
        raise TokenRejected("scope: expected a string")
    try:
        role, scopes = parse_role(roles[0]), parse_scopes(scope)
    except MalformedDocument as error:
        raise TokenRejected(f"scope or roles: {error}") from None
    if not scopes <= GRANTABLE[role]:
        raise TokenRejected(f"scope: more than role {role} may have")
    return role, scopes
