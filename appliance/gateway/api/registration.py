"""The whole route table, in one place: what a gateway answers, and which scope each route needs."""

from collections.abc import Callable, Sequence

from appliance.gateway.api.chat import ChatEndpoint
from appliance.gateway.api.completions import CompletionEndpoint
from appliance.gateway.api.generate import GenerateEndpoint
from appliance.gateway.api.health import HealthEndpoints, Installation
from appliance.gateway.api.listing import ModelEndpoints
from appliance.gateway.api.receipts import ReceiptEndpoint
from appliance.gateway.api.scrape import ScrapeEndpoint
from appliance.gateway.api.tokenization import TokenizerThreads
from appliance.gateway.flow.desk import Desk
from appliance.gateway.models import Models
from appliance.gateway.routes import RouteTable
from appliance.messages.control import ProcessState
from security.scopes import Scope


def register_routes(
    desk: Desk, models: Models, states: Callable[[], Sequence[ProcessState]], installation: Installation
) -> RouteTable:
    """Build the table over one worker's objects."""
    routes = RouteTable()
    threads = TokenizerThreads()
    health = HealthEndpoints(desk, models, states, installation)
    listing = ModelEndpoints(models, desk.engines)
    routes.register("GET", "/health", Scope.PUBLIC, health.health)
    routes.register("GET", "/ready", Scope.PUBLIC, health.ready)
    routes.register("GET", "/metrics", Scope.METRICS_READ, ScrapeEndpoint(desk, states))
    routes.register("GET", "/v1/models", Scope.MODELS_READ, listing.list_all)
    routes.register("GET", "/v1/models/{id}", Scope.MODELS_READ, listing.retrieve)
    routes.register("POST", "/v1/chat/completions", Scope.INFERENCE, ChatEndpoint(desk, models, threads))
    routes.register("POST", "/v1/completions", Scope.INFERENCE, CompletionEndpoint(desk, models, threads))
    routes.register("POST", "/generate", Scope.INFERENCE, GenerateEndpoint(desk, models, threads))
    routes.register("GET", "/audit/request/{id}", Scope.AUDIT_READ, ReceiptEndpoint(desk.auditor))
    return routes
