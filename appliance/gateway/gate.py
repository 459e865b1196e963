"""The decision before anything else: may this request pass, and as whom? Nothing of it has been parsed but its first line.

Without a valid token a stranger learns nothing: every path, known or not, answers 401 alike. RFC 6750, and for bound tokens
RFC 9449 section 7.1, are followed for the challenge, which names where the way to a token is described (RFC 9728 section
5.1). Tokens are taken from the Authorization header only, never from the query or the body (RFC 6750 sections 2.2 and 2.3
are not offered). A static key may come in `x-api-key` instead, where Anthropic's clients put what they call an API key.
"""

from collections.abc import Iterable

import msgspec

from appliance.gateway.errors import AmbiguousCredentials, Forbidden, GatewayFault, PeerUnavailable, Unauthenticated
from appliance.gateway.identity import (
    NonceRequired,
    Presented,
    Principal,
    ProofRefused,
    TokenCheck,
    TokenIssuerUnavailable,
    TokenRefused,
)
from appliance.gateway.observing import UNMATCHED
from appliance.gateway.routes import Match, RouteTable
from security.scopes import Scope
from security.static_keys import is_static_key

MAX_TOKEN_BYTES = 16 << 10


class Admitted(msgspec.Struct, frozen=True):
    """A request that may go on. A public route has no principal, unless a valid token came all the same."""

    match: Match
    principal: Principal | None


class Caller(msgspec.Struct, frozen=True):
    """What the connection says of its other end."""

    address: str = ""
    certificate: bytes | None = None
    """The client's certificate, DER."""


class Gate:
    """Route table and token check together."""

    def __init__(self, routes: RouteTable, check_token: TokenCheck, challenges: "Challenges | None" = None) -> None:
        self._routes = routes
        self._check_token = check_token
        self._challenges = challenges or Challenges()

    def name_of(self, method: str, raw_path: bytes) -> str:
        """The route's path as it was registered, for counting; strangers' own spellings have one name together."""
        try:
            return self._routes.match(method, raw_path).route.path
        except GatewayFault:
            return UNMATCHED

    async def admit(
        self, method: str, raw_path: bytes, headers: Iterable[tuple[bytes, bytes]], caller: Caller | None = None
    ) -> Admitted:
        """Decide about one request.

        Raises: Unauthenticated, Forbidden, NotFound, MethodNotAllowed; PeerUnavailable if the keys cannot be had.
        """
        headers = list(headers)
        try:
            match: Match | None = self._routes.match(method, raw_path)
            unmatched: GatewayFault | None = None
        except GatewayFault as fault:
            match, unmatched = None, fault
        authorization = [value for name, value in headers if name == b"authorization"] or _static_keys(headers)
        if match is not None and match.route.scope is Scope.PUBLIC and not authorization:
            return Admitted(match, None)
        presented = self._parse(authorization, method, raw_path, headers, caller or Caller())
        principal = await self._identify(presented)
        if match is None:
            assert unmatched is not None
            raise unmatched
        scope = match.route.scope
        if scope is not Scope.PUBLIC and scope not in principal.scopes:
            challenge = self._challenges.insufficient_scope(presented.scheme, scope)
            forbidden = Forbidden("insufficient_scope", f"this route needs the scope {scope}", challenge)
            forbidden.principal = principal
            if principal.dpop_nonce:  # The proof was good: its client gets the next nonce as with any other answer.
                forbidden.headers.append((b"dpop-nonce", principal.dpop_nonce.encode()))
            raise forbidden
        return Admitted(match, principal)

    def _parse(
        self,
        authorization: list[bytes],
        method: str,
        raw_path: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        caller: Caller,
    ) -> Presented:
        if not authorization:
            raise Unauthenticated("missing_token", "an access token is required", *self._challenges.missing())
        scheme, _, token = authorization[0].partition(b" ")
        scheme, token = scheme.lower(), token.lstrip(b" ")  # RFC 6750 section 2.1: one space or more.
        if scheme not in (b"bearer", b"dpop"):
            raise Unauthenticated(
                "missing_token", "the Authorization header must be: Bearer TOKEN", *self._challenges.missing()
            )
        if len(authorization) > 1:
            reason = "there is more than one access token"
            challenge = self._challenges.invalid(scheme.decode(), reason, "invalid_request")
            raise AmbiguousCredentials("invalid_request", reason, challenge)
        if not token.isascii() or not 0 < len(token) <= MAX_TOKEN_BYTES:
            reason = "the Authorization header is empty or too long"
            raise Unauthenticated("invalid_token", reason, *self._challenges.invalid_token(scheme.decode(), reason))
        return Presented(
            scheme=scheme.decode(),
            token=token.decode("ascii"),
            method=method,
            path=raw_path.decode("latin-1"),
            address=caller.address,
            proofs=_proofs(headers) if scheme == b"dpop" else (),
            certificate=caller.certificate,
        )

    async def _identify(self, presented: Presented) -> Principal:
        try:
            return await self._check_token(presented)
        except NonceRequired as refusal:
            challenge = self._challenges.invalid("dpop", str(refusal), "use_dpop_nonce")
            fault = Unauthenticated("use_dpop_nonce", str(refusal), challenge)
            fault.headers.append((b"dpop-nonce", refusal.nonce.encode()))
            raise fault from refusal
        except ProofRefused as refusal:
            challenge = self._challenges.invalid("dpop", str(refusal), "invalid_dpop_proof")
            raise Unauthenticated("invalid_dpop_proof", str(refusal), challenge) from refusal
        except TokenRefused as refusal:
            challenges = self._challenges.invalid_token(presented.scheme, str(refusal))
            raise Unauthenticated("invalid_token", str(refusal), *challenges) from refusal
        except TokenIssuerUnavailable as fault:
            raise PeerUnavailable("token_keys_unavailable", str(fault)) from fault


def _proofs(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for name, value in headers if name == b"dpop")


def _static_keys(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """What stands in `x-api-key`, as if it stood in Authorization, if it has the form of a static key."""
    keys = [value for name, value in headers if name == b"x-api-key"]
    return [b"Bearer " + key for key in keys] if all(is_static_key(key.decode("latin-1")) for key in keys) else []


class Challenges:
    """The `WWW-Authenticate` values of one resource server."""

    def __init__(self, metadata_url: str = "", dpop_algorithms: tuple[str, ...] = ()) -> None:
        where = f', resource_metadata="{metadata_url}"' if metadata_url else ""
        self._tails = {"bearer": where, "dpop": where}
        self._schemes = ("bearer", "dpop") if dpop_algorithms else ("bearer",)
        if dpop_algorithms:
            self._tails["dpop"] = f', algs="{" ".join(dpop_algorithms)}"{where}'

    def missing(self) -> tuple[str, ...]:
        """No token at all: no error code either (RFC 6750 section 3.1). With DPoP, both schemes (RFC 9449 section 7.1)."""
        return tuple(self._head(scheme) + self._tails[scheme] for scheme in self._schemes)

    def invalid_token(self, scheme: str, reason: str) -> tuple[str, ...]:
        """What is wrong, in the scheme that was tried, and whatever else is taken: a bound token that came as a bearer's may be
        good with a proof (RFC 9449 section 7.2).
        """
        others = (self._head(other) + self._tails[other] for other in self._schemes if other != scheme)
        return self.invalid(scheme, reason), *others

    def invalid(self, scheme: str, reason: str, error: str = "invalid_token") -> str:
        """RFC 6750 section 3.1; the description may hold no quotes, backslashes or control characters (section 3)."""
        printable = "".join(
            character if " " <= character <= "~" and character not in '"\\' else "." for character in reason
        )
        return f'{self._head(scheme)}, error="{error}", error_description="{printable[:200]}"{self._tails[scheme]}'

    def insufficient_scope(self, scheme: str, scope: str) -> str:
        """A valid token that lacks the route's scope."""
        return f'{self._head(scheme)}, error="insufficient_scope", scope="{scope}"{self._tails[scheme]}'

    def _head(self, scheme: str) -> str:
        return f'{"DPoP" if scheme == "dpop" else "Bearer"} realm="casemate"'
