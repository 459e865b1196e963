"""One gateway worker, wired: peers, routes, server. It knows neither how links are made nor where tokens are checked."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.gateway.api.background import Background
from appliance.gateway.api.health import Installation
from appliance.gateway.api.protected_resource import UNNAMED, ProtectedResource
from appliance.gateway.api.registration import register_routes
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.application import Application
from appliance.gateway.flow.bodies import BodyPolicy
from appliance.gateway.flow.desk import Desk
from appliance.gateway.gate import Challenges, Gate
from appliance.gateway.identity import TokenCheck
from appliance.gateway.metrics import Metrics
from appliance.gateway.models import Models
from appliance.gateway.observing import Observer
from appliance.gateway.rejections import Rejections
from appliance.gateway.server import HttpServer
from appliance.gateway.settings import GatewaySettings
from appliance.messages.control import ProcessState

METRICS_INTERVAL_S = 1.0
CLOSING_S = 2.0
"""How long the ends of responses made in the background may take to be written, when the worker stops."""


class Worker:
    """What one process runs. Its links are served by the `run` of each peer of `desk`.

    Args:
        served: the model of each engine, by its instance.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        models: Models,
        check_token: TokenCheck,
        *,
        served: Sequence[str],
        states: Callable[[], Sequence[ProcessState]],
        installation: Installation,
        tls: ssl.SSLContext | None,
        store: ResponseStore,
        metrics_dir: Path | None = None,
        instance: int = 0,
        resource: ProtectedResource = UNNAMED,
        bodies: BodyPolicy = BodyPolicy(),
        observer: Observer | None = None,
    ) -> None:
        self.metrics = Metrics(metrics_dir, instance)
        self.desk = Desk(settings, self.metrics, served, bodies)
        self.background = Background(store, settings.request_timeout_s)
        self.routes = register_routes(
            self.desk, models, states, installation, store, self.background, resource, observer
        )
        challenges = Challenges(
            "" if resource is UNNAMED else resource.metadata_url, resource.dpop_signing_alg_values_supported
        )
        self.rejections = Rejections(self.desk.auditor.report)
        self.application = Application(
            Gate(self.routes, check_token, challenges),
            settings,
            self.metrics,
            self.rejections,
            installation.statement,
            observer,
        )
        self.server = HttpServer(self.application, settings, tls)

    async def serve(
        self, listeners: Sequence[socket.socket], draining: asyncio.Event, drain_timeout_s: Callable[[], float]
    ) -> None:
        """Serve until `draining` is set and the open answers have ended, or the drain's time is over."""
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(self._save_metrics()),
            asyncio.create_task(self.rejections.run()),
            asyncio.create_task(self._drain(draining, drain_timeout_s, stop)),
        ]
        try:
            await self.server.serve(listeners, stop)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self.rejections.flush()
            self.metrics.save()

    async def _drain(self, draining: asyncio.Event, timeout_s: Callable[[], float], stop: asyncio.Event) -> None:
        await draining.wait()
        await self.desk.drain(timeout_s())
        await self.background.close(CLOSING_S)
        stop.set()

    async def _save_metrics(self) -> None:
        while True:
            await asyncio.sleep(METRICS_INTERVAL_S)
            await self.metrics.save_beside()
