"""Tokens of issuers elsewhere: how each product's access tokens look, and what its claims mean here.

A profile says which `typ`, client, scope and role claims a product uses, and how an ID token of its, which must never open
anything, is told from an access token. What a role or scope of theirs is worth here says the operator's mapping; what is not
mapped is worth nothing. Names from elsewhere get the issuer's name in front, so that nobody there can be anybody here.

| profile | typ | client | scopes | roles | not an access token |
|---|---|---|---|---|---|
| rfc9068 | at+jwt | client_id | scope | roles, groups, entitlements | any other typ |
| entra | JWT | azp or appid | scp | roles, groups | no azp and appid; nonce or c_hash |
| adfs | JWT | appid or client_id | scp | role, roles, group, groups | no appid, or it is the audience; nonce or c_hash |
| okta | none, JWT or application/okta-internal-at+jwt | cid | scp (list) | groups, roles | no cid; nonce or c_hash |
| keycloak | JWT | azp or client_id | scope | realm_access.roles, groups | claim `typ` other than Bearer and DPoP |

AD FS names its key by `x5t` alone up to its version of 2016, and gives access tokens neither an id nor a subject unless a rule of
its administrators does. Keycloak puts the nonce into access tokens as well before its version 24; its claim `typ` is DPoP where the
token is bound to a key, else Bearer, and its header says JWT or, by a setting of the client, at+jwt. Okta's header has a `typ` only
from the organization's own server.

Sources: Microsoft's access token claims reference; Keycloak's DPoPUtil and DefaultTokenManager, version 26; Okta's answer on the
missing `typ`; django-auth-adfs for AD FS; RFC 9068 section 2.2.3.1 for roles, groups and entitlements.
"""

import hashlib
import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

import msgspec

from security.errors import TokenRejected
from security.oauth.access_token import (
    AccessToken,
    parse_actors,
    parse_confirmation,
    parse_string,
    parse_time,
    verify_audience,
    verify_times,
)
from security.oauth.algorithms import FOREIGN_ALGORITHMS
from security.scopes import GRANTABLE, Role, Scope

ProfileName = Literal["rfc9068", "entra", "adfs", "okta", "keycloak"]
PROFILE_NAMES: tuple[ProfileName, ...] = get_args(ProfileName)
MAX_LIFETIME_S = 86_400
"""Entra gives tokens of up to a day; ours live an hour at most."""
Named = TypeVar("Named", bound=str)
MAX_VALUES = 512
_HASHES = ("c_hash", "at_hash", "s_hash")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One product's access tokens."""

    types: frozenset[str]
    clients: tuple[str, ...]
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    """Claims that hold names of roles or groups; a dot leads into an object."""
    ids: tuple[str, ...] = ("jti", "uti")
    subjects: tuple[str, ...] = ("sub",)
    key_ids: tuple[str, ...] = ("kid",)
    """Members of the header that name the key."""
    body_types: frozenset[str] = frozenset()
    """What the claim `typ` may be, where the product tells its tokens apart by it."""
    program_signs: dict[str, Callable[[object], bool]] = {}
    """Claims by which the product says that a program asks for itself."""
    is_sparse: bool = False
    """A token may lack an id, then its claims' digest is one; and a subject, then nobody is known but the program."""


_JWT = frozenset({"jwt", "at+jwt", "application/at+jwt"})
SHAPES: MappingProxyType[ProfileName, Shape] = MappingProxyType(
    {
        "rfc9068": Shape(
            types=frozenset({"at+jwt", "application/at+jwt"}),
            clients=("client_id",),
            scopes=("scope",),
            roles=("roles", "groups", "entitlements"),
            ids=("jti",),
        ),
        "entra": Shape(
            types=_JWT,
            clients=("azp", "appid"),
            scopes=("scp",),
            roles=("roles", "groups"),
            program_signs={"idtyp": lambda kind: kind == "app"},
        ),
        "adfs": Shape(
            types=_JWT,
            clients=("appid", "client_id"),
            scopes=("scp",),
            roles=("role", "roles", "group", "groups"),
            subjects=("sub", "upn", "unique_name"),
            key_ids=("kid", "x5t"),
            is_sparse=True,
        ),
        "okta": Shape(
            types=_JWT | {"", "application/okta-internal-at+jwt"},
            clients=("cid",),
            scopes=("scp",),
            roles=("groups", "roles"),
        ),
        "keycloak": Shape(
            types=_JWT,
            clients=("azp", "client_id"),
            scopes=("scope",),
            roles=("realm_access.roles", "groups"),
            body_types=frozenset({"Bearer", "DPoP"}),
            program_signs={
                "preferred_username": lambda name: isinstance(name, str) and name.startswith("service-account-")
            },
        ),
    }
)


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """What an issuer's words are worth here."""

    name: str
    """In front of its clients and people."""
    issuer: str
    audience: str
    tenant: str | None
    """Of who has none that is mapped; None: refused."""
    tenant_claim: str | None = None
    """None: the claims that hold roles and groups."""
    tenants: dict[str, str] = {}
    roles: dict[str, Role]
    default_role: Role | None
    """Of who has none that is mapped; None: refused."""
    scopes: dict[str, Scope]

    def find_role(self, claims: dict[str, Any], names: tuple[str, ...]) -> Role:
        """The one role that these claims mean here. Raises: TokenRejected."""
        return _only_one("roles", "role", find_values(claims, names), self.roles, self.default_role)

    def find_tenant(self, claims: dict[str, Any], names: tuple[str, ...]) -> str:
        """The one tenant, by the claim that tells it, or else by these. Raises: TokenRejected."""
        told_by = names if self.tenant_claim is None else (self.tenant_claim,)
        theirs = find_values(claims, told_by) if self.tenants else set()
        return _only_one("tenant", "tenant", theirs, self.tenants, self.tenant)


class ForeignProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Satisfies `resource.Profile` for one issuer elsewhere."""

    shape: Shape
    mapping: Mapping
    skew_s: int = 30
    algorithms: tuple[str, ...] = FOREIGN_ALGORITHMS

    @property
    def types(self) -> frozenset[str]:
        """What `typ` may be."""
        return self.shape.types

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Members of the header that may name the key, in this order."""
        return self.shape.key_ids

    def parse(self, claims: dict[str, Any], kid: str, now: float) -> AccessToken:
        """The token, from verified claims. Raises: TokenRejected."""
        # (1) Issuer and audience, compared as strings, both required.
        if parse_string(claims, "iss") != self.mapping.issuer:
            raise TokenRejected("iss: the token is from another issuer")
        verify_audience(claims.get("aud"), self.mapping.audience)
        expires_at = verify_times(claims, now, self.skew_s, MAX_LIFETIME_S)
        self._verify_kind(claims)
        # (3) Who.
        client = _first_string(claims, self.shape.clients)
        subject = self._find_subject(claims, client)
        name = self.mapping.name
        client_id = f"{name}:{client}"
        # (4) What they may do here.
        role = self.mapping.find_role(claims, self.shape.roles)
        scopes = self._find_scopes(claims, role)
        key_thumbprint, certificate_thumbprint = parse_confirmation(claims)
        return AccessToken(
            client_id=client_id,
            subject=client_id if subject == client else f"{name}:{subject}",
            tenant=self.mapping.find_tenant(claims, self.shape.roles),
            role=role,
            scopes=scopes,
            issuer=self.mapping.issuer,
            kid=kid,
            jti=self._find_id(claims),
            issued_at=parse_time(claims, "iat"),
            expires_at=expires_at,
            key_thumbprint=key_thumbprint,
            certificate_thumbprint=certificate_thumbprint,
            actors=tuple(f"{name}:{actor}" for actor in parse_actors(claims)),
            is_registered=False,
            is_program=self._is_program(claims, subject == client),
        )

    def _verify_kind(self, claims: dict[str, Any]) -> None:
        """(2) That it is an access token, where the product says so by a claim of its own. Elsewhere a nonce or a hash of a code
        tells an ID token (OpenID Connect Core section 2), and AD FS gives one for the program itself.
        """
        types, body_type = self.shape.body_types, claims.get("typ")
        if types and not (isinstance(body_type, str) and body_type in types):
            raise TokenRejected(f"typ: expected {' or '.join(sorted(types))}")
        signs = _HASHES if types else ("nonce", *_HASHES)
        if found := next((name for name in signs if name in claims), None):
            raise TokenRejected(f"{found}: this is an ID token, not an access token")
        if self.shape.is_sparse and claims.get("appid") == self.mapping.audience:
            raise TokenRejected("aud: this is an ID token, not an access token")

    def _is_program(self, claims: dict[str, Any], is_client: bool) -> bool:
        """Whether nobody signed in for it. Entra and Keycloak call a program by another name as subject than as client; a person
        grants scopes, so a token without any is a program's as well.
        """
        has_scopes = any(name in claims for name in self.shape.scopes)
        return (
            is_client
            or not has_scopes
            or any(says(claims.get(name)) for name, says in self.shape.program_signs.items())
        )

    def _find_subject(self, claims: dict[str, Any], client: str) -> str:
        if self.shape.is_sparse and not any(name in claims for name in self.shape.subjects):
            return client
        return _first_string(claims, self.shape.subjects)

    def _find_id(self, claims: dict[str, Any]) -> str:
        if self.shape.is_sparse and not any(name in claims for name in self.shape.ids):
            return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()
        return _first_string(claims, self.shape.ids)

    def _find_scopes(self, claims: dict[str, Any], role: Role) -> frozenset[Scope]:
        """What is mapped and the role may have; a token without any scope claim, an application's own, has what its role has."""
        if not any(name in claims for name in self.shape.scopes):
            return GRANTABLE[role]
        theirs = {scope for value in find_values(claims, self.shape.scopes) for scope in value.split(" ")}
        return frozenset(self.mapping.scopes[one] for one in theirs if one in self.mapping.scopes) & GRANTABLE[role]


def find_values(claims: dict[str, Any], names: tuple[str, ...]) -> set[str]:
    """Every text in these claims; a dot leads into an object, unless a claim has that very name. A lone text is one value: names
    of groups have spaces in them, and must not be taken for two. Raises: TokenRejected.
    """
    values: set[str] = set()
    for name in names:
        found: Any = claims
        for part in (name,) if name in claims else name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, str):
            values.add(found)
        elif isinstance(found, list):
            if len(found) > MAX_VALUES or not all(isinstance(one, str) for one in found):
                raise TokenRejected(f"{name}: expected at most {MAX_VALUES} texts")
            values.update(found)
        elif found is not None:
            raise TokenRejected(f"{name}: expected text or a list of it")
    return values


def _only_one(claim: str, what: str, theirs: set[str], here: dict[str, Named], default: Named | None) -> Named:
    """What their names mean here, or else the default. Raises: TokenRejected for none of either, and for two."""
    found = {here[one] for one in theirs if one in here}
    if len(found) > 1:
        raise TokenRejected(f"{claim}: more than one {what} here: one account has one {what}")
    only = next(iter(found), default)
    if only is None:
        raise TokenRejected(f"{claim}: none that means a {what} here")
    return only


def _first_string(claims: dict[str, Any], names: tuple[str, ...]) -> str:
    name = next((name for name in names if name in claims), names[0])
    return parse_string(claims, name)
