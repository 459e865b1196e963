"""Items of a response and the events in which they come, member for member as OpenAI's SDK parses them."""

from typing import Any

from appliance.gateway.api.blocks import Block, BlockEvent

Members = dict[str, Any]


def item_id(uid: str, block: Block) -> str:
    """Id of an item: told apart by its kind's prefix and its place."""
    prefix = {"reasoning": "rs", "text": "msg", "call": "fc"}[block.kind]
    return f"{prefix}_{uid.removeprefix('resp_')}{block.index:04}"


def shown_item(uid: str, block: Block, *, in_progress: bool = False) -> Members:
    """An item as it stands."""
    status = "in_progress" if in_progress else "incomplete" if block.is_cut else "completed"
    base: Members = {"id": item_id(uid, block), "status": status}
    if block.kind == "reasoning":
        content = [] if in_progress else [_part(block)]
        encrypted = {"encrypted_content": block.encrypted} if block.encrypted else {}
        return base | {"type": "reasoning", "summary": [], "content": content} | encrypted
    if block.kind == "call":
        call = {
            "type": "function_call",
            "call_id": "call_" + item_id(uid, block).removeprefix("fc_"),
            "name": block.name,
            "arguments": block.text,
        }
        return base | call | ({"namespace": block.namespace} if block.namespace else {})
    content = [] if in_progress else [_part(block)]
    return base | {"type": "message", "role": "assistant", "content": content}


def _item_of(uid: str, block: Block) -> tuple[str, Members]:
    """What a delta of this item is called, and where it belongs."""
    place: Members = {"item_id": item_id(uid, block), "output_index": block.index}
    if block.kind == "call":
        return "function_call_arguments", place
    name = "output_text" if block.kind == "text" else "reasoning_text"
    return name, place | {"content_index": 0}


def delta_event(uid: str, event: BlockEvent) -> tuple[str, Members]:
    """An item grows."""
    name, place = _item_of(uid, event.block)
    scores = {"logprobs": list(event.scores)} if event.block.kind == "text" else {}
    return f"response.{name}.delta", place | {"delta": event.text} | scores


def added_events(uid: str, block: Block) -> list[tuple[str, Members]]:
    """An item begins."""
    item = shown_item(uid, block, in_progress=True)
    events: list[tuple[str, Members]] = [("response.output_item.added", {"output_index": block.index, "item": item})]
    if block.kind != "call":
        events.append(("response.content_part.added", _part_place(uid, block) | {"part": _part(block)}))
    return events


def done_events(uid: str, block: Block) -> list[tuple[str, Members]]:
    """An item ends."""
    name, place = _item_of(uid, block)
    whole: Members = {"arguments": block.text, "name": block.name} if block.kind == "call" else {"text": block.text}
    if block.kind == "text":
        whole["logprobs"] = block.scores
    events: list[tuple[str, Members]] = [(f"response.{name}.done", place | whole)]
    if block.kind != "call":
        events.append(("response.content_part.done", _part_place(uid, block) | {"part": _part(block)}))
    events.append(("response.output_item.done", {"output_index": block.index, "item": shown_item(uid, block)}))
    return events


def _part_place(uid: str, block: Block) -> Members:
    return {"item_id": item_id(uid, block), "output_index": block.index, "content_index": 0}


def _part(block: Block) -> Members:
    """The one part of an item's content."""
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": block.scores}
