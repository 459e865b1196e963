"""The authorization server without HTTP: metadata, key set, and an answer for each request to its endpoints.
 A request to an endpoint for clients is answered in three steps: `parse`, `authenticate`, and then the endpoint's own. The
caller MUST have an answer's facts recorded before it sends a token, and MUST bound the body while it reads it.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from security.clients import Client
from security.errors import SecurityMisconfigured, TokenRejected
from security.oauth.access_token import AccessToken, ClaimRules
from security.oauth.client_authentication import ClientAuthentication
from security.oauth.dpop import (
    PROOF_LIFETIME_S,
    normalize_url,
    thumbprint_of_certificate,
    verify_proof,
)
from security.oauth.errors import (
    InvalidDpopProof,
    InvalidGrantError,
    InvalidRequestError,
    InvalidTarget,
    OAuth2Error,
    Overloaded,
    UnauthorizedClientError,
    UnsupportedGrant,
)
from security.oauth.interactions import DEVICE_LIFETIME_S, Interactions
from security.oauth.metadata import DEVICE_PATH, build_metadata
from security.oauth.minting import AccessTokenMinter, Binding, MintedToken
from security.oauth.own_tokens import OwnTokens
from security.oauth.refresh_store import REFRESH_PREFIX, RefreshStore
from security.oauth.signing_keys import SigningKeys
from security.oauth.token_endpoint import (
    GRANT_TYPES,
    Granted,
    People,
    Reused,
    SessionRules,
    TokenEndpoint,
    choose_scope,
)
from security.oauth.token_request import ParsedRequest, TokenRequest, parse_token_request
from security.policy.replay import ReplayMemory
from security.scopes import Scope

MAX_RECORDED_CHARS = 128


class Facts(Protocol):
    """Who knows people and voids tokens: policy, seen from here."""

    async def find_user(self, login: str) -> Any:
        """Raises: SecurityUnavailable."""

    async def revoke(self, kind: str, value: str, expires_at: int, *, actor: str) -> None:
        """Every gateway knows when this returns. Raises: SecurityUnavailable."""


class PendingRequest(msgspec.Struct, frozen=True):
    """A client's request that was parsed, or refused while it was; nothing of it has been believed yet."""

    parsed: ParsedRequest | None
    fault: OAuth2Error | None

    @property
    def claimed_client_id(self) -> str:
        """Who the request says it is from, cut; empty if it does not say."""
        credentials = None if self.parsed is None else self.parsed.credentials
        return "" if credentials is None else credentials.client_id[:MAX_RECORDED_CHARS]

    @property
    def auth_method(self) -> str | None:
        """How it says so."""
        credentials = None if self.parsed is None else self.parsed.credentials
        return None if credentials is None else credentials.method

    def __repr__(self) -> str:
        return f"PendingRequest(claimed_client_id={self.claimed_client_id!r})"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what the audit log must know of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    error: str | None
    """The OAuth error; None if there was none."""
    client_id: str | None
    """Of an authenticated client, or else what was claimed, cut."""
    authenticated: bool
    auth_method: str | None
    minted: MintedToken | None = None
    grant_type: str = ""
    reused_by: str = ""
    """The person whose refresh token or code came back after it was used."""

    def __repr__(self) -> str:
        return f"Answer(status={self.status}, error={self.error!r}, client_id={self.client_id!r})"


class Authority:
    """One issuer for one resource server."""

    def __init__(
        self,
        *,
        issuer: str,
        resource: str,
        keys: SigningKeys,
        authentication: ClientAuthentication,
        facts: Facts,
        interactions: Interactions,
        refresh: RefreshStore,
        rules: SessionRules,
        token_lifetime_s: int,
        is_revoked: Callable[[AccessToken], bool] = lambda _token: False,
        offers_certificates: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer.startswith("https://") or issuer.endswith("/"):
            raise SecurityMisconfigured(f"issuer {issuer!r}: expected https://host:port without a slash at the end")
        self.issuer = issuer
        self.resource = resource
        self.interactions = interactions
        self._keys = keys
        self._authentication = authentication
        self._facts = facts
        self._refresh = refresh
        self._offers_certificates = offers_certificates
        self._clock = clock
        self._proofs = ReplayMemory(clock=clock)
        self._minter = AccessTokenMinter(
            issuer=issuer, resource=resource, keys=keys, lifetime_s=token_lifetime_s, clock=clock
        )
        self._own = OwnTokens(keys, ClaimRules(issuer, resource, 0), is_revoked, clock=clock)
        people: People = facts
        self._tokens = TokenEndpoint(
            resource=resource,
            people=people,
            interactions=interactions,
            refresh=refresh,
            rules=rules,
            validate=self._own.validate,
            clock=clock,
        )

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 section 2, only what is implemented."""
        return build_metadata(self.issuer, offers_certificates=self._offers_certificates)

    def key_set(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517 section 5): every key that a valid token may be signed with."""
        return self._keys.public_key_set()

    def parse(self, request: TokenRequest, *required: str) -> PendingRequest:
        """Parse a client's request; what cannot be parsed is answered by `authenticate` as well."""
        try:
            parsed = parse_token_request(request)
            for name in required:
                if name not in parsed.parameters:
                    raise InvalidRequestError(f"{name} is missing")
            if "grant_type" in required and parsed.parameters["grant_type"] not in GRANT_TYPES:
                return PendingRequest(parsed, UnsupportedGrant())
            return PendingRequest(parsed, None)
        except OAuth2Error as fault:
            return PendingRequest(None, fault)

    def authenticate(self, pending: PendingRequest, client: Client | None) -> Client | Answer:
        """The client that a request is from, or the answer that refuses it. Synchronous, so that attempts in parallel gain nothing.

        Args:
            client: the client of the id that the request claims, if there is one.
        """
        try:
            if pending.fault is not None:
                raise pending.fault
            assert pending.parsed is not None
            return self._authentication.authenticate(pending.parsed, client)
        except OAuth2Error as fault:
            return self._refuse(fault, pending, authenticated=False)

    async def token(self, pending: PendingRequest, client: Client) -> Answer:
        """RFC 6749 section 3.2. Raises: SecurityUnavailable."""
        assert pending.parsed is not None
        grant_type = pending.parsed.parameters["grant_type"][:MAX_RECORDED_CHARS]
        try:
            binding = self._bind(pending.parsed)
            granted = await self._tokens.grant(pending.parsed, client, binding)
        except Reused as reused:
            await self._end_family(reused.family, actor=f"client:{client.client_id}")
            fault = InvalidGrantError("The grant was used before")
            return self._refuse(fault, pending, grant_type=grant_type, reused_by=reused.user_id)
        except OAuth2Error as fault:
            return self._refuse(fault, pending, grant_type=grant_type)
        minted, token = self._minter.mint(granted.holder, granted.scope, binding)
        body = _token_body(granted, minted, token, binding)
        return self._answer(pending, body, minted=minted, grant_type=grant_type)

    async def revoke(self, pending: PendingRequest, client: Client) -> Answer:
        """RFC 7009. A token that is not known, or not good any more, is revoked already. Raises: SecurityUnavailable."""
        assert pending.parsed is not None
        token, actor = pending.parsed.parameters["token"], f"client:{client.client_id}"
        if token.startswith(REFRESH_PREFIX):
            family = self._refresh.look(token)
            if family is not None and family.grant.client_id != client.client_id:
                return self._refuse(InvalidGrantError("The token was issued to another client"), pending)
            if family is not None:
                await self._end_family(family.family, actor=actor)
            return self._answer(pending, None)
        try:
            accepted = self._own.validate(token)
        except TokenRejected:
            return self._answer(pending, None)
        if accepted.client_id != client.client_id:
            return self._refuse(InvalidGrantError("The token was issued to another client"), pending)
        await self._facts.revoke("token", accepted.jti, accepted.expires_at, actor=actor)
        return self._answer(pending, None)

    async def introspect(self, pending: PendingRequest, client: Client) -> Answer:
        """RFC 7662: about a client's own tokens, or with the scope `tokens.introspect` about any."""
        assert pending.parsed is not None
        if client.auth_method == "none":
            return self._refuse(UnauthorizedClientError("A public client may not introspect"), pending)
        token = pending.parsed.parameters["token"]
        may_see_all = Scope.TOKENS_INTROSPECT in client.scopes
        described = self._describe_refresh(token) if token.startswith(REFRESH_PREFIX) else self._describe(token)
        if described is None or not (may_see_all or described["client_id"] == client.client_id):
            described = {"active": False}
        return self._answer(pending, described)

    async def begin_device(self, pending: PendingRequest, client: Client) -> Answer:
        """RFC 8628 section 3.1 and 3.2."""
        assert pending.parsed is not None
        try:
            if client.kind != "application":
                raise UnauthorizedClientError("The client is not registered for this grant")
            if any(resource != self.resource for resource in pending.parsed.resources):
                raise InvalidTarget("The resource is not one of this appliance")
            scope = choose_scope(pending.parsed.parameters.get("scope"), client.scopes)
        except OAuth2Error as fault:
            return self._refuse(fault, pending)
        begun = self.interactions.begin_device(client.client_id, scope)
        if begun is None:
            return self._refuse(Overloaded("Too many devices wait", status_code=503), pending)
        code, grant = begun
        page = self.issuer + DEVICE_PATH
        body = {
            "device_code": code,
            "user_code": grant.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={grant.user_code}",
            "expires_in": DEVICE_LIFETIME_S,
            "interval": grant.interval_s,
        }
        return self._answer(pending, body)

    def _bind(self, parsed: ParsedRequest) -> Binding | None:
        """What the new token is bound to: the key of a proof, or else the certificate of the connection."""
        if parsed.proofs:
            url = normalize_url(self.issuer + parsed.path)
            try:
                proof = verify_proof(parsed.proofs, method="POST", urls=frozenset({url}), now=self._clock())
            except TokenRejected as fault:
                raise InvalidDpopProof(str(fault)) from None
            if not self._proofs.use(proof.digest, PROOF_LIFETIME_S):
                raise InvalidDpopProof("jti: the proof was used before")
            return Binding("jkt", proof.thumbprint)
        if parsed.certificate is not None:
            return Binding("x5t#S256", thumbprint_of_certificate(parsed.certificate))
        return None

    async def _end_family(self, family: str, *, actor: str) -> None:
        if family:
            self._refresh.end(family)
            ends_at = int(self._clock()) + self._minter.lifetime_s
            await self._facts.revoke("session", family, ends_at, actor=actor)

    def _describe(self, token: str) -> dict[str, Any] | None:
        try:
            accepted = self._own.validate(token)
        except TokenRejected:
            return None
        claims = self._own.claims(token)
        shown = (
            "iss",
            "sub",
            "aud",
            "client_id",
            "exp",
            "iat",
            "jti",
            "scope",
            "roles",
            "tenant",
            "act",
            "cnf",
            "auth_time",
        )
        bound_to_key = bool(accepted.key_thumbprint)
        described = {name: claims[name] for name in shown if name in claims}
        return {"active": True, "token_type": "DPoP" if bound_to_key else "Bearer", **described}

    def _describe_refresh(self, token: str) -> dict[str, Any] | None:
        family = self._refresh.look(token)
        if family is None:
            return None
        grant = family.grant
        return {
            "active": True,
            "token_type": "refresh_token",
            "client_id": grant.client_id,
            "sub": grant.user_id,
            "scope": grant.scope,
            "iss": self.issuer,
            "exp": family.ends_at,
        }

    def _answer(
        self,
        pending: PendingRequest,
        body: dict[str, Any] | None,
        *,
        minted: MintedToken | None = None,
        grant_type: str = "",
    ) -> Answer:
        return Answer(
            status=200,
            headers=_NO_STORE,
            body=b"" if body is None else json.dumps(body, separators=(",", ":")).encode(),
            error=None,
            client_id=pending.claimed_client_id,
            authenticated=True,
            auth_method=pending.auth_method,
            minted=minted,
            grant_type=grant_type,
        )

    def _refuse(
        self,
        fault: OAuth2Error,
        pending: PendingRequest,
        *,
        authenticated: bool = True,
        grant_type: str = "",
        reused_by: str = "",
    ) -> Answer:
        body = {"error": fault.error}
        if description := fault.get_error_description():
            body["error_description"] = description
        return Answer(
            status=fault.status_code,
            headers=tuple(fault.get_headers()),
            body=json.dumps(body, separators=(",", ":")).encode(),
            error=fault.error,
            client_id=pending.claimed_client_id or None,
            authenticated=authenticated,
            auth_method=pending.auth_method,
            grant_type=grant_type,
            reused_by=reused_by,
        )


_NO_STORE = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Pragma", "no-cache"))


def _token_body(granted: Granted, minted: MintedToken, token: str, binding: Binding | None) -> dict[str, Any]:
    """RFC 6749 section 5.1, RFC 9449 section 5, RFC 8693 section 2.2.1."""
    body: dict[str, Any] = {
        "access_token": token,
        "token_type": "DPoP" if binding is not None and binding.method == "jkt" else "Bearer",
        "expires_in": minted.expires_at - minted.issued_at,
        "scope": minted.scope,
    }
    if granted.issued_token_type is not None:
        body["issued_token_type"] = granted.issued_token_type
    if granted.refresh_token is not None:
        body["refresh_token"] = granted.refresh_token
    return body
