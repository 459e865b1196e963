"""The items that a response was made of, in full: each with an id and its status, its content as parts, as OpenAI lists them.

A client may leave most of that out when it sends them. What is made here means the same when it is sent back.
"""

from collections.abc import Sequence
from typing import Any

from appliance.gateway.api.response_turns import Item

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def full_items(items: Sequence[Item], response_id: str) -> list[Item]:
    """The items of a conversation that was accepted, up to and with the response of this id.

    Ids that came with them stay, but for one that an earlier item has: a page goes on after an id, so they must differ. The
    others are told by the response and the place, and are no item's of its output.
    """
    seen: set[str] = set()
    full: list[Item] = []
    for place, given in enumerate(items):
        item = {name: value for name, value in given.items() if value is not None}
        kind = item.setdefault("type", "message")
        if item.get("id", "") in ("", *seen):
            item["id"] = f"{_PREFIXES[kind]}_{response_id.removeprefix('resp_')}i{place:04}"
        seen.add(item["id"])
        item.setdefault("status", "completed")
        full.append(_FILL[kind](item))
    return full


def _fill_message(item: Item) -> Item:
    answered = item["role"] == "assistant"
    content = item["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return item | {"content": [_output_part(part) if answered else _input_part(part) for part in parts]}


def _fill_output(item: Item) -> Item:
    output = item["output"]
    return item if isinstance(output, str) else item | {"output": [_input_part(part) for part in output]}


def _fill_reasoning(item: Item) -> Item:
    """In the open: who wants it encrypted says so when it is asked for."""
    return {"summary": [], "content": []} | {name: value for name, value in item.items() if name != "encrypted_content"}


def _input_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "input_text", "text": part["text"]}


def _output_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "refusal":
        return part
    return {"type": "output_text", "text": part["text"], "annotations": [], "logprobs": []}


_FILL = {
    "message": _fill_message,
    "function_call": lambda item: item,
    "function_call_output": _fill_output,
    "reasoning": _fill_reasoning,
}
