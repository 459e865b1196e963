"""The token endpoint's grants: from a client that was authenticated to what is to be signed (RFC 6749, 7636, 8628, 8693,
8707, 9449).

    client_credentials    a service, for itself
    authorization_code    an application, for the person who signed in by its browser; PKCE with S256 always
    device_code           an application, for a person who signed in elsewhere
    refresh_token         an application, as long as the person's session lives; each token is good once
    token-exchange        a service, for the person whose access token it was given
 An application never acts for itself, a service never signs people in. Whom a token is for is looked up anew at every grant:
a person who was disabled, or whose role changed, gets nothing more. In production every role but `user` gets only tokens
that are bound to a key or certificate.
"""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from security.clients import Client
from security.errors import MalformedDocument, TokenRejected
from security.oauth.access_token import AccessToken
from security.oauth.errors import (
    AuthorizationPending,
    DeviceDenied,
    DeviceExpired,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    InvalidTarget,
    SlowDown,
    UnauthorizedClientError,
    UnsupportedGrant,
)
from security.oauth.interactions import CodeGrant, Interactions
from security.oauth.minting import Binding, Holder, holder_of
from security.oauth.refresh_store import Family, RefreshGrant, RefreshStore
from security.oauth.token_request import ParsedRequest
from security.scopes import GRANTABLE, Role, Scope, format_scopes, parse_scopes
from security.users import User

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
SERVICE_GRANTS = ("client_credentials", EXCHANGE_GRANT)
APPLICATION_GRANTS = ("authorization_code", DEVICE_GRANT, "refresh_token")
GRANT_TYPES = (*SERVICE_GRANTS, *APPLICATION_GRANTS)
_VERIFIER_CHARS = range(43, 129)
_VERIFIER_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be signed and given out."""

    holder: Holder
    scope: str
    refresh_token: str | None = None
    issued_token_type: str | None = None


class Reused(Exception):
    """A refresh token or code came back that was used before: whatever came of it ends. Answered as invalid_grant."""

    def __init__(self, family: str, user_id: str) -> None:
        super().__init__(family)
        self.family = family
        self.user_id = user_id


class People(Protocol):
    """Who knows people, as they are now."""

    async def find_user(self, login: str) -> User | None:
        """The person of this login or id. Raises: SecurityUnavailable."""


class SessionRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long people stay signed in."""

    refresh_idle_s: int
    """A refresh token that is not used for so long is of no use."""
    session_s: int
    """From the sign-in on; then the person signs in again."""
    binds_privileged: bool
    """Roles but `user` get bound tokens only."""


class TokenEndpoint:
    """Decides what a client gets."""

    def __init__(
        self,
        *,
        resource: str,
        people: People,
        interactions: Interactions,
        refresh: RefreshStore,
        rules: SessionRules,
        validate: Callable[[str], AccessToken],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            validate: a token of our own, as a gateway would: raises TokenRejected for whatever is not good now.
        """
        self._resource = resource
        self._people = people
        self._interactions = interactions
        self._refresh = refresh
        self._rules = rules
        self._validate = validate
        self._clock = clock

    async def grant(self, parsed: ParsedRequest, client: Client, binding: Binding | None) -> Granted:
        """Answer an authenticated client's request.

        Raises: OAuth2Error for whatever is refused; Reused; SecurityUnavailable.
        """
        grant_type = parsed.parameters["grant_type"]
        if grant_type not in GRANT_TYPES:
            raise UnsupportedGrant
        if grant_type not in (SERVICE_GRANTS if client.kind == "service" else APPLICATION_GRANTS):
            raise UnauthorizedClientError("The client is not registered for this grant")
        targets = [*parsed.resources]
        if grant_type == EXCHANGE_GRANT and "audience" in parsed.parameters:
            targets.append(parsed.parameters["audience"])
        if any(target != self._resource for target in targets):
            raise InvalidTarget("The resource is not one of this appliance")
        match grant_type:
            case "client_credentials":
                scope = choose_scope(parsed.parameters.get("scope"), client.scopes)
                granted = Granted(holder=holder_of(client), scope=scope)
            case "authorization_code":
                granted = await self._exchange_code(parsed, client, binding)
            case "refresh_token":
                granted = await self._turn_over(parsed, client, binding)
            case "urn:ietf:params:oauth:grant-type:device_code":
                granted = await self._poll(parsed, client, binding)
            case _:
                granted = await self._exchange_token(parsed, client, binding)
        self._verify_bound(granted.holder.role, binding)
        return granted

    def _verify_bound(self, role: str, binding: Binding | None) -> None:
        if self._rules.binds_privileged and role != Role.USER.value and binding is None:
            raise InvalidRequestError("This role needs a token bound to a key (DPoP) or to a client certificate")

    async def _exchange_code(self, parsed: ParsedRequest, client: Client, binding: Binding | None) -> Granted:
        """RFC 6749 section 4.1.3, RFC 7636 section 4.6."""
        code = parsed.parameters.get("code")
        if code is None:
            raise InvalidRequestError("code is missing")
        spent = self._interactions.spend_code(code)
        if spent is None:
            before = self._interactions.find_spent(code)
            if before is not None and before.grant.client_id == client.client_id:
                raise Reused(before.family, before.grant.user_id)
            raise InvalidGrantError("The code is not valid")
        self._verify_code(spent.grant, parsed, client, binding)
        grant = spent.grant
        granted, spent.family = await self._begin_session(client, grant.user_id, grant.scope, grant.auth_time, binding)
        return granted

    def _verify_code(self, grant: CodeGrant, parsed: ParsedRequest, client: Client, binding: Binding | None) -> None:
        given = parsed.parameters.get("redirect_uri")
        if grant.client_id != client.client_id:
            raise InvalidGrantError("The code is not valid")
        if (given is None and grant.redirect_uri_was_given) or (given is not None and given != grant.redirect_uri):
            raise InvalidGrantError("redirect_uri is not that of the authorization request")
        verifier = parsed.parameters.get("code_verifier", "")
        if len(verifier) not in _VERIFIER_CHARS or not _VERIFIER_ALPHABET.issuperset(verifier):
            raise InvalidGrantError("code_verifier is missing or malformed")
        if create_s256_code_challenge(verifier) != grant.challenge:
            raise InvalidGrantError("code_verifier does not match")
        if grant.key_thumbprint and (binding is None or binding.thumbprint != grant.key_thumbprint):
            raise InvalidGrantError("The code is bound to another key")

    async def _poll(self, parsed: ParsedRequest, client: Client, binding: Binding | None) -> Granted:
        """RFC 8628 section 3.4 and 3.5."""
        code = parsed.parameters.get("device_code")
        if code is None:
            raise InvalidRequestError("device_code is missing")
        grant = self._interactions.poll_device(code)
        if grant is None or (not isinstance(grant, str) and grant.client_id != client.client_id):
            raise InvalidGrantError("The device code is not valid")
        if grant == "expired":
            raise DeviceExpired("The device code has expired")
        if isinstance(grant, str):
            raise SlowDown("Ask less often")
        if grant.state == "pending":
            raise AuthorizationPending("Nobody has decided yet")
        self._interactions.spend_device(code)
        if grant.state == "denied":
            raise DeviceDenied("The person refused")
        granted, _ = await self._begin_session(client, grant.user_id, grant.scope, grant.auth_time, binding)
        return granted

    async def _begin_session(
        self, client: Client, user_id: str, scope: str, auth_time: int, binding: Binding | None
    ) -> tuple[Granted, str]:
        user = await self._find_person(user_id)
        self._verify_bound(user.role, binding)
        ends_at = auth_time + self._rules.session_s
        narrowed = narrow_scope(scope, client, user.role)
        bound_key = binding.thumbprint if binding is not None and binding.method == "jkt" else ""
        grant = RefreshGrant(
            client_id=client.client_id,
            user_id=user_id,
            scope=narrowed,
            auth_time=auth_time,
            key_thumbprint=bound_key if client.auth_method == "none" else "",
        )
        family, token = self._refresh.begin(grant, idle_s=self._rules.refresh_idle_s, ends_at=ends_at)
        holder = _person(client, user, auth_time, family, ends_at)
        return Granted(holder=holder, scope=narrowed, refresh_token=token), family

    async def _turn_over(self, parsed: ParsedRequest, client: Client, binding: Binding | None) -> Granted:
        """RFC 6749 section 6, RFC 9700 section 4.14.2."""
        token = parsed.parameters.get("refresh_token")
        if token is None:
            raise InvalidRequestError("refresh_token is missing")
        self._verify_own(token, parsed, client, binding)
        family = self._refresh.use(token)
        if family is None:
            raise InvalidGrantError("The refresh token is not valid")
        if family.is_reused:
            raise Reused(family.family, family.grant.user_id)
        user = await self._find_person(family.grant.user_id)
        self._verify_bound(user.role, binding)
        granted = narrow_scope(family.grant.scope, client, user.role)
        scope = choose_scope(parsed.parameters.get("scope"), parse_scopes(granted))
        replacement = self._refresh.replace(family, idle_s=self._rules.refresh_idle_s)
        holder = _person(client, user, family.grant.auth_time, family.family, family.ends_at)
        return Granted(holder=holder, scope=scope, refresh_token=replacement)

    def _verify_own(self, token: str, parsed: ParsedRequest, client: Client, binding: Binding | None) -> None:
        """What a mistake of its owner must not cost it: checked before the token is spent."""
        family: Family | None = self._refresh.look(token)
        if family is None:
            return
        if family.grant.client_id != client.client_id:
            raise InvalidGrantError("The refresh token is not valid")
        if family.grant.key_thumbprint and (binding is None or binding.thumbprint != family.grant.key_thumbprint):
            raise InvalidGrantError("The refresh token is bound to another key")
        choose_scope(parsed.parameters.get("scope"), parse_scopes(family.grant.scope))

    async def _exchange_token(self, parsed: ParsedRequest, client: Client, binding: Binding | None) -> Granted:
        """RFC 8693: a service acts for the person whose access token it was given, never for longer and never for more."""
        subject = self._validate_subject(parsed)
        self._verify_actor(parsed, client)
        if subject.subject == subject.client_id:
            raise InvalidRequestError("subject_token is not of a person")
        if subject.tenant != client.tenant:
            raise InvalidRequestError("subject_token is of another tenant")
        if subject.is_bound and binding is None:
            raise InvalidRequestError("subject_token is bound: the new token must be bound too")
        user = await self._find_person(subject.subject)
        if (user.role, user.tenant) != (subject.role, subject.tenant):
            raise InvalidRequestError("subject_token is of before a change of role")
        allowed = subject.scopes & client.scopes & GRANTABLE[user.role]
        scope = choose_scope(parsed.parameters.get("scope"), allowed)
        holder = Holder(
            client_id=client.client_id,
            subject=subject.subject,
            tenant=subject.tenant,
            role=user.role.value,
            actors=(client.client_id, *(subject.actors or (subject.client_id,)))[:4],
            session=subject.session,
            expires_by=subject.expires_at,
        )
        return Granted(holder=holder, scope=scope, issued_token_type=ACCESS_TOKEN_TYPE)

    def _validate_subject(self, parsed: ParsedRequest) -> AccessToken:
        token, kind = parsed.parameters.get("subject_token"), parsed.parameters.get("subject_token_type")
        if token is None or kind is None:
            raise InvalidRequestError("subject_token and subject_token_type are required")
        if kind not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("subject_token_type is not supported")
        if parsed.parameters.get("requested_token_type", ACCESS_TOKEN_TYPE) not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("requested_token_type is not supported")
        try:
            return self._validate(token)
        except TokenRejected:
            raise InvalidRequestError("subject_token is not valid") from None

    def _verify_actor(self, parsed: ParsedRequest, client: Client) -> None:
        """The actor is the authenticated client; a token that says so too is welcome, any other is not."""
        token, kind = parsed.parameters.get("actor_token"), parsed.parameters.get("actor_token_type")
        if token is None and kind is None:
            return
        if token is None or kind not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError("actor_token and actor_token_type belong together")
        try:
            actor = self._validate(token)
        except TokenRejected:
            raise InvalidRequestError("actor_token is not valid") from None
        if actor.subject != client.client_id:
            raise InvalidRequestError("actor_token is not of this client")

    async def _find_person(self, user_id: str) -> User:
        user = await self._people.find_user(user_id)
        if user is None or user.is_disabled or user.user_id != user_id:
            raise InvalidGrantError("The person may not sign in")
        return user


def _person(client: Client, user: User, auth_time: int, family: str, ends_at: int) -> Holder:
    return Holder(
        client_id=client.client_id,
        subject=user.user_id,
        tenant=user.tenant,
        role=user.role.value,
        auth_time=auth_time,
        session=family,
        expires_by=ends_at,
    )


def narrow_scope(scope: str, client: Client, role: Role) -> str:
    """Of what was agreed to, what the application and the person's role may have now. Raises: InvalidScopeError if nothing
    is left.
    """
    left = parse_scopes(scope) & client.scopes & GRANTABLE[role]
    if not left:
        raise InvalidScopeError
    return format_scopes(left)


def choose_scope(requested: str | None, allowed: frozenset[Scope]) -> str:
    """RFC 6749 section 3.3: without `scope`, all that is allowed; one that is not is refused, never left out.

    Raises: InvalidScopeError.
    """
    if not allowed:
        raise InvalidScopeError
    if requested is None:
        return format_scopes(allowed)
    try:
        scopes = parse_scopes(requested)
    except MalformedDocument:
        raise InvalidScopeError from None
    if not scopes <= allowed:
        raise InvalidScopeError
    return format_scopes(scopes)
