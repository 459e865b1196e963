"""The rules tried for real: a host and one machine a zone, as network namespaces on this machine, each pair connected once.

    zone namespaces ──veth──▶ host namespace, in which the rendered rules are applied

Each zone tries every port of the host, and the host tries a port in every zone. What an arrow names must open; everything
else must not, and the counters of refused packets must have moved. The site's own addresses are taken: one of each zone's networks.
Needs root, ip(8) and nft(8); changes nothing outside its own namespaces and removes them.
"""

import contextlib
import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from security.errors import SegmentsUnusable
from security.sandbox import kernel
from security.segmentation.model import Address, Arrow, Ports
from security.segmentation.nftables import REFUSED_IN, REFUSED_OUT, TABLE, render_nftables

T = TypeVar("T")

_TRY_TIMEOUT_S = 1.0
_MAX_AT_ONCE = 32
_STRANGER = ipaddress.ip_network("198.51.100.77")
"""An address of a documentation network (RFC 5737): a zone that nobody declared."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection that was tried."""

    source: str
    target: str
    port: int
    should_open: bool
    opened: bool


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of all of them."""

    attempts: tuple[Attempt, ...]
    refused_in: int
    refused_out: int

    @property
    def wrong(self) -> tuple[Attempt, ...]:
        """Those that opened and should not have, or the other way round."""
        return tuple(attempt for attempt in self.attempts if attempt.opened != attempt.should_open)


def rehearse(arrows: Sequence[Arrow], ports: Ports, admin_port: int) -> Rehearsal:
    """Build the namespaces, apply the rules, try every pair.

    Raises: SegmentsUnusable where this machine cannot do it, saying why.
    """
    _verify_possible()
    zones: dict[str, Address] = {"stranger": _STRANGER}
    for arrow in arrows:
        zones.setdefault(arrow.target if arrow.is_outgoing else arrow.source, arrow.peers[0])
    addresses = {zone: _pick_address(network) for zone, network in zones.items() if network.version == 4}
    with _namespaces(addresses) as (host, inner, host_addresses):
        _run("ip", "netns", "exec", host, "nft", "-f", "-", given=render_nftables(arrows))
        listened = sorted({ports.gateway, ports.authority, admin_port, 9999})
        with contextlib.ExitStack() as stack:
            stack.enter_context(_listening(host, listened))
            outgoing = sorted({arrow.port for arrow in arrows if arrow.is_outgoing} | {9999})
            for zone in addresses:
                stack.enter_context(_listening(inner[zone], outgoing))
            tries = [
                *_incoming(arrows, inner, host_addresses, listened),
                *_outgoing(arrows, addresses, host, outgoing),
            ]
            with ThreadPoolExecutor(max_workers=_MAX_AT_ONCE) as pool:
                attempts = list(pool.map(_try, tries))
        counters = _read_counters(host)
    return Rehearsal(tuple(attempts), counters[REFUSED_IN], counters[REFUSED_OUT])


@dataclass(frozen=True, slots=True)
class _Try:
    """A connection that is to be tried."""

    source: str
    target: str
    port: int
    should_open: bool
    namespace: str
    address: str


def _try(one: _Try) -> Attempt:
    return Attempt(one.source, one.target, one.port, one.should_open, _connects(one.namespace, one.address, one.port))


def _incoming(
    arrows: Sequence[Arrow], inner: dict[str, str], host_addresses: dict[str, str], ports: Sequence[int]
) -> Iterator[_Try]:
    for zone in inner:
        for port in ports:
            allowed = any(not arrow.is_outgoing and arrow.source == zone and arrow.port == port for arrow in arrows)
            yield _Try(zone, "host", port, allowed, inner[zone], host_addresses[zone])


def _outgoing(arrows: Sequence[Arrow], addresses: dict[str, str], host: str, ports: Sequence[int]) -> Iterator[_Try]:
    for zone, address in addresses.items():
        for port in ports:
            allowed = any(arrow.is_outgoing and arrow.target == zone and arrow.port == port for arrow in arrows)
            yield _Try("host", zone, port, allowed, host, address)


def _verify_possible() -> None:
    if os.geteuid() != 0:
        raise SegmentsUnusable("a rehearsal makes network namespaces and needs root")
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            raise SegmentsUnusable(f"a rehearsal needs {program}, which is not installed")


def _pick_address(network: Address) -> str:
    """The second address of a network, or its only one."""
    return str(network.network_address if network.num_addresses == 1 else network.network_address + 1)


@contextlib.contextmanager
def _namespaces(addresses: dict[str, str]) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    """A host namespace with one point-to-point link to each zone's; gives their names and the host's address on each link."""
    tag = secrets.token_hex(3)
    host = f"cm{tag}-host"
    inner = {zone: f"cm{tag}-{zone}" for zone in addresses}
    host_addresses = {zone: f"169.254.{number}.1" for number, zone in enumerate(addresses, start=1)}
    made: list[str] = []
    try:
        for name in (host, *inner.values()):
            _run("ip", "netns", "add", name)
            made.append(name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for number, (zone, address) in enumerate(addresses.items(), start=1):
            here, there = f"h{tag}{number}", f"z{tag}{number}"
            _run("ip", "link", "add", here, "netns", host, "type", "veth", "peer", "name", there, "netns", inner[zone])
            _run("ip", "-n", host, "address", "add", f"{host_addresses[zone]}/32", "dev", here)
            _run("ip", "-n", inner[zone], "address", "add", f"{address}/32", "dev", there)
            for name, link, other in ((host, here, address), (inner[zone], there, host_addresses[zone])):
                _run("ip", "-n", name, "link", "set", link, "up")
                _run("ip", "-n", name, "route", "add", f"{other}/32", "dev", link)
        yield host, inner, host_addresses
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)  # noqa: S603, S607


@contextlib.contextmanager
def _listening(namespace: str, ports: Sequence[int]) -> Iterator[None]:
    """Sockets in a namespace that take connections; the kernel answers, so nobody needs to accept."""
    sockets = [_inside(namespace, partial(socket.create_server, ("0.0.0.0", port))) for port in ports]  # noqa: S104
    try:
        yield
    finally:
        for one in sockets:
            one.close()


def _connects(namespace: str, address: str, port: int) -> bool:
    def connect() -> bool:
        try:
            with socket.create_connection((address, port), timeout=_TRY_TIMEOUT_S):
                return True
        except OSError:
            return False

    return bool(_inside(namespace, connect))


def _inside(namespace: str, act: Callable[[], T]) -> T:
    """Do something in a namespace, in a thread of its own, so that ours never leaves its own namespace."""
    result: list[T] = []

    def work() -> None:
        with open(f"/run/netns/{namespace}", "rb") as file:
            kernel.setns(file.fileno(), kernel.CLONE_NEWNET)
        result.append(act())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not result:
        raise SegmentsUnusable(f"network namespace {namespace}: cannot be entered")
    return result[0]


def _read_counters(host: str) -> dict[str, int]:
    """Packets by counter."""
    listed = json.loads(_run("ip", "netns", "exec", host, "nft", "--json", "list", "counters", "table", "inet", TABLE))
    counters = (entry["counter"] for entry in listed["nftables"] if "counter" in entry)
    return {counter["name"]: int(counter["packets"]) for counter in counters}


def apply_rules(rules: str) -> None:
    """Load a ruleset into the kernel, after a dry run. Raises: SegmentsUnusable."""
    if shutil.which("nft") is None:
        raise SegmentsUnusable("nft is not installed")
    _run("nft", "--check", "-f", "-", given=rules)
    _run("nft", "-f", "-", given=rules)


def _run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(list(command), input=given, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    if done.returncode:
        raise SegmentsUnusable(f"{' '.join(command)[:200]}: {done.stderr.strip()[:500]}")
    return done.stdout
