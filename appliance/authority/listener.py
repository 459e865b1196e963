"""The authority's TLS listener: the gateway's bounded HTTP/1.1 server with smaller bounds of its own.

One way to serve HTTP in this product: timeouts for headers, a bound on connections, no access log, no proxy headers.
"""

import ssl
from typing import Any, cast

from starlette.types import ASGIApp

from appliance.authority.http import close_unread
from appliance.gateway.server import HttpServer
from appliance.gateway.settings import GatewaySettings
from security.oauth.token_request import MAX_BODY_BYTES
from security.settings import AuthoritySettings

MAX_HEADER_BYTES = 16 << 10
HEADER_TIMEOUT_S = 10.0
KEEP_ALIVE_TIMEOUT_S = 15


def build_listener(app: ASGIApp, settings: AuthoritySettings, tls: ssl.SSLContext) -> HttpServer:
    """A server for the sockets that the supervisor bound."""
    bounds = GatewaySettings(
        host=settings.host,
        port=settings.port,
        max_body_bytes=MAX_BODY_BYTES,
        max_header_bytes=MAX_HEADER_BYTES,
        header_timeout_s=HEADER_TIMEOUT_S,
        keep_alive_timeout_s=KEEP_ALIVE_TIMEOUT_S,
        max_connections=settings.max_connections,
        max_connections_per_source=settings.max_connections_per_source,
    )
    return HttpServer(cast(Any, close_unread(app)), bounds, tls)
