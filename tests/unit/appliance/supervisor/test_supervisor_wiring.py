"""Listeners: connections are dealt out among workers, and a port belongs to one appliance."""

import select
import socket

import pytest

from appliance.errors import StartRefused
from appliance.supervisor.wiring import bind_listeners
from tests.support.waiting import wait_until


def test_each_worker_gets_a_share_of_the_connections() -> None:
    """By the kernel's hash, whoever is idle: of 64 the chance that one of two gets fewer than 8 is one in ten billion."""
    listeners = bind_listeners("127.0.0.1", 0, "gateway.port", 2)
    address = listeners[0].getsockname()
    assert listeners[1].getsockname() == address
    clients = [socket.create_connection(address) for _ in range(64)]
    counts = [0, 0]

    def have_all() -> bool:
        """A connection that a client has may come to its listener a moment later."""
        for listener in select.select(listeners, [], [], 0.0)[0]:
            listener.accept()[0].close()
            counts[listeners.index(listener)] += 1
        return sum(counts) == 64

    wait_until(have_all)
    assert min(counts) >= 8
    for sock in (*clients, *listeners):
        sock.close()


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_appliance_on_the_same_port_is_refused(count: int) -> None:
    """Though it runs as the same user, whom the kernel would let in among the workers."""
    listeners = bind_listeners("127.0.0.1", 0, "gateway.port", 2)
    port = listeners[0].getsockname()[1]
    with pytest.raises(StartRefused, match=rf"gateway.port: 127.0.0.1 port {port} is in use by another program"):
        bind_listeners("127.0.0.1", port, "gateway.port", count)
    for listener in listeners:
        listener.close()
