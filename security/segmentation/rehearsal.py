"""The rules tried for real: a host and one machine a place, as network namespaces on this machine, each pair connected once.

    places' namespaces ──veth──▶ host namespace, in which the rendered rules are applied

A place is one address: of each network and each endpoint that the arrows name, and of a stranger, for each family. Each tries
every port of the host, the host tries every port in each, and the first place of each zone tries to reach that of every other
zone through the host. What an arrow names must open; everything else must not, and the counters of refused packets must have moved.
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
from pathlib import Path
from typing import TypeVar

from security.errors import SegmentsUnusable
from security.sandbox import kernel
from security.segmentation.model import Address, Arrow, Ports
from security.segmentation.nftables import REFUSED_IN, REFUSED_OUT, REFUSED_THROUGH, TABLE, render_nftables

T = TypeVar("T")

_TRY_TIMEOUT_S = 1.0
_MAX_AT_ONCE = 128
_MAX_PLACES = 64
_NO_ARROWS_PORT = 9999
_STRANGERS = (ipaddress.ip_network("198.51.100.77"), ipaddress.ip_network("2001:db8:77::77"))
"""Addresses of documentation networks (RFC 5737, RFC 3849): a zone that nobody declared."""
_HOST_ON_LINK = {4: "169.254.{}.1", 6: "2001:db8:ffff:{:x}::1"}


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
    refused: dict[str, int]
    """Packets, by counter."""

    @property
    def wrong(self) -> tuple[Attempt, ...]:
        """Those that opened and should not have, or the other way round."""
        return tuple(attempt for attempt in self.attempts if attempt.opened != attempt.should_open)


@dataclass(frozen=True, slots=True)
class _Place:
    """A machine that is played by a network namespace."""

    zone: str
    label: str
    namespace: str
    address: str
    host_address: str
    """The host's, on the link to it."""
    version: int


@dataclass(frozen=True, slots=True)
class _Try:
    """A connection that is to be tried."""

    source: str
    target: str
    port: int
    should_open: bool
    namespace: str
    address: str


def rehearse(arrows: Sequence[Arrow], ports: Ports, admin_port: int) -> Rehearsal:
    """Build the namespaces, apply the rules, try every pair.

    Raises: SegmentsUnusable where this machine cannot do it, saying why.
    """
    _verify_possible()
    tag = f"cm{secrets.token_hex(3)}"
    places, host = _find_places(arrows, tag), f"{tag}-host"
    listened = sorted({*ports.listened(), admin_port, _NO_ARROWS_PORT})
    outgoing = sorted({arrow.port for arrow in arrows if arrow.is_outgoing} | {_NO_ARROWS_PORT})
    tries = [
        *_incoming(arrows, places, listened),
        *_outgoing(arrows, places, host, outgoing),
        *_passing_through(places),
    ]
    with _namespaces(host, places), contextlib.ExitStack() as stack:
        _run("ip", "netns", "exec", host, "nft", "-f", "-", given=render_nftables(arrows))
        stack.enter_context(_listening(host, listened))
        for place in places:
            stack.enter_context(_listening(place.namespace, outgoing))
        with ThreadPoolExecutor(max_workers=_MAX_AT_ONCE) as pool:
            attempts = list(pool.map(_try, tries))
        counters = _read_counters(host)
    return Rehearsal(tuple(attempts), {name: counters[name] for name in (REFUSED_IN, REFUSED_OUT, REFUSED_THROUGH)})


def _find_places(arrows: Sequence[Arrow], tag: str) -> list[_Place]:
    """One for each address, which may be in several zones. Raises: SegmentsUnusable where there are too many."""
    zones: dict[str, dict[str, None]] = {}
    for zone, network in [("stranger", network) for network in _STRANGERS] + [
        (arrow.target if arrow.is_outgoing else arrow.source, peer) for arrow in arrows for peer in arrow.peers
    ]:
        zones.setdefault(_pick_address(network), {})[zone] = None
    if len(zones) > _MAX_PLACES:
        raise SegmentsUnusable(f"a rehearsal has at most {_MAX_PLACES} networks and addresses; there are {len(zones)}")
    places: list[_Place] = []
    for number, (address, names) in enumerate(zones.items(), start=1):
        zone, version = "+".join(names), ipaddress.ip_address(address).version
        label = f"{zone} {address}" if any(place.zone == zone for place in places) else zone
        on_link = _HOST_ON_LINK[version].format(number)
        places.append(_Place(zone, label, f"{tag}-{number}", address, on_link, version))
    return places


def _try(one: _Try) -> Attempt:
    return Attempt(one.source, one.target, one.port, one.should_open, _connects(one.namespace, one.address, one.port))


def _incoming(arrows: Sequence[Arrow], places: Sequence[_Place], ports: Sequence[int]) -> Iterator[_Try]:
    for place in places:
        for port in ports:
            allowed = any(arrow.port == port and _leads(arrow, place) for arrow in arrows if not arrow.is_outgoing)
            yield _Try(place.label, "host", port, allowed, place.namespace, place.host_address)


def _outgoing(arrows: Sequence[Arrow], places: Sequence[_Place], host: str, ports: Sequence[int]) -> Iterator[_Try]:
    for place in places:
        for port in ports:
            allowed = any(arrow.port == port and _leads(arrow, place) for arrow in arrows if arrow.is_outgoing)
            yield _Try("host", place.label, port, allowed, host, place.address)


def _passing_through(places: Sequence[_Place]) -> Iterator[_Try]:
    """Between the zones, each by one place a family: the host is no way from one to another."""
    firsts = list({(place.zone, place.version): place for place in reversed(places)}.values())
    for one in firsts:
        for other in firsts:
            if one.zone != other.zone and one.version == other.version:
                yield _Try(one.label, other.label, _NO_ARROWS_PORT, False, one.namespace, other.address)


def _leads(arrow: Arrow, place: _Place) -> bool:
    """Whether a place is on the other side of an arrow; zones may overlap."""
    address = ipaddress.ip_address(place.address)
    return any(address in peer for peer in arrow.peers)


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
def _namespaces(host: str, places: Sequence[_Place]) -> Iterator[None]:
    """A host namespace, which passes packets on as a router does, with one point-to-point link to each place's."""
    made: list[str] = []
    try:
        for name in (host, *(place.namespace for place in places)):
            _run("ip", "netns", "add", name)
            made.append(name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            _inside(host, partial(Path("/proc/sys/net", name).write_text, "1"))
        for place in places:
            _link(host, place)
        yield
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)  # noqa: S603, S607


def _link(host: str, place: _Place) -> None:
    inner, family, bits = place.namespace, f"-{place.version}", 32 if place.version == 4 else 128
    here, there = f"h{inner[2:]}", f"z{inner[2:]}"
    no_detection = ["nodad"] if place.version == 6 else []
    _run("ip", "link", "add", here, "netns", host, "type", "veth", "peer", "name", there, "netns", inner)
    for name, link, own, other in (
        (host, here, place.host_address, place.address),
        (inner, there, place.address, place.host_address),
    ):
        _run("ip", "-n", name, family, "address", "add", f"{own}/{bits}", "dev", link, *no_detection)
        _run("ip", "-n", name, "link", "set", link, "up")
        _run("ip", "-n", name, family, "route", "add", f"{other}/{bits}", "dev", link)
    _run("ip", "-n", inner, family, "route", "add", "default", "via", place.host_address, "dev", there)


@contextlib.contextmanager
def _listening(namespace: str, ports: Sequence[int]) -> Iterator[None]:
    """Sockets in a namespace that take connections; the kernel answers, so nobody needs to accept."""
    create = partial(socket.create_server, family=socket.AF_INET6, dualstack_ipv6=True)
    sockets = [_inside(namespace, partial(create, ("::", port))) for port in ports]
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


def check_rules(rules: str) -> None:
    """Have the kernel say whether it would take a ruleset; nothing changes. Raises: SegmentsUnusable."""
    if shutil.which("nft") is None:
        raise SegmentsUnusable("nft is not installed")
    _run("nft", "--check", "-f", "-", given=rules)


def apply_rules(rules: str) -> None:
    """Load a ruleset that was checked into the kernel. Raises: SegmentsUnusable."""
    _run("nft", "-f", "-", given=rules)


def _run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(list(command), input=given, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    if done.returncode:
        raise SegmentsUnusable(f"{' '.join(command)[:200]}: {done.stderr.strip()[:500]}")
    return done.stdout
