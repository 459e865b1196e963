"""Links carry the messages of their edge, check their peer by the kernel's word, and end cleanly."""

import asyncio
import os
import socket
import sys

import msgspec
import pytest

from appliance.errors import LinkClosed, MalformedMessage
from appliance.ipc.edges import ControlCodec, EdgeCodec, peers_of
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.frames import encode_frame
from appliance.ipc.introduction import introduce, make_link_pair
from appliance.ipc.link import Link, open_link
from appliance.messages.control import GrantLink, Ready, Role
from appliance.messages.engine import Cancel, RequestRefused
from appliance.messages.policy import Settle
from tests.support.controls import control


def granted(role: Role, *, pid: int | None = None, uid: int | None = None) -> GrantLink:
    """What the supervisor would say of a peer that is this very process."""
    return GrantLink(role, 0, os.getpid() if pid is None else pid, os.getuid() if uid is None else uid)


async def make_links() -> tuple[Link, Link]:
    """A gateway's and an engine's end of one link, both checked."""
    one, other = make_link_pair()
    return await asyncio.gather(
        open_link(one, "gateway", 0, granted("engine")), open_link(other, "engine", 0, granted("gateway"))
    )


async def test_messages_arrive_in_order_and_typed() -> None:
    """What one side sends the other receives, decoded by the edge's union."""
    gateway, engine = await make_links()
    for number in range(100):
        gateway.send(Cancel(number, None, None))
    assert [(await engine.receive()).request_id for _ in range(100)] == list(range(100))
    gateway.close()
    engine.close()


async def test_what_was_sent_before_the_end_is_received_before_the_end() -> None:
    """Closing loses nothing that was already written."""
    gateway, engine = await make_links()
    engine.send(RequestRefused(1, "code", "message"))
    engine.close()
    assert (await gateway.receive()).request_id == 1
    with pytest.raises(LinkClosed):
        await gateway.receive()
    assert gateway.closed.is_set()


async def test_serving_hands_over_everything_in_order_and_then_the_end() -> None:
    """What had been read before is handed over first; the end comes after the last message."""
    gateway, engine = await make_links()
    handed: list[int] = []
    engine.send(RequestRefused(1, "code", "message"))
    await asyncio.sleep(0.01)
    serving = asyncio.create_task(gateway.serve(lambda message: handed.append(message.request_id)))
    engine.send(RequestRefused(2, "code", "message"))
    engine.send(RequestRefused(3, "code", "message"))
    engine.close()
    with pytest.raises(LinkClosed):
        await serving
    assert handed == [1, 2, 3]


async def test_what_a_server_of_a_link_raises_ends_the_link_and_reaches_its_task() -> None:
    """A fault in handling is not lost in the event loop, and nothing more is handed over."""
    gateway, engine = await make_links()
    handed: list[int] = []

    def fail(message: RequestRefused) -> None:
        handed.append(message.request_id)
        raise KeyError("own bug")

    serving = asyncio.create_task(gateway.serve(fail))
    await asyncio.sleep(0)
    for number in range(3):
        engine.send(RequestRefused(number, "code", "message"))
    with pytest.raises(KeyError, match="own bug"):
        await serving
    assert handed == [0]
    assert gateway.closed.is_set()
    engine.close()


async def test_a_descriptor_sent_over_a_link_goes_nowhere() -> None:
    """Only the control socket carries files: no peer can fill another's table of them."""
    one, other = make_link_pair()
    task = asyncio.ensure_future(open_link(other, "engine", 0, granted("gateway")))
    introduce(one, "gateway", 0)
    engine = await task
    read_end, write_end = os.pipe()
    socket.send_fds(one, [encode_frame(msgspec.msgpack.encode(Cancel(1, None, None)))], [write_end])
    os.close(write_end)
    assert (await engine.receive()).request_id == 1
    assert os.read(read_end, 1) == b"", "somebody holds the other end"
    os.close(read_end)
    engine.close()
    one.close()


async def test_a_message_of_another_edge_ends_the_link() -> None:
    """A gateway cannot speak the policy edge's language to the engine."""
    one, other = make_link_pair()
    task = asyncio.ensure_future(open_link(other, "engine", 0, granted("gateway")))
    introduce(one, "gateway", 0)
    engine = await task
    one.sendall(encode_frame(msgspec.msgpack.encode(Settle(1, 2, 3))))
    with pytest.raises(LinkClosed, match="does not allow"):
        await engine.receive()
    one.close()


@control("3.1.1", "3.5.1", "3.13.15", "AC-2", "SC-23")
@pytest.mark.parametrize("wrong", [{"pid": 1}, {"uid": 12345}])
async def test_a_peer_with_other_credentials_is_refused(wrong: dict[str, int]) -> None:
    """pid and uid are the kernel's, not the peer's claim."""
    one, other = make_link_pair()
    introduce(one, "gateway", 0)
    with pytest.raises(MalformedMessage, match="was used by pid"):
        await open_link(other, "engine", 0, granted("gateway", **wrong))
    one.close()


async def test_a_peer_that_claims_another_role_is_refused() -> None:
    """The right process on the wrong edge is refused too."""
    one, other = make_link_pair()
    introduce(one, "authority", 0)
    with pytest.raises(MalformedMessage):
        await open_link(other, "engine", 0, granted("gateway"))
    one.close()


@control("3.1.1", "3.13.2", "AC-2", "SC-3")
async def test_another_process_that_got_hold_of_the_socket_is_refused() -> None:
    """The kernel names the process that sends, so a stolen descriptor is of no use."""
    one, other = make_link_pair()
    thief = (
        "import socket, sys; from appliance.ipc.introduction import introduce; "
        "introduce(socket.socket(fileno=int(sys.argv[1])), 'gateway', 0)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", thief, str(one.fileno()), pass_fds=(one.fileno(),)
    )
    with pytest.raises(MalformedMessage, match="was used by pid"):
        await open_link(other, "engine", 0, granted("gateway"))
    await process.wait()
    one.close()


async def test_a_peer_that_does_not_read_loses_the_link_and_not_the_sender() -> None:
    """The buffer is bounded; the sender is told, and goes on."""
    gateway, engine = await make_links()
    engine._framed._max_buffered_bytes = 1 << 20  # the bound, made small for the test
    message = RequestRefused(1, "code", "x" * 10_000)

    def send_without_end() -> None:
        for _ in range(2000):
            engine.send(message)

    with pytest.raises(LinkClosed, match="unread"):
        send_without_end()
    assert engine.closed.is_set()
    gateway.close()


def test_every_edge_is_decoded_on_both_sides() -> None:
    """The table of edges is symmetric, so that no side is left without a union."""
    roles: tuple[Role, ...] = ("gateway", "policy", "engine", "auditor", "authority")
    for role in roles:
        for peer in peers_of(role):
            EdgeCodec(role, peer)
            EdgeCodec(peer, role)
    assert "authority" not in peers_of("engine")


def test_file_descriptors_travel_with_their_message() -> None:
    """A descriptor sent with a message is the same file on the other side, and close-on-exec."""
    one, other = socket.socketpair()
    sender = FramedSocket(one, ControlCodec(Ready))
    receiver = FramedSocket(other, ControlCodec(Ready), takes_fds=True)
    read_end, write_end = os.pipe()
    sender.queue(Ready({}), fd=write_end)
    sender.flush()
    messages, ended = receiver.receive()
    assert (messages, ended) == ([Ready({})], False)
    fd = receiver.take_fd()
    assert not os.get_inheritable(fd)
    os.write(fd, b"through")
    assert os.read(read_end, 7) == b"through"
    for opened in (fd, read_end):
        os.close(opened)
    with pytest.raises(LinkClosed, match="announced"):
        receiver.take_fd()
    sender.close()
    receiver.close()
