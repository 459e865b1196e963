"""Peers that may be captured: what they claim is held against what we know."""

import asyncio

import pytest

from appliance.errors import LinkClosed
from appliance.gateway.errors import InternalFault, PeerUnavailable
from appliance.gateway.peers.engines import Engines
from appliance.gateway.peers.policy import PolicyPeer
from appliance.gateway.peers.reader import ReaderPeer
from appliance.messages.engine import ModelFacts
from appliance.messages.policy import PolicyStatus
from appliance.messages.reading import MAX_TILE_BYTES, FetchTile, ReadBy, TilePart
from tests.support.gateway_peers import link_pair
from tests.support.waiting import until

BY = ReadBy("c", "c", "t", "jti", "192.0.2.1", 1)


@pytest.mark.parametrize(("instance", "name"), [(0, "large"), (1, "small"), (2, "small"), (0, "other")])
async def test_an_engine_is_believed_no_model_but_its_own(instance: int, name: str) -> None:
    """It would be given the prompts of another model, and answer in its name."""
    engines = Engines(["small", "large"])
    ours, theirs = link_pair("engine", instance)
    theirs.send(ModelFacts(name, 300, 512, [261], "build"))
    with pytest.raises(LinkClosed, match="which is not its model"):
        await engines.run(ours)
    with pytest.raises(PeerUnavailable):
        engines.for_model(name)


async def test_an_engine_of_the_configuration_serves() -> None:
    """By its instance; two may serve the same model."""
    engines = Engines(["small", "large", "small"])
    for instance, name in ((2, "small"), (1, "large")):
        ours, theirs = link_pair("engine", instance)
        theirs.send(ModelFacts(name, 300, 512, [261], "build"))
        theirs.close()
        running = asyncio.create_task(engines.run(ours))
        while not running.done() and not list(engines):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)
        with pytest.raises(LinkClosed, match=r"^closed$"):
            await running


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(b"ab", 4), (b"cd", 4)], b"abcd"),
        ([(b"", 0)], b""),
        ([(b"ab", 4), (b"", 4)], None),
        ([(b"abc", 2)], None),
        ([(b"a", MAX_TILE_BYTES + 1)], None),
    ],
    ids=["two parts", "nothing", "cut short", "more than all", "too large"],
)
async def test_a_tile_is_whole_or_an_error(parts: list[tuple[bytes, int]], expected: bytes | None) -> None:
    """Neither half a tile in good faith, nor as much memory as a reader likes."""
    reader = ReaderPeer(5.0)
    ours, theirs = link_pair("reader")
    serving = asyncio.create_task(reader.run(ours))
    await asyncio.sleep(0)
    fetching = asyncio.create_task(reader.fetch_tile(lambda number, at: FetchTile(number, BY, "tile/0/000", at)))
    offset = 0
    for data, size_bytes in parts:
        asked = await theirs.receive()
        assert asked.offset == offset
        offset += len(data)
        theirs.send(TilePart(asked.correlation, data, size_bytes))
    if expected is None:
        with pytest.raises(InternalFault):
            await fetching
    else:
        assert await fetching == expected
    theirs.close()
    with pytest.raises(LinkClosed):
        await serving


async def test_a_policy_that_is_silent_for_two_seconds_is_not_fresh() -> None:
    """Nor one that has said nothing yet, nor one that is gone: it may have revoked what we do not know of."""
    policy = PolicyPeer(5.0)
    with pytest.raises(PeerUnavailable):
        policy.verify_fresh()
    ours, theirs = link_pair("policy")
    serving = asyncio.create_task(policy.run(ours))
    await until(lambda: policy.connected)
    with pytest.raises(PeerUnavailable, match="silent"):
        policy.verify_fresh()
    for number in (1, 2):
        theirs.send(PolicyStatus(number, 0))
        await until(lambda number=number: policy.status == PolicyStatus(number, 0))  # type: ignore[misc]
        policy.verify_fresh()
        policy.status_at -= 2.0
        with pytest.raises(PeerUnavailable, match="silent"):
            policy.verify_fresh()
    policy.status_at += 2.0
    theirs.close()
    with pytest.raises(LinkClosed):
        await serving
    with pytest.raises(PeerUnavailable):
        policy.verify_fresh()
