"""authlib's authorization server, for one request: the framework that runs grants and endpoints, and our policy at its hooks.

A server of its own for each request, because authlib asks it for clients and tokens without saying for which request. It is
made in microseconds, and what it shares with others is in `Shared`.

What every grant goes through, in `authenticate_client`, before the grant looks at anything: (1) who the client is, once, in one
form of words for whatever is wrong; (2) that its kind may use the grant; (3) that the token is for this appliance (RFC 8707);
(4) what the token will be bound to, from the proof or the certificate. And in `_sign`, after it: that a privileged role's token
is bound. Answers are `Response`s; no refusal repeats what the client sent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidClientError
from authlib.oauth2.rfc6749.errors import UnsupportedGrantTypeError

from security.oauth.authority_request import AuthorityRequest, Voided
from security.oauth.client_authentication import ClientAuthentication
from security.oauth.client_endpoints import Device, Introspection, Revocation
from security.oauth.consent import AuthorizationCode, OwnIssuer
from security.oauth.errors import (
    AuthenticationFailed,
    InvalidGrantError,
    InvalidTarget,
    OAuth2Error,
    Overloaded,
    ReusedGrant,
    UnauthorizedClientError,
    UnsupportedGrant,
)
from security.oauth.exchange import ExchangeGrant
from security.oauth.grant_types import EXCHANGE_GRANT
from security.oauth.granting import Granted, verify_bound
from security.oauth.grants import DevicePoll, S256Challenge, ServiceGrant, Turnover
from security.oauth.interactions import Interactions
from security.oauth.minting import AccessTokenMinter, MintedToken
from security.oauth.own_tokens import OwnTokens
from security.oauth.refresh_store import Family, RefreshStore
from security.oauth.registered_client import RegisteredClient
from security.oauth.revocations import RevocationList
from security.oauth.sessions import SessionRules, Sessions
from security.oauth.token_binding import TokenBinder
from security.users import User


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What all requests to one authority share."""

    issuer: str
    resource: str
    authentication: ClientAuthentication
    interactions: Interactions
    refresh: RefreshStore
    rules: SessionRules
    binder: TokenBinder
    minter: AccessTokenMinter
    own_tokens: OwnTokens
    revocations: RevocationList
    clock: Callable[[], float]


class Response(msgspec.Struct):
    """What HTTP is to answer."""

    status: int
    body: dict[str, Any]
    headers: list[tuple[str, str]]
    location: str = ""
    """Where to send a browser."""


class SignedAnswer(dict[str, Any]):
    """The body of a token response (RFC 6749 section 5.1, RFC 9449 section 5, RFC 8693 section 2.2.1)."""

    def __init__(self, minted: MintedToken, members: dict[str, Any]) -> None:
        super().__init__(members)
        self.minted = minted

    def __repr__(self) -> str:
        """authlib logs the answers of its grants."""
        return f"SignedAnswer(jti={self.minted.jti!r})"


class GrantServer(AuthorizationServer):  # type: ignore[misc]  # authlib has no types
    """Answers one request."""

    def __init__(self, shared: Shared, request: AuthorityRequest) -> None:
        super().__init__()
        self.shared = shared
        self.request = request
        shared.authentication.register(self)
        self.register_token_generator("default", self._sign)
        self.register_grant(ServiceGrant)
        self.register_grant(AuthorizationCode, [S256Challenge()])
        self.register_grant(DevicePoll)
        self.register_grant(Turnover)
        self.register_grant(ExchangeGrant)
        for endpoint in (Revocation, Introspection, Device):
            self.register_endpoint(endpoint)
        OwnIssuer(shared.issuer)(self)

    # What authlib asks of whoever embeds it.

    def query_client(self, client_id: str) -> RegisteredClient | None:
        """The client of the id that the request claims."""
        client = self.request.known.client
        if client is None or client.client_id != client_id or client.is_disabled:
            return None
        return RegisteredClient(client)

    def save_token(self, token: SignedAnswer, request: AuthorityRequest) -> None:
        """Whoever sends the answer records this first."""
        request.minted = token.minted

    def create_oauth2_request(self, request: AuthorityRequest) -> AuthorityRequest:
        """It is one already."""
        return request

    def handle_response(self, status: int, body: Any, headers: Sequence[tuple[str, str]]) -> Response:
        """An answer of the framework's in the shape of ours."""
        location = dict(headers).get("Location", "")
        return Response(status, body or {}, list(headers), location)

    def handle_error_response(self, request: AuthorityRequest, error: OAuth2Error) -> Response:
        """A refusal, and what the authority has to do about it."""
        if isinstance(error, ReusedGrant):
            request.reused = error
            self.end_session(error.family)
        response: Response = super().handle_error_response(request, error)
        return response

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    # Policy.

    def authenticate_client(
        self, request: AuthorityRequest, methods: Sequence[str], endpoint: str = "token"
    ) -> RegisteredClient:
        """Once a request, whoever asks: an assertion and a proof are good once. Raises: OAuth2Error."""
        if request.client is not None:
            known: RegisteredClient = request.client
            return known
        # (1)
        try:
            client: RegisteredClient = super().authenticate_client(request, methods, endpoint)
        except InvalidClientError:
            raise AuthenticationFailed from None
        request.client = client
        if endpoint == "token":
            self._admit(request, client)
        return client

    def get_token_grant(self, request: AuthorityRequest) -> Any:
        """The grant that was asked for. Raises: UnsupportedGrant, in words that do not repeat it."""
        try:
            return super().get_token_grant(request)
        except UnsupportedGrantTypeError:
            raise UnsupportedGrant from None

    def _admit(self, request: AuthorityRequest, client: RegisteredClient) -> None:
        grant_type = request.payload.grant_type
        # (2)
        if not client.check_grant_type(grant_type):
            raise UnauthorizedClientError("The client is not registered for this grant")
        # (3)
        targets = [*request.parsed.resources]
        if grant_type == EXCHANGE_GRANT:
            targets += request.parsed.audiences
        self.verify_targets(targets)
        # (4)
        request.binding = self.shared.binder.bind(request.parsed)

    def verify_targets(self, targets: Sequence[str]) -> None:
        """RFC 8707 section 2. An empty path is `/` (RFC 3986 section 6.2.3), as URL classes write it. Raises: InvalidTarget."""
        if any(target not in (self.shared.resource, f"{self.shared.resource}/") for target in targets):
            raise InvalidTarget("The resource is not one of this appliance")

    def find_person(self, user_id: str) -> User:
        """The person, as they are now. Raises: InvalidGrantError."""
        user = self.request.known.find_person(user_id)
        if user is None:
            raise InvalidGrantError("The person may not sign in")
        return user

    def _find_signed_in(self, user_id: str, auth_time: int) -> User:
        """The person, whose sign-in still counts. Raises: InvalidGrantError."""
        user = self.find_person(user_id)
        if self.shared.revocations.is_over(self.request.client.get_client_id(), user_id, auth_time):
            raise InvalidGrantError("The person must sign in again")
        return user

    def begin_session(self, user_id: str, scope: str, auth_time: int) -> tuple[Granted, str]:
        """A person's session with the application that asks. Raises: OAuth2Error."""
        user = self._find_signed_in(user_id, auth_time)
        client, binding = self.request.client.definition, self.request.binding
        granted, family = self._sessions.begin(client, user, scope, auth_time, binding)
        if family:
            self.request.taken.append(lambda: self.shared.refresh.end(family))
        return granted, family

    def go_on(self, family: Family) -> Granted:
        """The next tokens of a session. Raises: OAuth2Error."""
        user = self._find_signed_in(family.grant.user_id, family.grant.auth_time)
        client, requested = self.request.client.definition, self.request.payload.scope
        return self._sessions.go_on(client, user, family, requested, self.request.binding)

    def verify_going_on(self, family: Family) -> None:
        """Refuse what `go_on` would, before the token is spent. Raises: OAuth2Error."""
        user = self._find_signed_in(family.grant.user_id, family.grant.auth_time)
        client, requested = self.request.client.definition, self.request.payload.scope
        self._sessions.verify_going_on(client, user, family, requested, self.request.binding)

    def end_session(self, family: str) -> None:
        """None of its refresh tokens is good any more; its access tokens are void when the gateways know."""
        if family:
            self.shared.refresh.end(family)
            ends_at = int(self.shared.clock()) + self.shared.minter.lifetime_s
            self.request.voided.append(Voided("session", family, ends_at))

    @property
    def _sessions(self) -> Sessions:
        return Sessions(self.shared.refresh, self.shared.rules)

    def _sign(
        self,
        grant_type: str,
        client: RegisteredClient,
        user: Granted,
        scope: str,
        expires_in: int | None,
        include_refresh_token: bool,
    ) -> SignedAnswer:
        """authlib's token generator. What is granted says for whom, for what and for how long."""
        binding = self.request.binding
        verify_bound(user.holder.role, binding, binds_privileged=self.shared.rules.binds_privileged)
        if self.shared.revocations.is_over(user.holder.client_id, user.holder.subject, int(self.shared.clock())):
            # Who is cut off is so for the whole second: nobody would accept a token of now.
            raise Overloaded("The account was cut off in this second; ask again in the next", status_code=503)
        minted, token = self.shared.minter.mint(user.holder, user.scope, binding)
        body: dict[str, Any] = {
            "access_token": token,
            "token_type": "DPoP" if binding is not None and binding.method == "jkt" else "Bearer",
            "expires_in": minted.expires_at - minted.issued_at,
            "scope": minted.scope,
        }
        if user.issued_token_type is not None:
            body["issued_token_type"] = user.issued_token_type
        if include_refresh_token and user.refresh_token is not None:
            body["refresh_token"] = user.refresh_token
        return SignedAnswer(minted, body)
