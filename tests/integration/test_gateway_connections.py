"""Connections that never become requests: each costs little, for a short time, and there are only so many."""

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from appliance.console import application as console
from appliance.gateway import listening
from appliance.gateway.server import HttpServer
from appliance.gateway.settings import GatewaySettings
from appliance.policy.administration import application as administration
from security.sandbox.profiles import Code, ConfinedRole, Places, build_profile
from security.settings import AuthoritySettings
from tests.support.controls import control
from tests.support.waiting import GIVE_UP_S, until
from tests.support.wire import close


async def never(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("no request was made")


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None, **settings: Any) -> AsyncIterator[int]:
    """A server's port, with and without TLS. Without a certificate, as no handshake is to come so far."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = HttpServer(never, GatewaySettings(**settings), tls)  # type: ignore[arg-type]
    stop = asyncio.Event()
    task = asyncio.create_task(server.serve([listener], stop))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        stop.set()
        await task
    assert listener.fileno() == -1


async def is_closed(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the server ends the connection in that time."""
    try:
        async with asyncio.timeout(within_s):
            return await reader.read(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def bare_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@control("SC-5")
async def test_connections_without_a_handshake_count_against_the_limit() -> None:
    """Those over it are closed at once, and one that ends makes room."""
    async with serving(bare_context(), max_connections=2, header_timeout_s=60.0) as port:
        first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        third = await asyncio.open_connection("127.0.0.1", port)
        assert await is_closed(third[0], 30.0)
        assert not await is_closed(first[0], 0.1)
        await close(first[1])
        await asyncio.sleep(0.1)
        fourth = await asyncio.open_connection("127.0.0.1", port)
        assert not await is_closed(fourth[0], 0.2)
        for _, writer in (second, third, fourth):
            await close(writer)


async def test_plain_connections_count_against_the_limit() -> None:
    """The same bound without TLS."""
    async with serving(None, max_connections=1, header_timeout_s=60.0) as port:
        first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await is_closed(second[0], 30.0)
        assert not await is_closed(first[0], 0.1)
        for _, writer in (first, second):
            await close(writer)


@control("3.13.9", "SC-10")
async def test_a_handshake_that_does_not_begin_is_given_up() -> None:
    """After the time that headers have, not after asyncio's minute."""
    async with serving(bare_context(), header_timeout_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await is_closed(reader, 30.0)
        await close(writer)


@pytest.mark.parametrize(
    "test",
    [
        test_connections_without_a_handshake_count_against_the_limit,
        test_plain_connections_count_against_the_limit,
        test_a_handshake_that_does_not_begin_is_given_up,
    ],
    ids=lambda test: test.__name__,
)
def test_the_loop_of_the_product_holds_the_same(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """These tests run on asyncio's own loop, a gateway on uvloop, which does not know our sockets."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())


async def test_without_descriptors_accepting_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit does not spin, and serves again once there are descriptors."""
    monkeypatch.setattr(listening, "_RETRY_S", 0.05)

    class Exhausted(socket.socket):
        refusals = 3

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    plain = socket.create_server(("127.0.0.1", 0))
    listener = Exhausted(fileno=plain.detach())
    places: list[listening.Place] = []
    made = asyncio.Event()

    def make(place: listening.Place) -> asyncio.Protocol:
        places.append(place)
        made.set()
        return asyncio.Protocol()

    acceptor = listening.Acceptor(listener, listening.OpenConnections(5, 5), make, None, 1.0)
    port = listener.getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(30):
        await made.wait()
    assert listener.refusals == 0
    await close(writer)
    acceptor.close()
    await acceptor.wait_closed()


@pytest.mark.parametrize("takes", [True, False], ids=["sibling", "nobody"])
async def test_a_siblings_connection_is_left_to_it_for_a_while(takes: bool) -> None:
    """A sibling that lives takes its own; what nobody takes is served here, again and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    siblings = listener.dup()
    siblings.setblocking(False)
    places: asyncio.Queue[listening.Place] = asyncio.Queue()

    def make(place: listening.Place) -> asyncio.Protocol:
        places.put_nowait(place)
        return asyncio.Protocol()

    # A sibling may be held up for a moment; more than that would be its absence.
    patience_s = 1.0 if takes else 0.2
    acceptor = listening.Acceptor(listener, listening.OpenConnections(5, 5), make, None, 1.0, patience_s=patience_s)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        began = loop.time()
        _, writer = await asyncio.open_connection("127.0.0.1", siblings.getsockname()[1])
        if takes:
            taken, _ = await loop.sock_accept(siblings)
            taken.close()
            await asyncio.sleep(patience_s + 0.1)
            assert places.empty()
        else:
            async with asyncio.timeout(GIVE_UP_S):
                await places.get()
            assert loop.time() - began >= 0.1
        await close(writer)
    acceptor.close()
    siblings.close()
    await acceptor.wait_closed()


def test_a_place_is_given_back_once() -> None:
    """However often it is: by a handshake that fails and by a connection that is lost."""
    connections = listening.OpenConnections(2, 2)
    first, second = connections.take_place("192.0.2.1"), connections.take_place("192.0.2.1")
    assert first is not None
    assert second is not None
    assert connections.take_place("192.0.2.2") is None
    first.give_back()
    first.give_back()
    assert connections.count == 1
    assert connections.take_place("192.0.2.2") is not None
    assert connections.take_place("192.0.2.2") is None


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:1::1", "2001:db8::1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("fe80::1%eth0", "fe80::2%eth0", "fd00::1"),
    ],
)
def test_a_source_has_its_share(one: str, same: str, other: str) -> None:
    """And leaves the rest to others: of IPv6 all that one host can call itself is one source, and IPv4 is the same within it."""
    connections = listening.OpenConnections(3, 2)
    held = [connections.take_place(address) for address in (one, same)]
    assert None not in held
    assert connections.take_place(one) is connections.take_place(same) is None
    assert connections.take_place(other) is not None
    for place in held:
        assert place is not None
        place.give_back()
    assert connections.take_place(same) is not None


@control("SC-5")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_one_source_cannot_take_all_places(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """What is over its share is closed at once; another source is let in."""

    async def run() -> None:
        async with serving(bare_context(), max_connections=3, max_connections_per_source=2) as port:
            mine = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            assert await is_closed(mine[2][0], 30.0)
            theirs = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            assert not await is_closed(theirs[0], 0.1)
            for _, writer in (*mine, theirs):
                await close(writer)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def test_no_listener_lets_one_source_take_all_of_it() -> None:
    """Neither gateway nor authority by default, nor console and admin API, which have no setting for it."""
    bounds = (
        (GatewaySettings().max_connections, GatewaySettings().max_connections_per_source),
        (AuthoritySettings().max_connections, AuthoritySettings().max_connections_per_source),
        *((module.MAX_CONNECTIONS, module.MAX_CONNECTIONS_PER_SOURCE) for module in (console, administration)),
    )
    assert all(of_one < of_all for of_all, of_one in bounds)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH, errno.EPERM])
async def test_a_connection_that_failed_before_it_was_taken_disturbs_nobody(number: int) -> None:
    """accept(2) reports its error on the listener, which is none of the listener's."""

    class Failing(socket.socket):
        failures = 1

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                self.failures -= 1
                raise OSError(number, "of a connection")
            return super().accept()

    listener = Failing(fileno=socket.create_server(("127.0.0.1", 0)).detach())
    made = asyncio.Event()

    def make(_place: listening.Place) -> asyncio.Protocol:
        made.set()
        return asyncio.Protocol()

    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    acceptor = listening.Acceptor(listener, listening.OpenConnections(5, 5), make, None, 1.0)
    _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    async with asyncio.timeout(30):
        await made.wait()
    assert not faults
    await close(writer)
    acceptor.close()
    await acceptor.wait_closed()


async def test_a_protocol_that_cannot_be_made_keeps_no_place() -> None:
    """A fault of ours costs the connection, not its place as well, and is not passed over."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = listening.OpenConnections(5, 5)

    def make(_place: listening.Place) -> asyncio.Protocol:
        raise RuntimeError("a bug")

    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    acceptor = listening.Acceptor(listener, connections, make, None, 1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    assert await is_closed(reader, 30.0)
    await until(lambda: (gc.collect(), faults)[1])
    assert connections.count == 0
    await close(writer)
    acceptor.close()
    await acceptor.wait_closed()


async def test_a_connection_under_tls_takes_one_records_buffer() -> None:
    """Not the 256 KiB that asyncio gives anybody who connects."""
    async with serving(bare_context()):
        assert SSLProtocol.max_size == 16_384


@pytest.mark.parametrize(
    ("role", "max_connections"),
    [("gateway", GatewaySettings().max_connections), ("authority", AuthoritySettings().max_connections)],
)
async def test_the_bound_on_connections_is_met_long_before_descriptors_run_out(
    role: ConfinedRole, max_connections: int, tmp_path: Path
) -> None:
    """A process without descriptors cannot even refuse: files that it must write fail with them."""
    places = Places(tmp_path, (), tmp_path, tmp_path / "key", (), 0, 0, (), (), uses_gpu=False)
    assert build_profile(role, places, Code(())).max_open_files > 4 * max_connections
