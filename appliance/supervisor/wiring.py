"""Makes the connections: a socket pair for each edge between two living processes, and the bound TCP listeners.

Only the supervisor connects. A process can neither dial another nor be dialled, and who its peers are is the table in
`ipc.edges`, not what somebody claims.
"""

import asyncio
import errno
import os
import socket

import structlog

from appliance.errors import StartRefused
from appliance.ipc.edges import peers_of
from appliance.ipc.introduction import make_link_pair
from appliance.messages.control import GrantLink, LinkLost
from appliance.supervisor.child import Child

log = structlog.get_logger(__name__)

_RENEWAL_DELAY_S = 0.5
"""A link that ends while both sides live is granted anew after so long, however often it ends."""


def bind_listener(host: str, port: int, key: str, *, is_shared: bool = False) -> socket.socket:
    """Bind and listen on a TCP port for a process to accept from.

    Args:
        is_shared: others of this user may listen there too, and the kernel deals the connections out among all.
    Raises: StartRefused that names the configuration key and who is in the way.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
        # Duplicates share this flag with the workers: a duplicate of a blocking socket would make their accept() wait.
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = (
            "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        )
        raise StartRefused(f"{key}: {host} port {port} {reason}") from error
    return listener


def bind_listeners(host: str, port: int, key: str, count: int) -> list[socket.socket]:
    """One for each worker, so that each gets about as many connections as any other.

    Of one that they share, whoever is idle takes what comes: of two workers one had four fifths of 64 connections.
    Raises: StartRefused, also when another appliance of this user listens there.
    """
    alone = bind_listener(host, port, key)
    if count == 1:
        return [alone]
    port = alone.getsockname()[1]
    alone.close()
    return [bind_listener(host, port, key, is_shared=True) for _ in range(count)]


class Wiring:
    """Grants links among the processes that live now."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._renewals: set[tuple[str, str]] = set()

    def add(self, child: Child) -> None:
        """Connect a process that has just been started with each living peer."""
        for peer in self._children.values():
            if peer.role in peers_of(child.role) or child.role in peers_of(peer.role):
                self._connect(child, peer)
        self._children[child.name] = child

    def remove(self, child: Child) -> None:
        """Forget a process that ended."""
        if self._children.get(child.name) is child:
            del self._children[child.name]

    def renew(self, child: Child, lost: LinkLost) -> None:
        """Grant a link anew that ended although both processes live. Both report it; one renewal follows."""
        peer = self._children.get(f"{lost.role}/{lost.instance}")
        if peer is None or peer.pid != lost.pid or self._children.get(child.name) is not child:
            return
        if "draining" in (child.state, peer.state):
            return
        edge = (min(child.name, peer.name), max(child.name, peer.name))
        if edge not in self._renewals:
            self._renewals.add(edge)
            asyncio.get_running_loop().call_later(_RENEWAL_DELAY_S, self._renew_now, edge, child, peer)

    def _renew_now(self, edge: tuple[str, str], child: Child, peer: Child) -> None:
        self._renewals.discard(edge)
        if self._children.get(child.name) is child and self._children.get(peer.name) is peer:
            log.warning("link_renewed", one=child.name, other=peer.name)
            self._connect(child, peer)

    def _connect(self, one: Child, other: Child) -> None:
        one_end, other_end = make_link_pair()
        one.grant(one_end, other)
        other.grant(other_end, one)


def make_own_link(child: Child) -> tuple[socket.socket, GrantLink]:
    """A link between the supervisor itself and `child`: our end, and what the kernel must say of the peer."""
    ours, theirs = make_link_pair()
    child.send(GrantLink("supervisor", 0, os.getpid(), os.getuid()), fd=theirs.detach())
    return ours, GrantLink(child.role, child.instance, child.pid, child.uid)
