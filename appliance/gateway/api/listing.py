"""`GET /v1/models` and `GET /v1/models/{id}`, for OpenAI's SDK and Anthropic's alike."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from appliance.gateway.api.paging import page_after
from appliance.gateway.api.query import parse_query
from appliance.gateway.api.shapes import Model
from appliance.gateway.exchange import Exchange
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.peers.engines import Engines


class ModelsQuery(Struct, kw_only=True):
    """Of `GET /v1/models`, as Anthropic's SDK asks."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after_id: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    beta: Literal["true"] | UnsetType = UNSET
    """Of its beta members, as at the other places where they say so (`routes.HARMLESS_QUERIES`)."""


class ModelEndpoints:
    """The models that are served; their context length as long as an engine is there to say it."""

    def __init__(self, models: Models, engines: Engines) -> None:
        self._models = models
        self._engines = engines

    async def list_all(self, exchange: Exchange) -> None:
        """All of them."""
        query = parse_query(exchange.query, ModelsQuery)
        after = None if query.after_id is UNSET else query.after_id
        entries = [msgspec.to_builtins(self._shape(model)) for model in self._models]
        await exchange.respond(200, page_after(entries, after, query.limit, parameter="after_id"))

    async def retrieve(self, exchange: Exchange) -> None:
        """One of them."""
        await exchange.respond(200, self._shape(self._models.find(exchange.segment, parameter=None)))

    def _shape(self, model: ServedModel) -> Model:
        lengths = [peer.facts.context_length for peer in self._engines if peer.facts.name == model.name]
        created_at = datetime.fromtimestamp(model.created, UTC).isoformat()
        return Model(
            model.name,
            model.created,
            min(lengths, default=None),
            model.name,
            display_name=model.name,
            created_at=created_at,
        )
