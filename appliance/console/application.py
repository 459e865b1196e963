"""The whole of it as one ASGI application, and its server."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any, cast

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from appliance.authority.http import close_unread
from appliance.console.appliance_api import ApplianceApi
from appliance.console.capacity import Capacity
from appliance.console.definitions import DefinitionRoutes
from appliance.console.overview import OverviewRoutes
from appliance.console.pages import HEADERS, Pages
from appliance.console.records import RecordRoutes
from appliance.console.routes import ConsoleRoutes
from appliance.console.sessions import SessionDesk
from appliance.console.settings import ConsoleSettings
from appliance.console.sign_in import SignInRoutes
from appliance.console.tokens import AuthorityClient
from appliance.gateway.server import HttpServer
from appliance.gateway.settings import GatewaySettings
from security.oauth.token_request import MAX_BODY_BYTES

MAX_CONNECTIONS = 128
MAX_CONNECTIONS_PER_SOURCE = 32
"""A browser opens six. Nobody takes all of them by himself."""
MAX_HEADER_BYTES = 16 << 10

log = structlog.get_logger(__name__)


class Console:
    """The routes of one console."""

    def __init__(
        self, desk: SessionDesk, pages: Pages, authority: AuthorityClient, api: ApplianceApi, origin: str
    ) -> None:
        self._pages = pages
        self._sign_in = SignInRoutes(desk, pages, authority, origin)
        self.routes = ConsoleRoutes(desk, pages, origin)
        self._sign_in.register(self.routes)
        OverviewRoutes(api, pages, Capacity()).register(self.routes)
        DefinitionRoutes(api, pages).register(self.routes)
        RecordRoutes(api, pages).register(self.routes)
        self.routes.public("/health", _health)

    def build(self) -> Starlette:
        """The ASGI application."""
        handlers = {HTTPException: self._answer_http_exception, Exception: self._answer_bug}
        app = Starlette(routes=self.routes.build(), exception_handlers=cast(Any, handlers))
        app.router.redirect_slashes = False
        return app

    async def end_sessions(self) -> None:
        """When the process ends."""
        await self._sign_in.end_all()

    async def _answer_http_exception(self, request: Request, error: HTTPException) -> Response:
        return await self.routes.answer_unknown(request, error.status_code)

    async def _answer_bug(self, request: Request, error: Exception) -> Response:
        """The supervision point of one request."""
        log.error("console_failed", path=request.url.path, exc_info=error)
        return self._pages.message(None, "This did not work", "An error of ours; it is in the log.", 500)


async def _health(_request: Request) -> Response:
    """Alive; whether the appliance is, the gateway tells."""
    return PlainTextResponse("ok\n", headers=HEADERS)


def build_console_server(app: Starlette, settings: ConsoleSettings, tls: ssl.SSLContext) -> HttpServer:
    """The server for the socket that the supervisor bound."""
    bounds = GatewaySettings(
        host=settings.host,
        port=settings.port,
        max_body_bytes=MAX_BODY_BYTES,
        max_header_bytes=MAX_HEADER_BYTES,
        header_timeout_s=10.0,
        keep_alive_timeout_s=15,
        max_connections=MAX_CONNECTIONS,
        max_connections_per_source=MAX_CONNECTIONS_PER_SOURCE,
    )
    return HttpServer(cast(Any, close_unread(app)), bounds, tls)


async def serve_console(
    console: Console, server: HttpServer, listeners: Sequence[socket.socket], draining: asyncio.Event
) -> None:
    """Answer until drained, then end every session."""
    await server.serve(listeners, draining)
    await console.end_sessions()
