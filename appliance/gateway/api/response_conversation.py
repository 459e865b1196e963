"""What a response is made of: the items of the one that it goes on from, then its own, those included that are only named.

An item's id tells with which response it became known (`response_items`, `response_inputs`), so that a reference needs no index:
it holds as long as that response is kept, for its tenant only. Ids that a client made up itself tell nothing, and are not found.

Clients that know reasoning from an API that shows none of it send such an item back with its id and nothing in it. It is looked
for as well, and stays empty if it is not found.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from appliance.gateway.api.parameters import parse_members
from appliance.gateway.api.response_inputs import full_items
from appliance.gateway.api.response_reasoning import ReasoningSeal
from appliance.gateway.api.response_store import ResponseStore
from appliance.gateway.api.response_turns import Item
from appliance.gateway.api.responses_request import ConversationFields, input_items
from appliance.gateway.errors import BadRequest, NotFound

MAX_REFERENCED_BYTES = 64 << 20
"""Of all responses that one request's references lead to, as each is read as a whole; and of all items that it names, as it may
name a large one often. The request itself is small."""
MAX_MISSING = 16
"""Thoughts that are looked for in vain: those before them are gone as well."""
_ITEM_ID = re.compile(r"(?:msg|rs|fc|fco)_([0-9a-f]{32})i?[0-9]{4,8}")


class ReferenceItem(Struct):
    """An item that is named by its id instead of being said again. Its type may be left out."""

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    type: Literal["item_reference"] = "item_reference"


async def load_conversation(store: ResponseStore, tenant: str, fields: ConversationFields) -> list[Item]:
    """All items, in full where they are kept, in the open where they came encrypted.

    Raises: BadRequest, NotFound, PeerUnavailable.
    """
    seal = ReasoningSeal(store.file, tenant)
    given = [seal.opened(item, f"input[{index}]") for index, item in enumerate(input_items(fields))]
    own = await _resolve(store, tenant, given)
    if fields.previous_response_id is None:
        return own
    kept = await store.get(tenant, fields.previous_response_id)
    if kept is None:
        # OpenAI's API answers 400 here, as the address itself exists.
        message = f"previous_response_id: no response {fields.previous_response_id[:64]!r} is kept here"
        raise BadRequest("previous_response_not_found", message, parameter="previous_response_id")
    if kept.is_running:
        message = f"previous_response_id: the response {fields.previous_response_id!r} is not over yet"
        raise BadRequest("response_in_progress", message, parameter="previous_response_id")
    return [*kept_items(msgspec.json.decode(kept.body)), *own]


def kept_items(record: dict[str, Any]) -> list[Item]:
    """The conversation of a record, up to its end, in full."""
    return full_items(record["items"], record["response"]["id"])


async def _resolve(store: ResponseStore, tenant: str, items: list[Item]) -> list[Item]:
    """The items that are meant. Raises: BadRequest, NotFound, PeerUnavailable."""
    references = {
        index: parse_members(item, ReferenceItem, f"input[{index}]").id
        for index, item in enumerate(items)
        if _is_reference(item)
    }
    thoughts = {index: item["id"] for index, item in enumerate(items) if _is_empty_thought(item)}
    if not references and not thoughts:
        return items
    found = await _find(store, tenant, dict(sorted((references | thoughts).items())), optional=set(thoughts.values()))
    named = {index: found[item_id] for index, item_id in references.items()}
    filled = {index: found.get(item_id, {}) for index, item_id in thoughts.items()}
    named |= {index: item for index, item in filled.items() if item.get("type") == "reasoning"}
    return [named.get(index, item) for index, item in enumerate(items)]


def _is_reference(item: Item) -> bool:
    """By its type; or by its id, if that is all there is."""
    given = {name for name, value in item.items() if value is not None}
    return item.get("type") == "item_reference" or given == {"id"}


def _is_empty_thought(item: Item) -> bool:
    """Reasoning of ours, of which only the id came back."""
    is_empty = item.get("type") == "reasoning" and not item.get("content") and not item.get("summary")
    return is_empty and isinstance(item.get("id"), str) and _ITEM_ID.fullmatch(item["id"]) is not None


async def _find(store: ResponseStore, tenant: str, references: dict[int, str], optional: set[str]) -> dict[str, Item]:
    """All of them, but for the optional ones that are not kept. Raises: BadRequest, NotFound, PeerUnavailable."""
    wanted = set(references.values())
    found: dict[str, Item] = {}
    num_bytes = num_missing = 0
    # The last first, as a response has the items before it, too.
    for index, item_id in reversed(references.items()):
        if item_id in found or (item_id in optional and num_missing == MAX_MISSING):
            continue
        kept = await _read(store, tenant, item_id)
        num_bytes += len(kept)
        _verify_size(num_bytes, index)
        items = kept_items(msgspec.json.decode(kept)) if kept else []
        found |= {item["id"]: item for item in items if item["id"] in wanted}
        if item_id not in found and item_id not in optional:
            # As OpenAI's API answers: 404, though the address exists.
            message = f"Item with id {item_id[:64]!r} not found. An item is kept as long as the response it came with."
            raise NotFound("item_not_found", message, parameter=f"input[{index}]")
        num_missing += item_id not in found
    sizes = {item_id: len(msgspec.json.encode(item)) for item_id, item in found.items()}
    num_bytes = 0
    for index, item_id in references.items():
        num_bytes += sizes.get(item_id, 0)
        _verify_size(num_bytes, index)
    return found


async def _read(store: ResponseStore, tenant: str, item_id: str) -> bytes:
    """The record of the response that an item's id tells of; empty if there is none."""
    match = _ITEM_ID.fullmatch(item_id)
    kept = None if match is None else await store.get(tenant, f"resp_{match.group(1)}")
    return b"" if kept is None else kept.body


def _verify_size(num_bytes: int, index: int) -> None:
    if num_bytes > MAX_REFERENCED_BYTES:
        message = f"input[{index}]: the references lead to more than {MAX_REFERENCED_BYTES >> 20} MiB"
        raise BadRequest("unsupported_content", message, parameter=f"input[{index}]")
