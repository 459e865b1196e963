"""uvicorn as a plain HTTP/1.1 server on sockets that the supervisor bound: no signals, no access log, no proxy headers.

Proxy headers stay off because they are identities from headers: whoever connects could set them. uvicorn adds no `server`
header, knows no WebSockets and runs no lifespan; TLS is a context that the caller built.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import uvicorn

from appliance.gateway.application import Application
from appliance.gateway.protocol import bound_protocol
from appliance.gateway.settings import GatewaySettings


class _SignalFreeServer(uvicorn.Server):
    """Signals belong to the process, not to its HTTP server."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


class HttpServer:
    """One worker's server."""

    def __init__(self, application: Application, settings: GatewaySettings, tls: ssl.SSLContext | None) -> None:
        self._settings = settings
        # Warnings there are about what strangers send: one line each would let them fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = _SignalFreeServer(
            uvicorn.Config(
                application,
                http=bound_protocol(settings),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                forwarded_allow_ips=[],
                server_header=False,
                workers=1,
                backlog=2048,
                timeout_keep_alive=settings.keep_alive_timeout_s,
                # Whoever drains decides when: open answers have been finished or cut before the server stops.
                timeout_graceful_shutdown=1,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            )
        )

    async def serve(self, listeners: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Answer on listening sockets until `stop` is set and the open answers have ended."""
        for listener in listeners:
            # Inherited by accepted connections: it bounds what the kernel takes for a client that does not read.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer_bytes)
            listener.setblocking(False)
        serving = asyncio.get_running_loop().create_task(self._server.serve(list(listeners)))
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._server.should_exit = True
        await serving

    @property
    def started(self) -> bool:
        """The listening sockets are served."""
        return self._server.started
