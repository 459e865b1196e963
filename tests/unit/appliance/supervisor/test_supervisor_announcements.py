"""What the service manager is told, by a socket of its own as systemd's is."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.messages.control import ProcessState
from appliance.supervisor.announcements import Announcer


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Systemd's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def heard(listener: socket.socket) -> str:
    """The next message."""
    return listener.recv(4096).decode()


def test_start_ready_and_stop_are_told_in_the_words_of_sd_notify(listener: socket.socket) -> None:
    """Who is waited for, that clients can be served, and once that a stop has begun."""
    engine, gateway = ProcessState("engine", 0, "starting", 0), ProcessState("gateway", 0, "starting", 0)
    ready = ProcessState("gateway", 0, "ready", 0)
    with Announcer(listener.getsockname()) as announcer:
        announcer.tell_states([engine, gateway])
        assert heard(listener) == "STATUS=waiting for engine/0, gateway/0"
        announcer.tell_states([engine, ready])
        assert heard(listener) == "STATUS=waiting for engine/0"
        announcer.tell_states([ready])
        announcer.tell_ready()
        assert [heard(listener), heard(listener)] == ["STATUS=all processes are ready", "READY=1"]
        for _ in range(2):
            announcer.tell_states([ready, ProcessState("engine", 0, "draining", 0)])
    assert heard(listener) == "STOPPING=1\nSTATUS=stopping: open requests finish"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(listener)


def test_an_abstract_socket_is_reached(listener: socket.socket) -> None:
    """Its name begins with an @ in the variable, and with a zero byte for the kernel."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("")  # The kernel chooses a free abstract name.
        abstract.settimeout(5)
        with Announcer(f"@{abstract.getsockname()[1:].decode()}") as announcer:
            announcer.tell_ready()
        assert heard(abstract) == "READY=1"


def test_alive_is_said_by_the_loop_itself(listener: socket.socket) -> None:
    """A loop that stands still says nothing."""

    async def live() -> None:
        with Announcer(listener.getsockname()) as announcer:
            alive = asyncio.create_task(announcer.keep_alive())
            await asyncio.sleep(0)
            alive.cancel()

    asyncio.run(live())
    assert heard(listener) == "WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify"])
def test_nobody_there_is_no_fault(address: str | None) -> None:
    """A start by hand, and a manager that has gone."""
    with Announcer(address) as announcer:
        announcer.tell_ready()
