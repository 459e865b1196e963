"""The decision before anything else: may this request pass, and as whom? Nothing of it has been parsed but its first line.

Without a valid token a stranger learns nothing: every path, known or not, answers 401 alike. RFC 6750 is followed for the
challenge; tokens are taken from the Authorization header only, never from the query or the body (section 2.2 and 2.3 are
not offered).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.gateway.errors import Forbidden, GatewayFault, PeerUnavailable, Unauthenticated
from appliance.gateway.identity import Principal, TokenCheck, TokenIssuerUnavailable, TokenRefused
from appliance.gateway.routes import Match, RouteTable
from security.scopes import Scope

MAX_TOKEN_BYTES = 16 << 10


@dataclass(frozen=True)
class Admitted:
    """A request that may go on. A public route has no principal, unless a valid token came all the same."""

    match: Match
    principal: Principal | None


class Gate:
    """Route table and token check together."""

    def __init__(self, routes: RouteTable, check_token: TokenCheck) -> None:
        self._routes = routes
        self._check_token = check_token

    def name_of(self, method: str, raw_path: bytes) -> str:
        """The route's path as it was registered, for counting; strangers' own spellings have one name together."""
        try:
            return self._routes.match(method, raw_path).route.path
        except GatewayFault:
            return "unmatched"

    async def admit(self, method: str, raw_path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Admitted:
        """Decide about one request.

        Raises: Unauthenticated, Forbidden, NotFound, MethodNotAllowed; PeerUnavailable if the keys cannot be had.
        """
        try:
            match: Match | None = self._routes.match(method, raw_path)
            unmatched: GatewayFault | None = None
        except GatewayFault as fault:
            match, unmatched = None, fault
        authorization = [value for name, value in headers if name == b"authorization"]
        if match is not None and match.route.scope is Scope.PUBLIC and not authorization:
            return Admitted(match, None)
        principal = await self._identify(authorization)
        if match is None:
            assert unmatched is not None
            raise unmatched
        scope = match.route.scope
        if scope is not Scope.PUBLIC and scope not in principal.scopes:
            raise Forbidden(
                "insufficient_scope",
                f"this route needs the scope {scope}",
                f'Bearer realm="casemate", error="insufficient_scope", scope="{scope}"',
            )
        return Admitted(match, principal)

    async def _identify(self, authorization: list[bytes]) -> Principal:
        if not authorization:
            raise Unauthenticated("missing_token", "an access token is required", 'Bearer realm="casemate"')
        scheme, _, token = authorization[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated(
                "missing_token", "the Authorization header must be: Bearer TOKEN", 'Bearer realm="casemate"'
            )
        if len(authorization) > 1 or not token.isascii() or not 0 < len(token) <= MAX_TOKEN_BYTES:
            raise _invalid_token("the Authorization header is repeated, empty or too long")
        try:
            return await self._check_token(token.decode("ascii"))
        except TokenRefused as refusal:
            raise _invalid_token(str(refusal)) from refusal
        except TokenIssuerUnavailable as fault:
            raise PeerUnavailable("token_keys_unavailable", str(fault)) from fault


def _invalid_token(reason: str) -> Unauthenticated:
    """Section 3.1; the description may hold no quotes, backslashes or control characters (section 3)."""
    printable = "".join(
        character if " " <= character <= "~" and character not in '"\\' else "." for character in reason
    )
    challenge = f'Bearer realm="casemate", error="invalid_token", error_description="{printable[:200]}"'
    return Unauthenticated("invalid_token", reason, challenge)
