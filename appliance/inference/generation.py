"""What the engine is asked for, of what a worker sends."""

import array
import sys

from appliance.messages.engine import Submit
from runtime.errors import RequestRejected
from runtime.request import GenerationRequest


def generation_request(engine_id: int, message: Submit, arrived_at: float) -> GenerationRequest:
    """The request under its id in the engine.

    Args:
        arrived_at: of the message, on the engine's clock; its deadline counts from there.
    Raises: RequestRejected if the prompt is not whole ids.
    """
    timeout_ms = message.timeout_ms
    return GenerationRequest(
        request_id=engine_id,
        prompt=_token_ids(message.prompt),
        sampling=message.sampling,
        n=message.n,
        namespace=message.namespace,
        priority=message.priority,
        deadline=None if timeout_ms is None else arrived_at + timeout_ms / 1000,
        caches_output=message.caches_output,
        grammar=message.grammar,
        wants_embedding=message.wants_embedding,
    )


def _token_ids(prompt: bytes) -> "array.array[int]":
    """Decode little-endian uint32 token ids; no object is made for any of them."""
    if len(prompt) % 4:
        raise RequestRejected("malformed_prompt", f"a prompt of {len(prompt)} bytes is not a row of 4-byte token ids")
    ids = array.array("I", prompt)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids
