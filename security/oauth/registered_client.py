"""A client of ours in the shape in which authlib asks for one."""

from authlib.oauth2.rfc6749 import ClientMixin

from security.clients import AuthMethod, Client
from security.oauth.grant_types import GRANTS_OF
from security.oauth.granting import choose_scope
from security.oauth.redirects import is_same_redirect

AUTH_METHODS = (
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "none",
)
_REGISTERED_AS: dict[str, AuthMethod] = {"client_secret_basic": "client_secret", "client_secret_post": "client_secret"}


class RegisteredClient(ClientMixin):  # type: ignore[misc]  # authlib has no types
    """What authlib may know of a client. It never gets the secret: see `client_authentication`."""

    def __init__(self, definition: Client) -> None:
        self.definition = definition

    def __repr__(self) -> str:
        return repr(self.definition)

    def get_client_id(self) -> str:
        """Its id."""
        return self.definition.client_id

    def get_default_redirect_uri(self) -> str | None:
        """Its only one; None where the request has to say which (RFC 6749 section 3.1.2.3)."""
        registered = self.definition.redirect_uris
        return registered[0] if len(registered) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str:
        """What it asked for, or all it may have. Raises: InvalidScopeError where authlib would leave out in silence."""
        return choose_scope(scope, self.definition.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether answers may go there."""
        return any(is_same_redirect(redirect_uri, registered) for registered in self.definition.redirect_uris)

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        """One method, at every endpoint."""
        return _REGISTERED_AS.get(method, method) == self.definition.auth_method

    def check_response_type(self, response_type: str) -> bool:
        """Whether it signs people in by their browser."""
        return response_type == "code" and self.definition.kind == "application"

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether its kind of client may use a grant."""
        return grant_type in GRANTS_OF[self.definition.kind]
