"""`GET /v1/models` and `GET /v1/models/{id}`, for OpenAI's SDK and Anthropic's alike: the models that who asks may use."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from appliance.gateway.api.paging import page_after
from appliance.gateway.api.query import parse_query
from appliance.gateway.api.shapes import Model
from appliance.gateway.errors import NotAllowed
from appliance.gateway.exchange import Exchange
from appliance.gateway.flow.desk import Desk
from appliance.gateway.models import Models, ServedModel


class ModelsQuery(Struct, kw_only=True):
    """Of `GET /v1/models`, as Anthropic's SDK asks."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after_id: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    beta: Literal["true"] | UnsetType = UNSET
    """Of its beta members, as at the other places where they say so (`routes.HARMLESS_QUERIES`)."""


class ModelEndpoints:
    """The models that are served; their context length as long as an engine is there to say it."""

    def __init__(self, desk: Desk, models: Models) -> None:
        self._models = models
        self._policy = desk.policy
        self._engines = desk.engines

    async def list_all(self, exchange: Exchange) -> None:
        """All that who asks may use."""
        query = parse_query(exchange.query, ModelsQuery)
        after = None if query.after_id is UNSET else query.after_id
        names = await self._policy.filter_models(exchange.identified, [model.name for model in self._models])
        entries = [msgspec.to_builtins(self._shape(self._models.find(name))) for name in names]
        await exchange.respond(200, page_after(entries, after, query.limit, parameter="after_id"))

    async def retrieve(self, exchange: Exchange) -> None:
        """One of them. Another one that is served is refused in the words of a request to it."""
        model = self._models.find(exchange.segment, parameter=None)
        if not await self._policy.filter_models(exchange.identified, [model.name]):
            raise NotAllowed("model_not_allowed", f"the client may not use model {model.name!r}", 0)
        await exchange.respond(200, self._shape(model))

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
