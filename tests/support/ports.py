"""Ports for processes that bind them later than the test picks them."""

import socket
from random import SystemRandom

PORTS = range(12_000, 32_000)
"""Below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range): one of these could take it before."""

_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody uses now, and that is given once in this process.

    By the system's randomness: the tests' own begins alike in runs beside each other, which would pick the same ones.
    """
    while True:
        port = SystemRandom().choice(PORTS)
        if port not in _given and _can_be_bound(port):
            _given.add(port)
            return port


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
