"""The authorization server without HTTP: metadata, key set, and an answer for each request to its endpoints.

A request from a client is answered in three steps: `parse`, `look_up`, `answer`. The first reads it strictly, the second waits
for whatever authlib may ask about it, the third decides without waiting, on authlib (`grant_server`), and then has done what
the decision means elsewhere. The caller MUST have an answer's facts recorded before it sends a token, and MUST bound the body
while it reads it.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec
from cryptography import x509

from security.clients import Client
from security.errors import SecurityMisconfigured, TokenRejected
from security.oauth import grant_types
from security.oauth.access_token import ClaimRules
from security.oauth.authority_request import AuthorityRequest, Known, Voided
from security.oauth.authorization_request import MAX_STATE_CHARS, RefusedRequest, UntrustedRequest, parse_query
from security.oauth.client_authentication import ClientAuthentication
from security.oauth.consent import Consent
from security.oauth.dpop_nonces import DpopNonces
from security.oauth.errors import InvalidRequestError, OAuth2Error, Overloaded, UnsupportedGrant
from security.oauth.grant_server import GrantServer, Response, Shared
from security.oauth.interactions import Interactions
from security.oauth.metadata import AUTHORIZATION_PATH, build_metadata
from security.oauth.minting import AccessTokenMinter, MintedToken
from security.oauth.own_tokens import OwnTokens
from security.oauth.redirects import build_location
from security.oauth.refresh_store import RefreshStore
from security.oauth.revocations import RevocationList
from security.oauth.sessions import SessionRules
from security.oauth.signing_keys import SigningKeys
from security.oauth.token_binding import TokenBinder
from security.oauth.token_request import ParsedRequest, TokenRequest, parse_token_request
from security.policy.replay import ReplayMemory
from security.users import User

MAX_RECORDED_CHARS = 128
Endpoint = Literal["token", "revocation", "introspection", "device_authorization"]
"""The endpoints for clients, by authlib's names."""


class Facts(Protocol):
    """Who knows clients and people, and voids tokens: policy, seen from here."""

    async def find_client(self, client_id: str) -> Client | None:
        """Raises: SecurityUnavailable."""

    async def find_user(self, login: str) -> User | None:
        """Raises: SecurityUnavailable."""

    async def revoke(self, kind: str, value: str, expires_at: int, *, actor: str, source: tuple[str, int]) -> None:
        """Every gateway knows when this returns; `source` is the address and port that asked. Raises: SecurityUnavailable."""


class PendingRequest(msgspec.Struct, frozen=True):
    """A client's request that was parsed, or refused while it was; nothing of it has been believed yet."""

    endpoint: Endpoint
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
        return f"PendingRequest(endpoint={self.endpoint!r}, claimed_client_id={self.claimed_client_id!r})"


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
    taken: tuple[Callable[[], None], ...] = ()

    def take_back(self) -> None:
        """The answer does not leave: what was spent for it is as it was, so that the client may ask again.

        Raises: RegistryUnusable.
        """
        _give_back(self.taken)

    @property
    def is_proven(self) -> bool:
        """What the client does wrong is no guess: it has shown who it is, or is one that has nothing by which to show it, and what
        it gets codes and tokens for has 256 random bits.
        """
        return self.authenticated

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
        revocations: RevocationList,
        used: ReplayMemory,
        offers_certificates: bool = False,
        dpop_nonces: DpopNonces | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer.startswith("https://") or issuer.endswith("/"):
            raise SecurityMisconfigured(f"issuer {issuer!r}: expected https://host:port without a slash at the end")
        self.issuer = issuer
        self.resource = resource
        self.interactions = interactions
        self._keys = keys
        self._nonces = dpop_nonces
        self._untold: dict[tuple[str, str], tuple[Voided, str, tuple[str, int]]] = {}
        """Sessions have ended here, and their access tokens were to be void, when policy could not write it down."""
        self._facts = facts
        self._metadata = build_metadata(issuer, offers_certificates=offers_certificates)
        self._shared = Shared(
            issuer=issuer,
            resource=resource,
            authentication=authentication,
            interactions=interactions,
            refresh=refresh,
            rules=rules,
            binder=TokenBinder(issuer, nonces=dpop_nonces, used=used, clock=clock),
            minter=AccessTokenMinter(
                issuer=issuer, resource=resource, keys=keys, lifetime_s=token_lifetime_s, clock=clock
            ),
            own_tokens=OwnTokens(keys, ClaimRules(issuer, resource, 0), revocations.is_revoked, clock=clock),
            revocations=revocations,
            clock=clock,
        )

    def trust_client_authorities(self, authorities: Sequence[x509.Certificate]) -> None:
        """From now on these sign the certificates of clients with `tls_client_auth`, and no others."""
        self._shared.authentication.trust(authorities)

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 section 2, only what is implemented."""
        return self._metadata

    def key_set(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517 section 5): every key that a valid token may be signed with."""
        return self._keys.public_key_set()

    def parse(self, endpoint: Endpoint, request: TokenRequest) -> PendingRequest:
        """Parse a client's request; what cannot be parsed is answered by `answer` as well."""
        try:
            parsed = parse_token_request(request)
            if endpoint == "token":
                if "grant_type" not in parsed.parameters:
                    raise InvalidRequestError("grant_type is missing")
                if parsed.parameters["grant_type"] not in grant_types.GRANT_TYPES:
                    return PendingRequest(endpoint, parsed, UnsupportedGrant())
            return PendingRequest(endpoint, parsed, None)
        except OAuth2Error as fault:
            return PendingRequest(endpoint, None, fault)

    async def look_up(self, pending: PendingRequest) -> Known:
        """Ask for everything that answering may need, until nothing is missing. Raises: SecurityUnavailable."""
        parsed, claimed = pending.parsed, pending.claimed_client_id
        if parsed is None or pending.fault is not None or not claimed:
            return Known(None, {})
        client = await self._facts.find_client(claimed)
        people: dict[str, User | None] = {}
        # While we wait somebody may confirm a device: so the question is asked again after every wait.
        while (user_id := self._find_subject(pending.endpoint, parsed)) and user_id not in people:
            people[user_id] = await self._facts.find_user(user_id)
        return Known(client, people)

    def _find_subject(self, endpoint: Endpoint, parsed: ParsedRequest) -> str:
        """The id of the person whom the answer may be about; nothing is spent, and nothing believed."""
        parameters = parsed.parameters
        if endpoint == "introspection":
            return self._find_holder(parameters.get("token", ""))
        if endpoint != "token":
            return ""
        match parameters["grant_type"]:
            case grant_types.CODE_GRANT:
                code = self.interactions.look_at_code(parameters.get("code", ""))
                return "" if code is None else code.user_id
            case grant_types.DEVICE_GRANT:
                device = self.interactions.look_at_device(parameters.get("device_code", ""))
                return "" if device is None else device.user_id
            case grant_types.EXCHANGE_GRANT:
                return self._find_holder(parameters.get("subject_token", ""))
            case "refresh_token":
                family = self._shared.refresh.look(parameters.get("refresh_token", ""))
                return "" if family is None else family.grant.user_id
            case _:
                return ""

    def _find_holder(self, token: str) -> str:
        """Whom an access token of ours stands for."""
        try:
            accepted = self._shared.own_tokens.validate(token)
        except TokenRejected:
            return ""
        return "" if accepted.subject == accepted.client_id else accepted.subject

    async def answer(self, pending: PendingRequest, known: Known) -> Answer:
        """Decide, without a wait before it is decided, so that attempts in parallel gain nothing; then void what has become void.

        Args:
            known: from `look_up`, with no wait since.
        Raises: SecurityUnavailable; then nothing of the answer MUST be sent.
        """
        if pending.parsed is None or pending.fault is not None:
            assert pending.fault is not None
            return _answer(pending, None, Response(*_body_of(pending.fault)))
        request = AuthorityRequest("POST", self.issuer + pending.parsed.path, pending.parsed, known)
        server = GrantServer(self._shared, request)
        response: Response
        if pending.endpoint == "token":
            response = server.create_token_response(request)
            if response.body.get("error") == Overloaded.error:
                _give_back(request.taken)
            if self._nonces is not None and pending.parsed.proofs:
                # RFC 9449 sections 8 and 8.2: with a refusal for want of one, and before the last grows old.
                response.headers.append(("DPoP-Nonce", self._nonces.current()))
        else:
            response = server.create_endpoint_response(pending.endpoint, request)
        for void in request.voided:
            actor = f"client:{request.client.get_client_id()}"
            self._untold[void.kind, void.value] = (void, actor, (pending.parsed.address, pending.parsed.port))
        if request.voided or pending.endpoint == "revocation":
            # RFC 7009 section 2.2: 200 says that the token is void, also to who asks again after it could not be told.
            await self._tell_voided()
        return _answer(pending, request, response)

    async def _tell_voided(self) -> None:
        """All that is void and that policy could not be told yet. Raises: SecurityUnavailable."""
        for key, (void, actor, source) in list(self._untold.items()):
            await self._facts.revoke(void.kind, void.value, void.expires_at, actor=actor, source=source)
            self._untold.pop(key, None)

    async def read_authorization(self, query: str) -> Consent:
        """Check an application's request for a person's consent (RFC 6749 section 4.1.1).

        Raises: UntrustedRequest, RefusedRequest, SecurityUnavailable.
        """
        parsed = parse_query(query)
        client = await self._facts.find_client(parsed.parameters.get("client_id", ""))
        request = AuthorityRequest("GET", self.issuer + AUTHORIZATION_PATH, parsed, Known(client, {}))
        server = GrantServer(self._shared, request)
        try:
            return Consent(server, server.get_consent_grant(request))
        except OAuth2Error as error:
            if error.redirect_uri is None:
                raise UntrustedRequest(error.description) from None
            state = error.state if len(error.state or "") <= MAX_STATE_CHARS else None
            raise RefusedRequest(
                build_location(error.redirect_uri, state, self.issuer, error=str(error.error))
            ) from None


def _give_back(taken: Sequence[Callable[[], None]]) -> None:
    for give_back in reversed(taken):
        give_back()


def _body_of(fault: OAuth2Error) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
    status, body, headers = fault()
    return status, body, headers


def _answer(pending: PendingRequest, request: AuthorityRequest | None, response: Response) -> Answer:
    error = response.body.get("error")
    authenticated = request is not None and request.client is not None
    # RFC 7009 section 2.2: what revocation says is only its status.
    body = json.dumps(response.body, separators=(",", ":")).encode() if response.body else b""
    return Answer(
        status=response.status,
        headers=tuple(response.headers),
        body=body,
        error=error,
        client_id=pending.claimed_client_id or None,
        authenticated=authenticated,
        auth_method=pending.auth_method if request is None else request.auth_method or pending.auth_method,
        minted=None if request is None or error is not None else request.minted,
        grant_type=_grant_type(pending),
        reused_by="" if request is None or request.reused is None else request.reused.user_id,
        taken=() if request is None or error is not None else tuple(request.taken),
    )


def _grant_type(pending: PendingRequest) -> str:
    if pending.endpoint != "token" or pending.parsed is None:
        return ""
    return pending.parsed.parameters.get("grant_type", "")[:MAX_RECORDED_CHARS]
