"""What was kept of `/v1/responses`, for its tenant: shown, listed, forgotten. Another tenant's does not exist."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from appliance.gateway.api.paging import page_after
from appliance.gateway.api.query import parse_query
from appliance.gateway.api.response_conversation import kept_items
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.responses_request import Include
from appliance.gateway.errors import BadRequest, NotFound
from appliance.gateway.exchange import Exchange


class RetrieveQuery(Struct, kw_only=True):
    """Of `GET /v1/responses/{id}`."""

    stream: bool = False
    include: list[Include] = field(default_factory=list)


class InputItemsQuery(Struct, kw_only=True):
    """Of `GET /v1/responses/{id}/input_items`."""

    after: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    include: list[Include] = field(default_factory=list)


class StoredResponses:
    """Answers for what was kept."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def retrieve(self, exchange: Exchange) -> None:
        """One of them."""
        if parse_query(exchange.query, RetrieveQuery).stream:
            message = "stream: only what was made in the background can be streamed again, and nothing is here"
            raise BadRequest("unsupported_parameter", message, parameter="stream")
        await exchange.respond(200, (await self._load(exchange))["response"])

    async def list_inputs(self, exchange: Exchange) -> None:
        """The items that one was made of, those of the responses before it included; newest first, unless asked otherwise."""
        query = parse_query(exchange.query, InputItemsQuery)
        kept = await self._load(exchange)
        items = kept_items(kept)
        inputs = items[: len(items) - len(kept["response"]["output"])]
        ordered = inputs if query.order == "asc" else inputs[::-1]
        after = None if query.after is UNSET else query.after
        await exchange.respond(200, page_after(ordered, after, query.limit, parameter="after"))

    async def cancel(self, exchange: Exchange) -> None:
        """Refuse to: what is kept is over, as none is made in the background. In OpenAI's words, by which people find why."""
        await self._load(exchange)
        raise BadRequest("response_is_over", "Cannot cancel a synchronous response.")

    async def delete(self, exchange: Exchange) -> None:
        """Forget one."""
        if not await self._store.delete(exchange.identified.tenant, exchange.segment):
            raise _missing(exchange.segment)
        await exchange.respond(200, {"id": exchange.segment, "object": "response", "deleted": True})

    async def _load(self, exchange: Exchange) -> dict[str, Any]:
        kept = await self._store.get(exchange.identified.tenant, exchange.segment)
        if kept is None:
            raise _missing(exchange.segment)
        record: dict[str, Any] = msgspec.json.decode(kept)
        return record


def _missing(response_id: str) -> NotFound:
    return NotFound("response_not_found", f"no response {response_id[:64]!r} is kept here")
