"""The endpoints for clients beside the token's, on authlib's classes: revocation (RFC 7009), introspection (RFC 7662), and
where a device begins (RFC 8628 section 3.1).

authlib authenticates, reads `token`, and answers what cannot be found as the RFCs say. Ours is what a token is, who may ask
about it, and what revoking it ends. A `token_type_hint` that nobody knows is ignored, as RFC 7009 section 2.1 allows; authlib
would refuse it, and take the request for unauthorized.
"""

from typing import Any

from authlib.oauth2.rfc6749 import TokenMixin
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint

from security.errors import TokenRejected
from security.oauth.access_token import AccessToken
from security.oauth.authority_request import AuthorityRequest, Voided
from security.oauth.errors import InvalidRequestError, Overloaded, UnauthorizedClientError
from security.oauth.grant_types import DEVICE_GRANT
from security.oauth.granting import choose_scope
from security.oauth.grants import METHODS
from security.oauth.interactions import DEVICE_INTERVAL_S, DEVICE_LIFETIME_S
from security.oauth.metadata import DEVICE_PATH
from security.oauth.refresh_store import REFRESH_PREFIX, Family
from security.oauth.registered_client import RegisteredClient
from security.scopes import Scope

_SHOWN = ("iss", "sub", "aud", "client_id", "exp", "iat", "jti", "scope", "roles", "tenant", "act", "cnf", "auth_time")
"""The claims that introspection tells (RFC 7662 section 2.2)."""


class GoodToken(TokenMixin):  # type: ignore[misc]  # authlib has no types, here and below
    """A token of ours that is good now, as authlib asks for it: an access token, or a family of refresh tokens."""

    def __init__(self, client_id: str, found: AccessToken | Family, text: str) -> None:
        self.client_id = client_id
        self.found = found
        self.text = text

    def check_client(self, client: RegisteredClient) -> bool:
        """Whose it is."""
        return self.client_id == client.get_client_id()

    def is_expired(self) -> bool:
        """It would not be here."""
        return False

    def is_revoked(self) -> bool:
        """It would not be here."""
        return False


def find_token(server: Any, text: str) -> GoodToken | None:
    """What a text is, if it is a token that is good now."""
    if text.startswith(REFRESH_PREFIX):
        family = server.shared.refresh.look(text)
        if family is None:
            return None
        grant = family.grant
        is_over = server.shared.revocations.is_over(grant.client_id, grant.user_id, grant.auth_time)
        return None if is_over else GoodToken(grant.client_id, family, text)
    try:
        accepted = server.shared.own_tokens.validate(text)
    except TokenRejected:
        return None
    return GoodToken(accepted.client_id, accepted, text)


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    """For a client's own tokens. A token that is not known, or not good any more, is revoked already."""

    CLIENT_AUTH_METHODS = METHODS

    def check_params(self, request: AuthorityRequest, _client: RegisteredClient) -> None:
        """Raises: InvalidRequestError."""
        if "token" not in request.form:
            raise InvalidRequestError("token is missing")

    def query_token(self, token_string: str, _token_type_hint: str | None) -> GoodToken | None:
        """The token, if it is good now."""
        return find_token(self.server, token_string)

    def revoke_token(self, token: GoodToken, request: AuthorityRequest) -> None:
        """An access token alone; of a refresh token the whole session."""
        if isinstance(token.found, Family):
            self.server.end_session(token.found.family)
        else:
            request.voided.append(Voided("token", token.found.jti, token.found.expires_at))


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """About a client's own tokens, or with the scope `tokens.introspect` about any."""

    CLIENT_AUTH_METHODS = METHODS

    def check_params(self, request: AuthorityRequest, client: RegisteredClient) -> None:
        """Raises: InvalidRequestError, UnauthorizedClientError for a client that anybody could claim to be."""
        if client.definition.auth_method == "none":
            raise UnauthorizedClientError("A public client may not introspect")
        if "token" not in request.form:
            raise InvalidRequestError("token is missing")

    def query_token(self, token_string: str, _token_type_hint: str | None) -> GoodToken | None:
        """The token, if it is good now."""
        return find_token(self.server, token_string)

    def check_permission(self, token: GoodToken, client: RegisteredClient, _request: AuthorityRequest) -> bool:
        """What may not be seen is answered as what is not active. An application's scopes are its people's, never its own."""
        definition = client.definition
        may_see_all = definition.kind == "service" and Scope.TOKENS_INTROSPECT in definition.scopes
        return may_see_all or token.check_client(client)

    def introspect_token(self, token: GoodToken) -> dict[str, Any]:
        """What is told of it."""
        if isinstance(token.found, Family):
            grant = token.found.grant
            return {
                "client_id": grant.client_id,
                "sub": grant.user_id,
                "scope": grant.scope,
                "iss": self.server.shared.issuer,
                "exp": token.found.ends_at,
            }
        claims = self.server.shared.own_tokens.claims(token.text)
        described = {name: claims[name] for name in _SHOWN if name in claims}
        person = self.server.request.known.people.get(token.found.subject)
        if person is not None:
            described["username"] = person.login
        return {"token_type": "DPoP" if token.found.key_thumbprint else "Bearer", **described}


class Device(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """A device begins to wait for a person. authlib would let any client begin, with any scope."""

    CLIENT_AUTH_METHODS = METHODS
    EXPIRES_IN = DEVICE_LIFETIME_S
    INTERVAL = DEVICE_INTERVAL_S

    def authenticate_client(self, request: AuthorityRequest) -> RegisteredClient:
        """Who it is, and that it may. Raises: OAuth2Error."""
        client: RegisteredClient = super().authenticate_client(request)
        if not client.check_grant_type(DEVICE_GRANT):
            raise UnauthorizedClientError("The client is not registered for this grant")
        self.server.verify_targets(request.parsed.resources)
        return client

    def generate_device_code(self) -> str:
        """256 random bits."""
        code: str = self.server.shared.interactions.make_device_code()
        return code

    def generate_user_code(self) -> str:
        """One that no other device shows."""
        code: str = self.server.shared.interactions.make_user_code()
        return code

    def get_verification_uri(self) -> str:
        """The page for people."""
        return f"{self.server.shared.issuer}{DEVICE_PATH}"

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        """Let it wait. Raises: InvalidScopeError, Overloaded."""
        asked = choose_scope(scope, self.server.request.client.definition.scopes)
        interactions = self.server.shared.interactions
        address = self.server.request.parsed.address
        if not interactions.add_device(data["device_code"], data["user_code"], client_id, asked, address):
            raise Overloaded("Too many devices wait", status_code=503)
