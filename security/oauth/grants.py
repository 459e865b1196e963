"""The token endpoint's grant on authlib's framework, without HTTP.

What authlib 1.9.9 leaves open is closed here: errors hold nothing that the client sent, and do not tell an unknown client
from a wrong secret; a token is never logged (authlib's grant logs it at level DEBUG); the request's address is configured,
never taken from a header, and always https, so that no environment variable relaxes the check for it.
"""

from typing import Any

from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientCredentialsGrant, OAuth2Request
from authlib.oauth2.rfc6749.errors import (
    InvalidClientError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    UnsupportedGrantTypeError,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from security.clients import Client, is_secret_of
from security.errors import MalformedDocument
from security.oauth.minting import AccessTokenMinter
from security.oauth.token_request import Credentials, ParsedRequest
from security.scopes import format_scopes, parse_scopes

GRANT_TYPES = ("client_credentials",)
AUTH_METHODS = ("client_secret_basic", "client_secret_post")
REALM = "casemate"
_NO_HASH = bytes(32)

Answer = tuple[int, dict[str, Any], list[tuple[str, str]]]
"""Status, body and headers."""


class InvalidTarget(OAuth2Error):  # type: ignore[misc]  # authlib has no types, here and below
    """RFC 8707 section 2: the requested resource is not one that tokens are issued for."""

    error = "invalid_target"


class AuthenticationFailed(InvalidClientError):  # type: ignore[misc]
    """RFC 6749 section 5.2, always 401 and always with the same words, whatever failed."""

    def __init__(self) -> None:
        super().__init__(description="Client authentication failed", status_code=401)

    def get_headers(self) -> list[tuple[str, str]]:
        """The challenge with the realm that RFC 7617 section 2 requires."""
        return [*default_json_headers, ("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')]


class UnsupportedGrant(UnsupportedGrantTypeError):  # type: ignore[misc]
    """RFC 6749 section 5.2. authlib's own would repeat what the client sent."""

    description = "The grant type is not supported"

    def __init__(self) -> None:
        super().__init__("")

    def get_error_description(self) -> str:
        """Always the same."""
        return self.description


class GrantClient:
    """A client as authlib asks it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Every client may use both methods, at the token endpoint only."""
        return endpoint == "token" and method in AUTH_METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        """Clients act for themselves only."""
        return grant_type in GRANT_TYPES

    def allowed_scope(self, requested: str | None) -> str:
        """RFC 6749 section 3.3: without `scope`, all that the client has; one that it lacks is refused, never left out.

        Raises: InvalidScopeError.
        """
        if requested is None:
            return format_scopes(self.client.scopes)
        try:
            scopes = parse_scopes(requested)
        except MalformedDocument:
            raise InvalidScopeError from None
        if not scopes <= self.client.scopes:
            raise InvalidScopeError
        return format_scopes(scopes)


class GrantRequest(OAuth2Request):  # type: ignore[misc]
    """A parsed request as authlib wants it."""

    def __init__(self, uri: str, parsed: ParsedRequest, client: Client | None) -> None:
        super().__init__("POST", uri)
        self.registered = client
        self.payload = BasicOAuth2Payload(parsed.parameters)
        self.credentials: Credentials | None = parsed.credentials
        self.resources = parsed.resources


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 section 4.4, with RFC 8707's `resource`."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def validate_token_request(self) -> None:
        """Authenticate the client, then check what it asks for."""
        super().validate_token_request()
        if any(resource != self.server.minter.resource for resource in self.request.resources):
            raise InvalidTarget("The resource is not one of this appliance")

    def create_token_response(self) -> Answer:
        """RFC 6749 section 5.1, with what was signed under `minted`, which MUST be taken out before sending."""
        minter: AccessTokenMinter = self.server.minter
        scope = self.client.allowed_scope(self.request.payload.scope)
        minted, token = minter.mint(self.client.client, scope)
        body = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": minter.lifetime_s,
            "scope": scope,
            "minted": minted,
        }
        return 200, body, list(default_json_headers)


class TokenServer(AuthorizationServer):  # type: ignore[misc]
    """authlib's server with one grant, two methods of client authentication, and answers as plain values."""

    def __init__(self, token_uri: str, credentials_key: bytes, minter: AccessTokenMinter) -> None:
        super().__init__()
        self.minter = minter
        self._token_uri = token_uri
        self._credentials_key = credentials_key
        for method in AUTH_METHODS:
            self.register_client_auth_method(method, self._check_secret)

    def answer(self, parsed: ParsedRequest, client: Client | None) -> Answer:
        """Answer a token request; a success has `minted` in its body.

        Args:
            client: who the request says it is from, if there is such a client; nothing is believed of it yet.
        """
        answer: Answer = self.create_token_response((parsed, client))
        return answer

    def answer_error(self, error: OAuth2Error) -> Answer:
        """The answer for a request that could not even be parsed."""
        answer: Answer = self.handle_error_response(None, error)
        return answer

    def _check_secret(self, _query: object, request: GrantRequest) -> GrantClient:
        if request.credentials is None:
            raise AuthenticationFailed
        client, credentials = request.registered, request.credentials
        stored = _NO_HASH if client is None or client.secret_hash is None else client.secret_hash
        holds = is_secret_of(self._credentials_key, credentials.client_id, stored, credentials.secret)
        if client is None or client.is_disabled or not holds:
            raise AuthenticationFailed
        return GrantClient(client)

    def create_oauth2_request(self, request: tuple[ParsedRequest, Client | None]) -> GrantRequest:
        """A request to our own address, whatever the client called it."""
        return GrantRequest(self._token_uri, *request)

    def get_token_grant(self, request: GrantRequest) -> ClientCredentials:
        """The grant asked for; an unsupported one is an error that does not repeat it."""
        if request.payload.grant_type in GRANT_TYPES:
            return ClientCredentials(request, self)
        raise UnsupportedGrant

    def query_client(self, client_id: str) -> None:
        """Never asked: `_check_secret` stands in front, so that an unknown id costs the same time as a wrong secret."""
        raise AssertionError("clients are authenticated, never looked up")

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(
        self, status: int, body: dict[str, Any] | list[tuple[str, Any]], headers: list[tuple[str, str]]
    ) -> Answer:
        """The answer as it is."""
        return status, dict(body), headers


__all__ = [
    "AUTH_METHODS",
    "GRANT_TYPES",
    "AuthenticationFailed",
    "InvalidRequestError",
    "InvalidTarget",
    "OAuth2Error",
    "TokenServer",
    "UnsupportedGrant",
]
