"""The grants of the token endpoint, each on authlib's class for it (RFC 6749, 7636, 8628).

authlib runs each grant: it authenticates the client, reads the parameters, compares redirect URI and code verifier, and calls
what is here in its order. Ours is what a code or token is worth, and that it is spent before anything else is said about it:
authlib deletes a code and a refresh token only after new tokens were made, and a device code never. What it calls the *user* is
here what is granted to the person (`Granted`). Policy of all grants stands in `grant_server`.
"""

import re
from typing import Any

from authlib.oauth2.rfc6749 import (
    AuthorizationCodeGrant,
    AuthorizationCodeMixin,
    ClientCredentialsGrant,
    RefreshTokenGrant,
    TokenMixin,
)
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceCodeGrant, DeviceCredentialMixin

from security.oauth.errors import (
    AuthorizationPending,
    DeviceDenied,
    DeviceExpired,
    InvalidGrantError,
    InvalidRequestError,
    ReusedGrant,
    SlowDown,
)
from security.oauth.granting import Granted, choose_scope
from security.oauth.interactions import DeviceGrant, SpentCode
from security.oauth.minting import holder_of
from security.oauth.refresh_store import Family
from security.oauth.registered_client import AUTH_METHODS, RegisteredClient

METHODS = list(AUTH_METHODS)
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 digest in base64url: of a code verifier (RFC 7636 section 4.2), or of a key (RFC 7638)."""


class ServiceGrant(ClientCredentialsGrant):  # type: ignore[misc]  # authlib has no types, here and below
    """A service, for itself."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def generate_token(self, scope: str | None = None, **options: Any) -> dict[str, Any]:
        """For the client and no more than it has; authlib would sign whatever scope was asked for."""
        client = self.client.definition
        granted = Granted(holder=holder_of(client), scope=choose_scope(scope, client.scopes))
        token: dict[str, Any] = super().generate_token(user=granted, scope=granted.scope, **options)
        return token


class AgreedCode(AuthorizationCodeMixin):  # type: ignore[misc]
    """A code that was spent just now, as authlib asks for it."""

    code_challenge_method = "S256"

    def __init__(self, spent: SpentCode) -> None:
        self.spent = spent
        self.code_challenge = spent.grant.challenge

    def get_redirect_uri(self) -> str:
        """What the token request must repeat; empty if the authorization request named none."""
        return self.spent.grant.redirect_uri if self.spent.grant.redirect_uri_was_given else ""

    def get_scope(self) -> str:
        """What the person agreed to."""
        return self.spent.grant.scope


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    """An application, for the person who signed in by its browser (RFC 6749 section 4.1.3)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def query_authorization_code(self, code: str, client: RegisteredClient) -> AgreedCode | None:
        """Spend the code, whatever comes of it. Raises: InvalidGrantError; ReusedGrant if it was spent before."""
        interactions = self.server.shared.interactions
        spent = interactions.spend_code(code)
        if spent is None:
            before = interactions.find_spent(code)
            if before is not None and before.grant.client_id == client.get_client_id():
                raise ReusedGrant(before.family, before.grant.user_id)
            return None
        self.request.taken.append(lambda: interactions.give_back_code(code))
        grant, binding = spent.grant, self.request.binding
        if grant.client_id != client.get_client_id():
            return None
        # authlib compares only where the authorization request named one.
        if self.request.payload.redirect_uri not in (None, grant.redirect_uri):
            raise InvalidGrantError("redirect_uri is not that of the authorization request")
        # RFC 9449 section 10: `dpop_jkt`.
        if grant.key_thumbprint and (binding is None or binding.thumbprint != grant.key_thumbprint):
            raise InvalidGrantError("The code is bound to another key")
        return AgreedCode(spent)

    def authenticate_user(self, authorization_code: AgreedCode) -> Granted:
        """Begin the session. Raises: OAuth2Error."""
        spent = authorization_code.spent
        granted: Granted
        granted, spent.family = self.server.begin_session(spent.grant.user_id, spent.grant.scope, spent.grant.auth_time)
        return granted

    def delete_authorization_code(self, authorization_code: AgreedCode) -> None:
        """It was spent before."""


class S256Challenge(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 for every client; authlib would take `plain`, and none at all from a client that authenticates."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS = {"S256": CodeChallenge.CODE_CHALLENGE_METHODS["S256"]}  # noqa: RUF012 - authlib's form

    def validate_code_challenge(self, grant: Any, redirect_uri: Any) -> None:
        """RFC 7636 section 4.4.1, RFC 9700 section 2.1.1. Raises: InvalidRequestError."""
        data = grant.request.payload.data
        if data.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(data.get("code_challenge", "")):
            raise InvalidRequestError("PKCE with S256 is required")
        super().validate_code_challenge(grant, redirect_uri)

    def validate_code_verifier(self, grant: Any, result: Any) -> None:
        """RFC 7636 section 4.6: whatever is wrong with it, the code is worth nothing. Raises: InvalidGrantError."""
        try:
            super().validate_code_verifier(grant, result)
        except InvalidRequestError:
            raise InvalidGrantError("code_verifier is missing or malformed") from None


class SpentToken(TokenMixin):  # type: ignore[misc]
    """A family of which a token was spent just now, as authlib asks for it."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def check_client(self, client: RegisteredClient) -> bool:
        """Seen to before the token was spent."""
        return self.family.grant.client_id == client.get_client_id()

    def get_scope(self) -> str:
        """What the session was begun with."""
        return self.family.grant.scope


class Turnover(RefreshTokenGrant):  # type: ignore[misc]
    """An application, as long as the person's session lives; each token is good once (RFC 6749 section 6)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> SpentToken | None:
        """Spend the token. Raises: OAuth2Error; ReusedGrant if it was spent before (RFC 9700 section 4.14.2)."""
        store = self.server.shared.refresh
        self._verify_own(store.look(refresh_token))
        family = store.use(refresh_token)
        if family is not None and family.is_reused:
            raise ReusedGrant(family.family, family.grant.user_id)
        if family is None:
            return None
        self.request.taken.append(lambda: store.give_back(refresh_token))
        return SpentToken(family)

    def _verify_own(self, family: Family | None) -> None:
        """What a mistake of its owner must not cost it: checked before the token is spent."""
        if family is None:
            return
        grant, binding = family.grant, self.request.binding
        if grant.client_id != self.client.get_client_id():
            raise InvalidGrantError("The refresh token is not valid")
        if grant.key_thumbprint and (binding is None or binding.thumbprint != grant.key_thumbprint):
            raise InvalidGrantError("The refresh token is bound to another key or certificate")
        self.server.verify_going_on(family)

    def authenticate_user(self, refresh_token: SpentToken) -> Granted:
        """Go on with the session. Raises: OAuth2Error."""
        granted: Granted = self.server.go_on(refresh_token.family)
        return granted

    def revoke_old_credential(self, refresh_token: SpentToken) -> None:
        """It was spent before."""


class WaitingDevice(DeviceCredentialMixin):  # type: ignore[misc]
    """A device that asked in time, as authlib asks for it."""

    def __init__(self, grant: DeviceGrant) -> None:
        self.grant = grant

    def get_client_id(self) -> str:
        """The application on it."""
        return self.grant.client_id

    def get_scope(self) -> str:
        """What the person was asked for."""
        return self.grant.scope

    def get_user_code(self) -> str:
        """What it shows."""
        return self.grant.user_code

    def is_expired(self) -> bool:
        """Seen to before."""
        return False


class DevicePoll(DeviceCodeGrant):  # type: ignore[misc]
    """An application, for a person who signed in elsewhere (RFC 8628 sections 3.4 and 3.5)."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self) -> None:
        """Authenticate before a word is said about the grant; authlib would look for the code first."""
        self.authenticate_token_endpoint_client()
        super().validate_token_request()

    def query_device_credential(self, device_code: str) -> WaitingDevice:
        """Count the question. Raises: InvalidGrantError, DeviceExpired, SlowDown, AuthorizationPending."""
        grant = self.server.shared.interactions.poll_device(device_code, self.client.get_client_id())
        if grant is None:
            raise InvalidGrantError("The device code is not valid")
        if grant == "expired":
            raise DeviceExpired("The device code has expired")
        if grant == "slow_down":
            raise SlowDown("Ask less often")
        if grant.state == "pending":
            raise AuthorizationPending("Nobody has decided yet")
        interactions = self.server.shared.interactions
        interactions.spend_device(device_code)
        self.request.taken.append(lambda: interactions.give_back_device(device_code, grant))
        return WaitingDevice(grant)

    def validate_device_credential(self, credential: WaitingDevice) -> Granted:
        """Begin the session that the person agreed to. Raises: DeviceDenied, OAuth2Error."""
        grant = credential.grant
        if grant.state == "denied":
            raise DeviceDenied("The person refused")
        granted: Granted
        granted, _family = self.server.begin_session(grant.user_id, grant.scope, grant.auth_time)
        return granted
