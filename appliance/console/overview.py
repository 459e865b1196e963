"""The first page: whether the appliance answers, and for operators its processes, engines, log and load."""

from typing import Any

from starlette.responses import Response

from appliance.console.appliance_api import ApplianceApi
from appliance.console.capacity import Capacity
from appliance.console.pages import Pages
from appliance.console.routes import SIGNED_IN, ConsoleRoutes, Visit
from security.scopes import Scope


class OverviewRoutes:
    """One route."""

    def __init__(self, api: ApplianceApi, pages: Pages, capacity: Capacity) -> None:
        self._api = api
        self._pages = pages
        self._capacity = capacity

    def register(self, routes: ConsoleRoutes) -> None:
        """Add it."""
        routes.add("GET", "/", SIGNED_IN, self.show)

    async def show(self, visit: Visit) -> Response:
        """What the person's scopes let be seen."""
        session, models, loads = visit.session, None, None
        ready: Any = await self._api.get_readiness(session)
        if Scope.MODELS_READ in session.scopes:
            models = (await self._api.get(session, "gateway", "/v1/models"))["data"]
        if Scope.METRICS_READ in session.scopes:
            scraped = await self._api.ask(session, "gateway", "GET", "/metrics")
            loads = self._capacity.read(scraped.body.decode("utf-8", "replace"))
        return self._pages.render("overview", session, ready=ready, models=models, loads=loads)
