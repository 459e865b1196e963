"""uvicorn as a plain HTTP/1.1 server on sockets that the supervisor bound: no signals, no access log, no proxy headers.

Proxy headers stay off because they are identities from headers: whoever connects could set them. uvicorn adds no `server`
header, knows no WebSockets and runs no lifespan; TLS is a context that the caller built.
"""

import asyncio
import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import cast

import uvicorn

from appliance.gateway.application import Application
from appliance.gateway.listening import PATIENCE_S, Acceptor, OpenConnections, Place
from appliance.gateway.protocol import BufferedConnection, bound_protocol
from appliance.gateway.settings import GatewaySettings

_TLS_BUFFER_BYTES = 16_384
"""One TLS record. asyncio takes 256 KiB for each connection from its first byte on, which anybody can make it do: a thousand
connections took 302 MiB, and take 63."""


class _Server(uvicorn.Server):
    """Signals belong to the process, not to its HTTP server; and connections are accepted and counted by `listening`."""

    def __init__(self, config: uvicorn.Config, settings: GatewaySettings) -> None:
        super().__init__(config)
        self._handshake_timeout_s = settings.header_timeout_s
        self._connections = OpenConnections(settings.max_connections, settings.max_connections_per_source)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the sockets. uvicorn's own bounds neither connections before TLS nor the time of a handshake."""
        await self.lifespan.startup()
        config, state = self.config, self.server_state
        make: Callable[..., asyncio.Protocol] = config.http_protocol_class

        def make_protocol(place: Place) -> asyncio.BaseProtocol:
            return BufferedConnection(
                make(config=config, server_state=state, app_state=self.lifespan.state, place=place)
            )

        acceptors = [
            Acceptor(listener, self._connections, make_protocol, config.ssl, self._handshake_timeout_s, patience_s)
            for listener, patience_s in zip(sockets or (), chain([0.0], repeat(PATIENCE_S)), strict=False)
        ]
        self.servers = cast("list[asyncio.base_events.Server]", acceptors)
        self.started = True

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
        if tls is not None:
            SSLProtocol.max_size = _TLS_BUFFER_BYTES
        self._server = _Server(
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
            ),
            settings,
        )

    async def serve(self, listeners: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Answer on listening sockets until `stop` is set and the open answers have ended; the sockets are closed in the end.

        Our own comes first, the others are our siblings'.
        """
        for listener in listeners:
            # Inherited by accepted connections: it bounds what the kernel takes for a client that does not read.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer_bytes)
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
