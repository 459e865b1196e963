"""The whole route table, in one place: what a gateway answers, and which scope each route needs."""

from collections.abc import Callable, Sequence

from appliance.gateway.api import chat, completions, embeddings, generate, openapi, responses
from appliance.gateway.api.background import Background
from appliance.gateway.api.chat import ChatApi
from appliance.gateway.api.completions import CompletionApi
from appliance.gateway.api.custody import CustodyEndpoints
from appliance.gateway.api.dialects import COUNT_ROUTE, MESSAGES_ROUTE
from appliance.gateway.api.embeddings import EmbeddingsApi
from appliance.gateway.api.endpoint import Api, InferenceEndpoint
from appliance.gateway.api.generate import GenerateApi
from appliance.gateway.api.health import HealthEndpoints, Installation
from appliance.gateway.api.input_tokens import INPUT_TOKENS_ROUTE, InputTokensEndpoint
from appliance.gateway.api.intake import Intake
from appliance.gateway.api.listing import ModelEndpoints, ModelsQuery
from appliance.gateway.api.log_reading import CHECKPOINT, COSIGNED, TILES, LogReading
from appliance.gateway.api.messages import CountTokensEndpoint, MessagesApi
from appliance.gateway.api.native import (
    FLUSH_ROUTE,
    HEALTH_ROUTE,
    FlushQuery,
    HealthGenerate,
    HealthQuery,
    NativeEndpoints,
)
from appliance.gateway.api.openapi import OpenApiEndpoint
from appliance.gateway.api.protected_resource import PATH, UNNAMED, ProtectedResource, ProtectedResourceEndpoint
from appliance.gateway.api.receipts import ProofEndpoint, ReceiptEndpoint
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.responses import ResponsesApi
from appliance.gateway.api.scrape import ScrapeEndpoint
from appliance.gateway.api.stored_responses import KEPT_ROUTE, InputItemsQuery, RetrieveQuery, StoredResponses
from appliance.gateway.api.tokenization import TokenizerThreads
from appliance.gateway.api.tokens import TokenEndpoints
from appliance.gateway.flow.desk import Desk
from appliance.gateway.models import Models
from appliance.gateway.observing import Observer
from appliance.gateway.routes import RouteTable
from appliance.messages.control import ProcessState
from security.scopes import Scope


def register_routes(
    desk: Desk,
    models: Models,
    states: Callable[[], Sequence[ProcessState]],
    installation: Installation,
    store: ResponseStore,
    background: Background,
    resource: ProtectedResource = UNNAMED,
    observer: Observer | None = None,
) -> RouteTable:
    """Build the table over one worker's objects."""
    routes = RouteTable()
    intake = Intake(desk, models, TokenizerThreads())
    health = HealthEndpoints(desk, models, states, installation)
    listing = ModelEndpoints(desk, models)
    routes.register("GET", "/health", Scope.PUBLIC, health.health)
    routes.register("GET", "/ready", Scope.PUBLIC, health.ready)
    routes.register("GET", PATH, Scope.PUBLIC, ProtectedResourceEndpoint(resource))
    routes.register("GET", openapi.ROUTE, Scope.MODELS_READ, OpenApiEndpoint(routes))
    routes.register("GET", "/metrics", Scope.METRICS_READ, ScrapeEndpoint(desk, states))
    routes.register("GET", "/v1/models", Scope.MODELS_READ, listing.list_all, ModelsQuery)
    routes.register("GET", "/v1/models/{id}", Scope.MODELS_READ, listing.retrieve)
    apis: tuple[tuple[str, Api], ...] = (
        (chat.ROUTE, ChatApi(intake)),
        (completions.ROUTE, CompletionApi(intake)),
        (generate.ROUTE, GenerateApi(intake)),
        (embeddings.ROUTE, EmbeddingsApi(intake)),
        (responses.ROUTE, ResponsesApi(intake, store, background, observer)),
        (MESSAGES_ROUTE, MessagesApi(intake)),
    )
    for path, api in apis:
        routes.register("POST", path, Scope.INFERENCE, InferenceEndpoint(desk, api))
    stored = StoredResponses(store, background, desk.auditor)
    tokens, native = TokenEndpoints(intake), NativeEndpoints(desk, models)
    routes.register("POST", INPUT_TOKENS_ROUTE, Scope.INFERENCE, InputTokensEndpoint(intake, store))
    routes.register("GET", KEPT_ROUTE, Scope.INFERENCE, stored.retrieve, RetrieveQuery)
    routes.register("DELETE", KEPT_ROUTE, Scope.INFERENCE, stored.delete)
    routes.register("GET", f"{KEPT_ROUTE}/input_items", Scope.INFERENCE, stored.list_inputs, InputItemsQuery)
    routes.register("POST", f"{KEPT_ROUTE}/cancel", Scope.INFERENCE, stored.cancel)
    routes.register("POST", COUNT_ROUTE, Scope.INFERENCE, CountTokensEndpoint(intake))
    # vLLM and SGLang have these without /v1 too, and SGLang's tools of today ask for the info without its verb.
    for place in ("/v1", ""):
        routes.register("POST", f"{place}/tokenize", Scope.INFERENCE, tokens.tokenize)
        routes.register("POST", f"{place}/detokenize", Scope.INFERENCE, tokens.detokenize)
    for verb in ("get_", ""):
        routes.register("GET", f"/{verb}model_info", Scope.MODELS_READ, native.model_info)
        routes.register("GET", f"/{verb}server_info", Scope.METRICS_READ, native.server_info)
    routes.register("POST", FLUSH_ROUTE, Scope.ENGINE_CONTROL, native.flush_cache, FlushQuery)
    routes.register("POST", "/abort_request", Scope.INFERENCE, native.abort)
    routes.register("GET", HEALTH_ROUTE, Scope.INFERENCE, HealthGenerate(desk, models, intake), HealthQuery)
    routes.register("GET", "/audit/request/{id}", Scope.AUDIT_READ, ReceiptEndpoint(desk.auditor))
    routes.register("GET", "/audit/proof/{id}", Scope.AUDIT_READ, ProofEndpoint(desk.auditor))
    custody = CustodyEndpoints(desk.auditor, desk.bodies)
    routes.register("POST", "/audit/open/{id}", Scope.AUDIT_OPEN, custody.open)
    routes.register("GET", "/audit/rules", Scope.AUDIT_GOVERN, custody.show)
    routes.register("POST", "/audit/rules/propose", Scope.AUDIT_GOVERN, custody.propose)
    routes.register("POST", "/audit/rules/confirm/{id}", Scope.AUDIT_GOVERN, custody.confirm)
    routes.register("POST", "/audit/rules/refuse/{id}", Scope.AUDIT_GOVERN, custody.refuse)
    reading = LogReading(desk.reader)
    routes.register("POST", "/audit/search", Scope.AUDIT_LOG, reading.search)
    routes.register("POST", "/audit/tail", Scope.AUDIT_LOG, reading.tail)
    routes.register("GET", "/audit/record/{id}", Scope.AUDIT_LOG, reading.show)
    routes.register("GET", CHECKPOINT, Scope.AUDIT_LOG, reading.checkpoint)
    routes.register("GET", COSIGNED, Scope.AUDIT_LOG, reading.cosigned)
    routes.register("GET", TILES, Scope.AUDIT_LOG, reading.tile)
    return routes
