"""Who a request comes from: only ever what a validated access token or static key says, never a header that the caller sets."""

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from appliance.errors import ApplianceFault


@dataclass
class QuotaNotice:
    """What policy said of the quota while a request was served; goes out with its answer."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Principal(msgspec.Struct, frozen=True):
    """The claims of one valid access token that the rest of the gateway works with."""

    client_id: str
    subject: str
    tenant: str
    role: str
    scopes: frozenset[str]
    issuer: str
    key_id: str
    token_id: str
    """`jti`, or the id of a static key."""
    expires_at: int
    """UTC, seconds since the epoch."""
    is_registered: bool = True
    """False if another issuer than our authority vouches for it."""
    is_program: bool = False
    """That issuer gave it to a program for itself."""
    acting_client: str = ""
    """The service that acts for the subject, after a token exchange."""
    dpop_nonce: str = ""
    """For the client's next proof, with the answer."""
    notice: QuotaNotice = msgspec.field(default_factory=QuotaNotice)

    @property
    def is_person(self) -> bool:
        """Somebody signed in, and asks without another program between."""
        return self.subject != self.client_id and not self.acting_client and not self.is_program


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """What came with a request that says who it is from; nothing of it is believed yet."""

    scheme: str
    """`bearer` or `dpop`."""
    token: str
    method: str
    path: str
    """As it was sent, without the query."""
    address: str
    proofs: tuple[str, ...] = ()
    """Every `DPoP` header, where the scheme is that."""
    certificate: bytes | None = None
    """The client's certificate on this connection, DER."""

    def __repr__(self) -> str:
        return f"Presented({self.scheme}, {self.method} {self.path}, <hidden>)"


class TokenRefused(ApplianceFault):
    """The access token does not hold; the message may be shown to whoever sent it."""


class ProofRefused(TokenRefused):
    """The token may hold; the proof of possession that came with it does not (RFC 9449)."""


class NonceRequired(TokenRefused):
    """The proof must repeat this nonce (RFC 9449 section 9)."""

    def __init__(self, nonce: str) -> None:
        super().__init__("the proof needs the nonce in DPoP-Nonce")
        self.nonce = nonce


class TokenIssuerUnavailable(ApplianceFault):
    """The token's keys cannot be had now."""


class TokenCheck(Protocol):
    """The resource server's complete check of an access token."""

    async def __call__(self, presented: Presented) -> Principal:
        """Give the token's principal.

        Raises: TokenRefused, TokenIssuerUnavailable, GatewayFault.
        """
        ...
