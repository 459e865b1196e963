"""The ASGI application of the admin listener: gate, endpoint, and one answer for each fault.

The supervision point of one request, as the gateway's is: whatever an endpoint raises ends here and disturbs nothing else.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from socket import socket

import structlog

from appliance.config import Configuration
from appliance.gateway.asgi import Receive, Scope, Send
from appliance.gateway.errors import (
    BadRequest,
    ClientGone,
    GatewayFault,
    InternalFault,
    PeerUnavailable,
    Unauthenticated,
    error_body,
    http_of,
)
from appliance.gateway.exchange import CERTIFICATE, BodyBudget, Exchange
from appliance.gateway.gate import Caller, Challenges, Gate
from appliance.gateway.identity import TokenCheck
from appliance.gateway.rejections import Rejections
from appliance.gateway.routes import RouteTable
from appliance.gateway.server import HttpServer
from appliance.gateway.settings import GatewaySettings
from appliance.policy.administration.endpoints import Administration
from security.errors import ClientRejected, SecurityFault
from security.oauth.algorithms import FOREIGN_ALGORITHMS

MAX_BODY_BYTES = 64 << 10
MAX_CONNECTIONS = 128
MAX_CONNECTIONS_PER_SOURCE = 32
"""Nobody takes all of them by himself."""
BODY_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


class AdminApplication:
    """The listener's ASGI callable."""

    def __init__(self, administration: Administration, check_token: TokenCheck, rejections: Rejections) -> None:
        self.routes = RouteTable()
        administration.register(self.routes)
        self._gate = Gate(self.routes, check_token, Challenges("", FOREIGN_ALGORITHMS))
        self._rejections = rejections
        self._budget = BodyBudget(MAX_CONNECTIONS * MAX_BODY_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(
            scope,
            receive,
            send,
            max_body_bytes=MAX_BODY_BYTES,
            body_timeout_s=BODY_TIMEOUT_S,
            send_timeout_s=SEND_TIMEOUT_S,
            budget=self._budget,
            id_prefix="adm",
        )
        try:
            caller = Caller(exchange.source_address, scope.get(CERTIFICATE))
            admitted = await self._gate.admit(scope["method"], scope["raw_path"], scope["headers"], caller)
            exchange.principal, exchange.segment = admitted.principal, admitted.match.segment
            await admitted.match.route.endpoint(exchange)
        except ClientGone:
            await exchange.abort()
        except ClientRejected as rejected:
            await self._refuse(exchange, BadRequest("refused", str(rejected)))
        except Unauthenticated as fault:
            self._rejections.note(exchange, self._gate.name_of(scope["method"], scope["raw_path"]), fault)
            await self._refuse(exchange, fault)
        except GatewayFault as fault:
            await self._refuse(exchange, fault)
        except SecurityFault as fault:
            log.error("administration_unavailable", reason=str(fault))
            await self._refuse(exchange, PeerUnavailable("definitions_unavailable", "the definitions cannot be used"))
        except Exception:  # the supervision point of one request
            log.exception("administration_failed", request_id=exchange.request_id)
            message = f"an internal error, recorded with request id {exchange.request_id}"
            await self._refuse(exchange, InternalFault("internal_error", message))
        finally:
            exchange.release()

    async def _refuse(self, exchange: Exchange, fault: GatewayFault) -> None:
        if exchange.finished or exchange.started:
            return
        try:
            await exchange.respond(http_of(fault).status, error_body(fault), fault.headers)
        except ClientGone:
            await exchange.abort()


class AdminListener:
    """The server for the socket that the supervisor bound, and what it rejects on its way to the log."""

    def __init__(
        self,
        configuration: Configuration,
        application: AdminApplication,
        tls: ssl.SSLContext,
        rejections: Rejections,
        is_heard: Callable[[], bool],
    ) -> None:
        """
        Args:
            is_heard: there is an auditor to tell rejections to.
        """
        settings = configuration.administration
        bounds = GatewaySettings(
            host=settings.host,
            port=settings.port,
            max_body_bytes=MAX_BODY_BYTES,
            max_header_bytes=16 << 10,
            header_timeout_s=10.0,
            keep_alive_timeout_s=15,
            max_connections=MAX_CONNECTIONS,
            max_connections_per_source=MAX_CONNECTIONS_PER_SOURCE,
        )
        self._server = HttpServer(application, bounds, tls)  # type: ignore[arg-type]
        self._rejections = rejections
        self._is_heard = is_heard

    async def serve(self, listeners: Sequence[socket], stop: asyncio.Event) -> None:
        """Answer until `stop` is set."""
        reporting = asyncio.create_task(self._rejections.run(self._is_heard))
        try:
            await self._server.serve(listeners, stop)
        finally:
            reporting.cancel()
            self._rejections.flush()
