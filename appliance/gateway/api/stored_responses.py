"""What is kept of `/v1/responses`, for its tenant: shown, streamed, listed, cancelled, forgotten. Another's does not exist."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from appliance.gateway.api.background import Background
from appliance.gateway.api.background_store import Key
from appliance.gateway.api.following import follow
from appliance.gateway.api.paging import page_after
from appliance.gateway.api.query import parse_query
from appliance.gateway.api.recording import record_request
from appliance.gateway.api.response_conversation import kept_items
from appliance.gateway.api.response_reasoning import ReasoningSeal
from appliance.gateway.api.response_store import Kept, ResponseStore
from appliance.gateway.api.response_turns import Item
from appliance.gateway.api.responses_request import ENCRYPTED, Include
from appliance.gateway.errors import BadRequest, NotFound
from appliance.gateway.exchange import Exchange
from appliance.gateway.peers.auditor import AuditorPeer

KEPT_ROUTE = "/v1/responses/{id}"


class RetrieveQuery(Struct, kw_only=True):
    """Of `GET /v1/responses/{id}`."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=0, le=1 << 53)] | UnsetType = UNSET
    include_obfuscation: bool = False
    """As in chat: no padding is added."""
    include: list[Include] = field(default_factory=list)
    """Of logprobs those come that were asked for when the response was."""


class InputItemsQuery(Struct, kw_only=True):
    """Of `GET /v1/responses/{id}/input_items`."""

    after: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    include: list[Literal["reasoning.encrypted_content"]] = field(default_factory=list)
    """Logprobs stay with the response: items are what a prompt is made of."""


class StoredResponses:
    """Answers for what was kept."""

    def __init__(self, store: ResponseStore, background: Background, auditor: AuditorPeer) -> None:
        self._store = store
        self._background = background
        self._auditor = auditor

    async def retrieve(self, exchange: Exchange) -> None:
        """One of them as it stands, or its events."""
        query = parse_query(exchange.query, RetrieveQuery)
        if query.include_obfuscation:
            name = "include_obfuscation"
            raise BadRequest("unsupported_parameter", f"{name}: no padding is added to events here", parameter=name)
        if query.stream:
            await self._replay(exchange, query)
        elif query.starting_after is not UNSET:
            message = "starting_after needs stream=true"
            raise BadRequest("invalid_parameter", message, parameter="starting_after")
        else:
            response = _shown(await self._load(exchange))
            output = self._with(query.include, exchange, response["output"])
            await exchange.respond(200, response | {"output": output})

    async def _replay(self, exchange: Exchange, query: RetrieveQuery) -> None:
        if not (await self._load(exchange)).is_streamed:
            message = "stream: only what was made with background and stream can be streamed again"
            raise BadRequest("unsupported_parameter", message, parameter="stream")
        if query.include:
            message = "include: events have what was asked for when the response was"
            raise BadRequest("unsupported_parameter", message, parameter="include")
        number = 0 if query.starting_after is UNSET else query.starting_after + 1
        await follow(exchange, self._background, _key(exchange), number, [])

    async def list_inputs(self, exchange: Exchange) -> None:
        """The items that one was made of, those of the responses before it included; newest first, unless asked otherwise."""
        query = parse_query(exchange.query, InputItemsQuery)
        kept = msgspec.json.decode((await self._load(exchange)).body)
        items = kept_items(kept)
        inputs = items[: len(items) - len(kept["response"]["output"])]
        ordered = inputs if query.order == "asc" else inputs[::-1]
        after = None if query.after is UNSET else query.after
        page = page_after(ordered, after, query.limit, parameter="after")
        await exchange.respond(200, page | {"data": self._with(query.include, exchange, page["data"])})

    async def cancel(self, exchange: Exchange) -> None:
        """End one that is made in the background; one that is over stays as it is. Others are refused in OpenAI's words."""
        if (await self._load(exchange)).state == "foreground":
            raise BadRequest("response_is_over", "Cannot cancel a synchronous response.")
        await self._background.cancel(_key(exchange))
        await exchange.respond(200, _shown(await self._load(exchange)))

    async def delete(self, exchange: Exchange) -> None:
        """Forget one, once it is recorded who asks; what is under way is ended."""
        tenant, response_id = exchange.identified.tenant, exchange.segment
        if await self._store.get(tenant, response_id) is None:
            raise _missing(response_id)
        facts = {"response_id": response_id}
        await record_request(self._auditor, exchange, "response_deleted", ("DELETE", KEPT_ROUTE), facts)
        if not await self._store.delete(tenant, response_id):
            raise _missing(response_id)
        await exchange.respond(200, {"id": exchange.segment, "object": "response", "deleted": True})

    def _with(self, include: Sequence[str], exchange: Exchange, items: list[Item]) -> list[Item]:
        """Items with what was asked for beside."""
        seal = ReasoningSeal(self._store.file, exchange.identified.tenant)
        return [seal.sealed(item) for item in items] if ENCRYPTED in include else items

    async def _load(self, exchange: Exchange) -> Kept:
        kept = await self._background.load(_key(exchange))
        if kept is None:
            raise _missing(exchange.segment)
        return kept


def _key(exchange: Exchange) -> Key:
    return Key(exchange.identified.tenant, exchange.segment)


def _shown(kept: Kept) -> dict[str, Any]:
    """The response: one that is being cancelled is so already, though its end is not written."""
    response: dict[str, Any] = msgspec.json.decode(kept.body)["response"]
    return response | {"status": "cancelled"} if kept.state == "cancelling" else response


def _missing(response_id: str) -> NotFound:
    return NotFound("response_not_found", f"no response {response_id[:64]!r} is kept here")
