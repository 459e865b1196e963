"""Errors of OAuth endpoints, each as its RFC words it. They leave an endpoint as an answer, never as an exception.

Built on authlib's: it brings the body and the headers that forbid caching. Descriptions are ours and hold nothing that a
client sent.
"""

from authlib.consts import default_json_headers
from authlib.oauth2.rfc6749.errors import (
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    UnauthorizedClientError,
    UnsupportedGrantTypeError,
)

REALM = "casemate"


class InvalidTarget(OAuth2Error):  # type: ignore[misc]  # authlib has no types, here and below
    """RFC 8707 section 2: the requested resource is not one that tokens are issued for."""

    error = "invalid_target"


class InvalidDpopProof(OAuth2Error):  # type: ignore[misc]
    """RFC 9449 section 5.8."""

    error = "invalid_dpop_proof"


class UseDpopNonce(OAuth2Error):  # type: ignore[misc]
    """RFC 9449 section 8: the proof needs the nonce that comes with this answer."""

    error = "use_dpop_nonce"


class AuthorizationPending(OAuth2Error):  # type: ignore[misc]
    """RFC 8628 section 3.5: the person has not decided yet."""

    error = "authorization_pending"


class SlowDown(OAuth2Error):  # type: ignore[misc]
    """RFC 8628 section 3.5: asked too soon; the interval grows by five seconds."""

    error = "slow_down"


class DeviceDenied(OAuth2Error):  # type: ignore[misc]
    """RFC 8628 section 3.5: the person refused."""

    error = "access_denied"


class DeviceExpired(OAuth2Error):  # type: ignore[misc]
    """RFC 8628 section 3.5: the device code is of no use any more."""

    error = "expired_token"


class Overloaded(OAuth2Error):  # type: ignore[misc]
    """RFC 6749 section 4.1.2.1 has the word; other endpoints' clients know it too."""

    error = "temporarily_unavailable"


class AuthenticationFailed(InvalidClientError):  # type: ignore[misc]
    """RFC 6749 section 5.2, always 401 and always with the same words, whatever failed."""

    def __init__(self) -> None:
        super().__init__(description="Client authentication failed", status_code=401)

    def get_headers(self) -> list[tuple[str, str]]:
        """The challenge with the realm that RFC 7617 section 2 requires."""
        return [*default_json_headers, ("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"')]


class ReusedGrant(InvalidGrantError):  # type: ignore[misc]
    """A refresh token or code came back that was used before: whatever came of it ends (RFC 9700 section 4.14.2)."""

    def __init__(self, family: str, user_id: str) -> None:
        super().__init__("The grant was used before")
        self.family = family
        self.user_id = user_id


class UnsupportedGrant(UnsupportedGrantTypeError):  # type: ignore[misc]
    """RFC 6749 section 5.2. authlib's own would repeat what the client sent."""

    description = "The grant type is not supported"

    def __init__(self) -> None:
        super().__init__("")

    def get_error_description(self) -> str:
        """Always the same."""
        return self.description


__all__ = [
    "AuthenticationFailed",
    "AuthorizationPending",
    "DeviceDenied",
    "DeviceExpired",
    "InvalidClientError",
    "InvalidDpopProof",
    "InvalidGrantError",
    "InvalidRequestError",
    "InvalidScopeError",
    "InvalidTarget",
    "OAuth2Error",
    "Overloaded",
    "ReusedGrant",
    "SlowDown",
    "UnauthorizedClientError",
    "UnsupportedGrant",
    "UseDpopNonce",
]
