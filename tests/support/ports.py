"""Ports for processes that bind them later than the test picks them."""

import contextlib
import socket
from random import SystemRandom

PORTS = range(12_000, 32_000)
"""Below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range): one of these could take it before."""


def free_port() -> int:
    """A loopback port that nobody uses now, and that no process of tests is given while this one lives.

    By the system's randomness: the tests' own begins alike in runs beside each other, which would try the same ones.
    """
    while True:
        port = SystemRandom().choice(PORTS)
        if _can_be_bound(port) and _claim(port):
            return port


def _claim(port: int) -> bool:
    """By a Unix socket with the port in its name, of the same network as the port: it is there until this process ends."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with contextlib.closing(mark):
        try:
            mark.bind(f"\0casemate-tests/port/{port}")
        except OSError:
            return False
        mark.detach()  # Never closed, so that the name stays taken.
    return True


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
