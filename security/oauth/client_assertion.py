"""private_key_jwt: a client signs who it is (RFC 7523 section 3), on authlib's JWTBearerClientAssertion. The assertion is untrusted
until `process_assertion_claims` has returned.

authlib finds the assertion, its client and whether that is registered for the method. Reading and verifying are ours: authlib
reads duplicate claims as the last one, leaves the algorithm to what joserfc recommends, takes keys whatever their `use` and
`alg`, lets an assertion live for ever, and tells the client which check failed.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from authlib.oauth2.rfc7523 import JWTBearerClientAssertion

from security.errors import MalformedDocument, TokenRejected
from security.oauth.algorithms import FOREIGN_ALGORITHMS, algorithms_of, is_same_algorithm
from security.oauth.authority_request import AuthorityRequest
from security.oauth.client_keys import parse_client_keys
from security.oauth.dpop import is_number
from security.oauth.errors import AuthenticationFailed
from security.oauth.jws import RULE_CHANGING_MEMBERS, Jws, is_signed_by, parse_jws
from security.oauth.key_set import parse_public_key
from security.oauth.registered_client import RegisteredClient
from security.policy.replay import ReplayMemory

ASSERTION_LIFETIME_S = 300
"""An assertion is good no longer than this: from its `iat`, or, if it does not say when it was made, from now on."""
MAX_CLAIMED_LIFETIME_S = 3600
"""What `exp` may claim beside an `iat`: authlib's client says an hour, Microsoft's libraries ten minutes."""
SKEW_S = 10
MAX_ID_CHARS = 256
_TYPES = ("", "jwt", "client-authentication+jwt")


class ClientAssertion(JWTBearerClientAssertion):  # type: ignore[misc]  # authlib has no types
    """Verifies assertions for one authority, each of them once."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, audiences: frozenset[str], *, used: ReplayMemory, clock: Callable[[], float]) -> None:
        """
        Args:
            audiences: what an assertion may be for: the issuer and the addresses of its endpoints.
            used: the assertions that this authority has seen.
        """
        super().__init__(validate_jti=True, leeway=SKEW_S)
        self._audiences = audiences
        self._clock = clock
        self._used = used

    def __call__(
        self, query_client: Callable[[str], RegisteredClient | None], request: AuthorityRequest
    ) -> RegisteredClient | None:
        """authlib's method of authentication. Raises: InvalidClientError."""
        try:
            client: RegisteredClient | None = super().__call__(query_client, request)
        except (MalformedDocument, TokenRejected):
            raise AuthenticationFailed from None
        return client

    def get_audiences(self) -> list[str]:
        """Whom an assertion may be for."""
        return list(self._audiences)

    def extract_assertion(self, assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims, of which only `sub` is used before the signature holds. Raises: MalformedDocument, TokenRejected."""
        jws = parse_jws(assertion)
        return jws.header, jws.payload()

    def resolve_client_public_key(self, client: RegisteredClient) -> list[dict[str, Any]]:
        """The entries of its key set; which of them may be used depends on the assertion. Raises: MalformedDocument."""
        return parse_client_keys(client.definition.jwks or "")

    def process_assertion_claims(self, assertion: str, resolve_key: list[dict[str, Any]]) -> dict[str, Any]:
        """Verify signature, then claims, then that it is used for the first time. Raises: TokenRejected, MalformedDocument."""
        jws = parse_jws(assertion)
        _verify_signature(jws, resolve_key)
        claims = jws.payload()
        self.verify_claims(claims)
        return claims

    def verify_claims(self, claims: dict[str, Any]) -> None:
        """RFC 7523 section 3; that `sub` is the client authlib has seen to. Raises: TokenRejected."""
        now, expires_at = self._clock(), claims.get("exp")
        if claims.get("iss") != claims["sub"]:
            raise TokenRejected("iss and sub must be the client")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or not any(
            one in self._audiences for one in audiences if isinstance(one, str)
        ):
            raise TokenRejected("aud: the assertion is for somebody else")
        longest_s = MAX_CLAIMED_LIFETIME_S if "iat" in claims else ASSERTION_LIFETIME_S
        if not is_number(expires_at) or not now - self.leeway < expires_at <= now + longest_s + self.leeway:
            raise TokenRejected("exp: the assertion has expired, or lives too long")
        for name in ("nbf", "iat"):
            value = claims.get(name, 0)
            if not is_number(value) or value > now + self.leeway:
                raise TokenRejected(f"{name}: the assertion is not valid yet")
        if claims.get("iat", now) <= now - ASSERTION_LIFETIME_S - self.leeway:
            raise TokenRejected("iat: the assertion was not made just now")
        if not self.validate_jti(claims, claims.get("jti")):
            raise TokenRejected("jti: the assertion has no id of its own, or was used before")

    def validate_jti(self, claims: dict[str, Any], jti: Any) -> bool:
        """True for the first use of an id by its client."""
        if not isinstance(jti, str) or not 0 < len(jti) <= MAX_ID_CHARS:
            return False
        digest = hashlib.sha256(f"{claims['sub']} {jti}".encode()).digest()
        return self._used.use(digest, ASSERTION_LIFETIME_S + 2 * SKEW_S)


def _verify_signature(jws: Jws, entries: list[dict[str, Any]]) -> None:
    header = jws.header
    if any(name in header for name in ("jwk", *RULE_CHANGING_MEMBERS)):
        raise TokenRejected("the assertion's header brings a key")
    if str(header.get("typ", "")).lower() not in _TYPES:
        raise TokenRejected("the assertion is of another type")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in FOREIGN_ALGORITHMS:
        raise TokenRejected("the assertion's algorithm is not supported")
    for entry in entries:
        if kid is not None and entry.get("kid") is not None and entry["kid"] != kid:
            continue
        if entry.get("use", "sig") != "sig" or not is_same_algorithm(entry.get("alg", algorithm), algorithm):
            continue
        try:
            key = parse_public_key(entry)
        except MalformedDocument:
            continue
        if algorithm in algorithms_of(key) and is_signed_by(jws, key, algorithm):
            return
    raise TokenRejected("the assertion's signature does not hold")
