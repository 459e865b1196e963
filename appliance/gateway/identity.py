"""Who a request comes from: only ever what a validated access token says, never a header that the caller sets."""

from dataclasses import dataclass
from typing import Protocol

from appliance.errors import ApplianceFault


@dataclass(frozen=True)
class Principal:
    """The claims of one valid access token that the rest of the gateway works with."""

    client_id: str
    subject: str
    tenant: str
    role: str
    scopes: frozenset[str]
    issuer: str
    key_id: str
    token_id: str
    """`jti`."""
    expires_at: int
    """UTC, seconds since the epoch."""


class TokenRefused(ApplianceFault):
    """The access token does not hold; the message may be shown to whoever sent it."""


class TokenIssuerUnavailable(ApplianceFault):
    """The token's keys cannot be had now."""


class TokenCheck(Protocol):
    """The resource server's complete check of an access token."""

    async def __call__(self, token: str) -> Principal:
        """Give the token's principal.

        Raises: TokenRefused, TokenIssuerUnavailable.
        """
        ...
