"""`GET /v1/models` and `GET /v1/models/{id}`."""

from appliance.gateway.api.shapes import Model, ModelList
from appliance.gateway.exchange import Exchange
from appliance.gateway.models import Models, ServedModel
from appliance.gateway.peers.engines import Engines


class ModelEndpoints:
    """The models that are served; their context length as long as an engine is there to say it."""

    def __init__(self, models: Models, engines: Engines) -> None:
        self._models = models
        self._engines = engines

    async def list_all(self, exchange: Exchange) -> None:
        """All of them."""
        await exchange.respond(200, ModelList([self._shape(model) for model in self._models]))

    async def retrieve(self, exchange: Exchange) -> None:
        """One of them."""
        await exchange.respond(200, self._shape(self._models.find(exchange.segment, parameter=None)))

    def _shape(self, model: ServedModel) -> Model:
        lengths = [peer.facts.context_length for peer in self._engines if peer.facts.name == model.name]
        return Model(model.name, model.created, min(lengths, default=None), root=model.name)
