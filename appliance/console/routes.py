"""What there is, and which scope each route needs; and the one way past that to what answers.

In order, for every request: (1) the session of the cookie, without which every path but the public ones leads to the sign-in, known
or not; (2) a lock; (3) the route's scope; (4) for a form: it comes from a page of ours (`Origin`), is small, names each field
once, and has the session's token. What an API refuses is shown in its own words.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from appliance.authority.http import read_body
from appliance.console.errors import Declined, SessionOver
from appliance.console.pages import COOKIE, LOCKED_PATH, Pages, redirect
from appliance.console.sessions import Session, SessionDesk
from security.errors import SecurityFault
from security.oauth.errors import OAuth2Error
from security.oauth.token_request import parse_form
from security.scopes import Scope

SIGN_IN_PATH = "/sign_in"
PUBLIC_ROUTES = (
    ("GET", SIGN_IN_PATH),
    ("GET", "/sign_in/begin"),
    ("GET", "/callback"),
    ("GET", LOCKED_PATH),
    ("GET", "/health"),
)
"""All that may be had without a session. A change here is a change of what strangers see."""
SIGNED_IN = None
"""In place of a scope: for whoever is signed in, whatever the role."""

log = structlog.get_logger(__name__)


class Visit(NamedTuple):
    """One request of somebody who may make it."""

    session: Session
    request: Request
    fields: dict[str, str]
    """Of the form; empty for a GET."""

    @property
    def segment(self) -> str:
        """The value of the path's variable segment."""
        return str(self.request.path_params.get("id", ""))


Handler = Callable[[Visit], Awaitable[Response]]
PublicHandler = Callable[[Request], Awaitable[Response]]


class Route(NamedTuple):
    """One entry."""

    method: str
    path: str
    scope: Scope | None
    endpoint: PublicHandler


class ConsoleRoutes:
    """The table. `public` and `add` are the only ways in."""

    def __init__(self, desk: SessionDesk, pages: Pages, origin: str) -> None:
        """
        Args:
            origin: where browsers reach the console.
        """
        self._desk = desk
        self._pages = pages
        self._origin = origin
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def public(self, path: str, endpoint: PublicHandler) -> None:
        """A GET route for everybody, which must stand in `PUBLIC_ROUTES`."""
        if ("GET", path) not in PUBLIC_ROUTES:
            raise ValueError(f"{path} is not public: {PUBLIC_ROUTES}")
        self._routes.append(Route("GET", path, Scope.PUBLIC, endpoint))

    def add(self, method: str, path: str, scope: Scope | None, handler: Handler, *, when_locked: bool = False) -> None:
        """A route for those who are signed in and have the scope."""
        if scope is Scope.PUBLIC:
            raise ValueError(f"{path}: public routes are {PUBLIC_ROUTES}, and no others")

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, scope, handler, when_locked)

        self._routes.append(Route(method, path, scope, endpoint))

    def build(self) -> list[StarletteRoute]:
        """For Starlette."""
        return [StarletteRoute(one.path, one.endpoint, methods=[one.method]) for one in self._routes]

    async def answer_unknown(self, request: Request, status: int) -> Response:
        """Whoever is not signed in does not learn what there is."""
        session = self._desk.look(request.cookies.get(COOKIE))
        if session is None:
            return redirect(SIGN_IN_PATH)
        return self._pages.message(session, "Not here", "There is no such page.", status)

    async def _answer(self, request: Request, scope: Scope | None, handler: Handler, when_locked: bool) -> Response:
        # (1)
        session = self._desk.look(request.cookies.get(COOKIE))
        if session is None:
            return redirect(SIGN_IN_PATH)
        # (2)
        if session.is_locked and not when_locked:
            return redirect(LOCKED_PATH)
        if not session.is_locked:
            self._desk.touch(session)
        # (3)
        if scope is not None and scope not in session.scopes:
            return self._pages.message(session, "Not for your role", f"This page needs the scope {scope.value}.", 403)
        # (4)
        if request.method == "POST":
            form = await self._read_form(request, session)
            return form if isinstance(form, Response) else await self._try(handler, Visit(session, request, form))
        session.then = request.url.path
        return await self._try(handler, Visit(session, request, {}))

    async def _try(self, handler: Handler, visit: Visit) -> Response:
        session = visit.session
        try:
            return await handler(visit)
        except Declined as declined:
            return self._pages.message(session, "Refused", f"{declined} ({declined.code})", declined.status)
        except SessionOver as over:
            log.info("session_over", subject=session.subject, reason=str(over))
            self._desk.end(visit.request.cookies.get(COOKIE))
            return redirect(SIGN_IN_PATH)
        except SecurityFault as fault:
            log.error("appliance_unavailable", path=visit.request.url.path, reason=str(fault))
            return self._pages.message(session, "Try again later", "The appliance cannot answer this now.", 503)

    async def _read_form(self, request: Request, session: Session) -> dict[str, str] | Response:
        if request.headers.get("origin") != self._origin:
            return self._pages.message(session, "Begin again", "The form did not come from a page of this server.", 403)
        try:
            pairs = parse_form(await read_body(request))
        except (OAuth2Error, TimeoutError):
            return self._pages.message(session, "Begin again", "The form cannot be read.", 400)
        except ClientDisconnect:
            return Response(status_code=400)
        fields = dict(pairs)
        if len(fields) != len(pairs):
            return self._pages.message(session, "Begin again", "The form cannot be read.", 400)
        if not hmac.compare_digest(fields.pop("form_token", "").encode(), session.form_token.encode()):
            return self._pages.message(session, "Begin again", "The form is not from this session.", 403)
        return fields
