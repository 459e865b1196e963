"""The authorization server without HTTP: metadata, key set, and a decision for each token request.

The caller MUST have the decision's facts recorded before it sends a token, and MUST bound the body while it reads it.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec

from security.clients import Client
from security.errors import SecurityMisconfigured
from security.oauth.grants import (
    AUTH_METHODS,
    GRANT_TYPES,
    InvalidRequestError,
    OAuth2Error,
    TokenServer,
)
from security.oauth.minting import AccessTokenMinter, MintedToken
from security.oauth.signing_keys import SigningKeys
from security.oauth.token_request import ParsedRequest, TokenRequest, parse_token_request
from security.scopes import GRANTED_SCOPES

METADATA_PATH = "/.well-known/oauth-authorization-server"
TOKEN_PATH = "/token"  # noqa: S105 - a path
KEY_SET_PATH = "/jwks.json"

MAX_RECORDED_CHARS = 128


class PendingRequest(msgspec.Struct, frozen=True):
    """A token request that was parsed, or refused while it was; nothing of it has been believed yet."""

    parsed: ParsedRequest | None
    fault: OAuth2Error | None

    @property
    def claimed_client_id(self) -> str:
        """Who the request says it is from, cut; empty if it does not say."""
        credentials = None if self.parsed is None else self.parsed.credentials
        return "" if credentials is None else credentials.client_id[:MAX_RECORDED_CHARS]

    def __repr__(self) -> str:
        return f"PendingRequest(claimed_client_id={self.claimed_client_id!r})"


class TokenDecision(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what the audit log must know of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    error: str | None
    """The OAuth error; None if a token was given."""
    client_id: str | None
    """Of an authenticated client, or else what was claimed, cut."""
    authenticated: bool
    auth_method: str | None
    minted: MintedToken | None

    def __repr__(self) -> str:
        return f"TokenDecision(status={self.status}, error={self.error!r}, client_id={self.client_id!r})"


class Authority:
    """One issuer for one resource server."""

    def __init__(
        self,
        *,
        issuer: str,
        resource: str,
        keys: SigningKeys,
        credentials_key: bytes,
        token_lifetime_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer.startswith("https://") or issuer.endswith("/"):
            raise SecurityMisconfigured(f"issuer {issuer!r}: expected https://host:port without a slash at the end")
        self.issuer = issuer
        self._keys = keys
        minter = AccessTokenMinter(
            issuer=issuer, resource=resource, keys=keys, lifetime_s=token_lifetime_s, clock=clock
        )
        self._server = TokenServer(issuer + TOKEN_PATH, credentials_key, minter)

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 section 2, only what is implemented. No authorization endpoint, so no response types."""
        return {
            "issuer": self.issuer,
            "token_endpoint": self.issuer + TOKEN_PATH,
            "jwks_uri": self.issuer + KEY_SET_PATH,
            "scopes_supported": list(GRANTED_SCOPES),
            "response_types_supported": [],
            "grant_types_supported": list(GRANT_TYPES),
            "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        }

    def key_set(self) -> dict[str, Any]:
        """The JWK Set (RFC 7517 section 5): every key that a valid token may be signed with."""
        return self._keys.public_key_set()

    def parse(self, request: TokenRequest) -> PendingRequest:
        """Parse a request to the token endpoint; what cannot be parsed is answered by `decide` as well."""
        try:
            parsed = parse_token_request(request)
            if "grant_type" not in parsed.parameters:
                raise InvalidRequestError("grant_type is missing")
            return PendingRequest(parsed, None)
        except OAuth2Error as fault:
            return PendingRequest(None, fault)

    def decide(self, pending: PendingRequest, client: Client | None) -> TokenDecision:
        """Answer a request to the token endpoint. Synchronous and short: one hash, one signature.

        Args:
            client: the client of the id that the request claims, if there is one.
        """
        credentials = None
        if pending.parsed is None:
            status, body, headers = self._server.answer_error(pending.fault)
        else:
            credentials = pending.parsed.credentials
            status, body, headers = self._server.answer(pending.parsed, client)
        minted: MintedToken | None = body.pop("minted", None)
        error: str | None = body.get("error")
        return TokenDecision(
            status=status,
            headers=tuple(headers),
            body=json.dumps(body, separators=(",", ":")).encode(),
            error=error,
            client_id=pending.claimed_client_id or None,
            # Scope and target are looked at only after the secret held.
            authenticated=error in (None, "invalid_scope", "invalid_target"),
            auth_method=None if credentials is None else credentials.method,
            minted=minted,
        )
