"""A request that is over is gone at once: nothing of it waits for the garbage collector, which would stop a worker for 20 ms."""

import gc
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.streams import post, settled

OURS = ("appliance.", "runtime.", "audit.", "uvicorn.")


@pytest.mark.parametrize(
    "changes", [{"stream": True}, {}, {"stream": True, "n": 2}, {"stop": ["l"]}], ids=["stream", "whole", "n", "stop"]
)
async def test_a_request_leaves_no_cycles(gateway: Gateway, changes: dict[str, Any]) -> None:
    """All that it made is freed by counting references."""
    gateway.says("hello")
    await post(gateway, **changes)
    await settled(gateway)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert (await post(gateway, **changes)).status == 200
            await settled(gateway)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(found) for found in gc.garbage if type(found).__module__.startswith(OURS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
