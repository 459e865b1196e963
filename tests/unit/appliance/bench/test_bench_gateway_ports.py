"""The appliance that a measurement starts is on ports of its own."""

import socket

import pytest

from appliance.bench import gateway
from tests.support.ports import free_port


def test_ports_are_different_and_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """And below those that outgoing connections get, as the appliance binds them only when it has started."""
    assert max(gateway._PORTS) < 32_768
    taken, *free = (free_port() for _ in range(3))
    monkeypatch.setattr(gateway, "_PORTS", [taken, *free])
    with socket.create_server(("127.0.0.1", taken)):
        assert sorted(gateway._free_ports(2)) == sorted(free)
