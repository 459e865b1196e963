"""The route table: what exists, and which scope each route needs. What is not registered here does not exist.

There is no router of a framework behind it: no mounts, no redirects of trailing slashes, no automatic OPTIONS, HEAD only of what
is public (for probes, RFC 9110 section 9.3.2), no decoding of a path before it is matched. A path matches byte for byte, but for
one variable segment, the last or the last but one, or (of tiles) a tail of plain ones.
"""

import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import msgspec

from appliance.gateway.errors import BadRequest, MethodNotAllowed, NotFound
from appliance.gateway.exchange import Exchange
from security.scopes import Scope

Endpoint = Callable[[Exchange], Awaitable[None]]

PUBLIC_ROUTES = (("GET", "/health"), ("GET", "/ready"), ("GET", "/.well-known/oauth-protected-resource"))
"""All that may be had without a token. A change here is a change of what strangers see."""

HARMLESS_QUERIES = dict.fromkeys(("/v1/messages", "/v1/messages/count_tokens", "/v1/models/{id}"), (b"beta=true",))
"""What Anthropic's SDK puts there for its beta members, which are refused by their own names."""

_LITERAL = re.compile(r"(/\.?[a-z0-9_-]+)+(\.json)?")
_SEGMENT = re.compile(rb"[A-Za-z0-9._~:@%-]{1,512}")
_TAIL = re.compile(rb"[a-z0-9]{1,16}(\.p)?(/[a-z0-9]{1,16}(\.p)?){0,9}")
_ID, _PATH = "/{id}", "/{path}"
_WORD = re.compile(r"[a-z_]+")


@dataclass(frozen=True)
class Route:
    """One entry: method and path, the scope that opens it, and what answers."""

    method: str
    path: str
    """May end in `/{id}`: one variable segment; in that and a word; or in `/{path}`: one to ten of small letters and digits."""
    scope: Scope
    endpoint: Endpoint
    query: type[msgspec.Struct] | None = None
    """The parameters of its query, where it has any: the endpoint MUST parse them."""


class Match(msgspec.Struct, frozen=True):
    """A route, with the value of its variable segment if it has one."""

    route: Route
    segment: str = ""


def verify_query(route: Route, query: bytes) -> None:
    """Few routes have parameters in their query, and none is passed over. Probes of public routes may say what they like.

    Raises: BadRequest, naming the first one.
    """
    if not query or route.scope is Scope.PUBLIC or query in HARMLESS_QUERIES.get(route.path, ()):
        return
    if route.query is not None:
        return
    name = query.partition(b"&")[0].partition(b"=")[0][:64].decode("ascii", "replace")
    raise BadRequest("unknown_parameter", f"there are no parameters in the query here, got {name}", parameter=name)


class RouteTable:
    """All routes of a gateway. `register` is the only way in."""

    def __init__(self) -> None:
        self._fixed: dict[bytes, dict[str, Route]] = {}
        self._variable: dict[bytes, dict[str, Route]] = {}
        self._inner: dict[bytes, dict[str, Route]] = {}
        """By what stands before the variable segment, a null byte, and the word behind it."""
        self._tails: dict[bytes, dict[str, Route]] = {}

    def __iter__(self) -> Iterator[Route]:
        for table in (self._fixed, self._variable, self._inner, self._tails):
            for methods in table.values():
                yield from (route for method, route in methods.items() if method == route.method)

    def register(
        self,
        method: str,
        path: str,
        scope: Scope,
        endpoint: Endpoint,
        query: type[msgspec.Struct] | None = None,
    ) -> None:
        """Add a route. A public one must also stand in `PUBLIC_ROUTES`: mistakes are our own bug, so they raise plainly."""
        if (scope is Scope.PUBLIC) != ((method, path) in PUBLIC_ROUTES):
            raise ValueError(f"{method} {path} has scope {scope}: public routes are {PUBLIC_ROUTES}, and no others")
        literal, inner, word = path.partition(_ID + "/")
        literal = literal.removesuffix(_ID).removesuffix(_PATH)
        if not _LITERAL.fullmatch(literal) or (inner and not _WORD.fullmatch(word)):
            raise ValueError(f"{path!r} is not a path that this table can hold")
        if inner:
            methods = self._inner.setdefault(_inner_key(literal.encode(), word.encode()), {})
        else:
            table = self._variable if path.endswith(_ID) else self._tails if path.endswith(_PATH) else self._fixed
            methods = table.setdefault(literal.encode(), {})
        if method in methods:
            raise ValueError(f"{method} {path} is registered already")
        methods[method] = Route(method, path, scope, endpoint, query)
        if scope is Scope.PUBLIC:
            methods["HEAD"] = methods[method]  # The connection leaves the answer's body out.

    def match(self, method: str, raw_path: bytes) -> Match:
        """Find the route of a request, by the path exactly as it was sent.

        Raises: NotFound, MethodNotAllowed. The caller MUST NOT show either to somebody without a valid token.
        """
        segment = ""
        methods = self._fixed.get(raw_path)
        if methods is None:
            methods, value = self._match_variable(raw_path)
            if methods is None or value is None:
                raise NotFound("unknown_route", f"there is no route {raw_path[:128].decode('ascii', 'replace')}")
            segment = value
        route = methods.get(method)
        if route is None:
            fault = MethodNotAllowed(
                "method_not_allowed", f"this route takes {', '.join(sorted(methods))}, not {method}"
            )
            fault.headers = [(b"allow", ", ".join(sorted(methods)).encode())]
            raise fault
        return Match(route, segment)

    def _match_variable(self, raw_path: bytes) -> tuple[dict[str, Route] | None, str | None]:
        literal, _, segment = raw_path.rpartition(b"/")
        if (methods := self._variable.get(literal)) is not None:
            return methods, _decode_segment(segment)
        before, _, inner_segment = literal.rpartition(b"/")
        if (methods := self._inner.get(_inner_key(before, segment))) is not None:
            return methods, _decode_segment(inner_segment)
        for literal, methods in self._tails.items():
            tail = raw_path.removeprefix(literal + b"/")
            if tail != raw_path and _TAIL.fullmatch(tail):
                return methods, tail.decode("ascii")
        return None, None


def _inner_key(literal: bytes, word: bytes) -> bytes:
    return literal + b"\0" + word


def _decode_segment(raw: bytes) -> str | None:
    """The value of a variable segment: only ever compared with names, never used as a path."""
    if not _SEGMENT.fullmatch(raw):
        return None
    try:
        value = urllib.parse.unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return None
    # A segment of dots alone means another place to whoever resolves paths.
    return value if value.isprintable() and value.strip(".") else None
