"""Taking part as a process of one thread that owns its time: engine and auditor.

`poll` is the only place where the process waits. It also sends the heartbeat, so that a step that hangs is silent.
"""

import selectors
import signal
import socket
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from appliance.config import Configuration, parse_configuration
from appliance.errors import ChannelFault, LinkClosed, MalformedMessage
from appliance.ipc.edges import ControlCodec, EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.introduction import introduce, verify_control_peer, verify_introduction
from appliance.messages.control import (
    Assign,
    Drain,
    GrantLink,
    Heartbeat,
    LinkLost,
    ProcessState,
    ProcessStates,
    Ready,
    Role,
    SupervisorToProcess,
)
from appliance.processes.refusal import configuration_directory

HEARTBEAT_INTERVAL_S = 0.25

log = structlog.get_logger(__name__)


class SupervisorGone(Exception):
    """The supervisor ended; the process must end too."""


class PolledLink:
    """One link; compared by identity. Usable once `LinkOpened` came for it, until `LinkEnded`."""

    def __init__(self, sock: socket.socket, own: Role, granted: GrantLink) -> None:
        self.peer_role = granted.role
        self.peer_instance = granted.instance
        self.granted = granted
        self.framed = FramedSocket(sock, EdgeCodec(own, granted.role))
        self.is_introduced = False
        self.is_open = True
        self.is_awaited = False
        """The peer has not read all: we wait until it takes more."""


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A peer was checked and may now be spoken to."""

    link: PolledLink


@dataclass(frozen=True, slots=True)
class LinkEnded:
    """The peer is gone, broke the protocol, or did not keep up."""

    link: PolledLink


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message of the edge's union. A struct in C, as there is one for each message; it is never part of a cycle."""

    link: PolledLink
    message: Any


Event = LinkOpened | LinkEnded | Received


class PollingMember:
    """What a process knows of the whole, and its sockets."""

    def __init__(self, control: socket.socket, role: Role) -> None:
        verify_control_peer(control)
        self.role = role
        self._control_fd = control.fileno()
        self.states: list[ProcessState] = []
        self.draining = False
        self.drain_timeout_s = 0.0
        self.assignment: Assign
        self.config: Configuration
        self._control = FramedSocket(control, ControlCodec(SupervisorToProcess), takes_fds=True)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._links: list[PolledLink] = []
        self._unsent: dict[PolledLink, None] = {}
        """Spoken to since the last `flush`, in that order."""
        self._events: list[Event] = []
        self._next_beat = 0.0
        signal.signal(signal.SIGTERM, self._drain_on_signal)
        while not hasattr(self, "assignment"):
            self._poll_sockets(HEARTBEAT_INTERVAL_S)

    @property
    def instance(self) -> int:
        """Number of this process among those of its role."""
        return self.assignment.instance

    @property
    def control_fd(self) -> int:
        """Behind it are the sockets to the other ranks of an engine (`ipc.rank_sockets`)."""
        return self._control_fd

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait at most `timeout_s` for something to happen, and say what did, in order.

        Raises: SupervisorGone.
        """
        if not self._events:
            self._poll_sockets(min(timeout_s, HEARTBEAT_INTERVAL_S))
        events, self._events = self._events, []
        return events

    def send(self, link: PolledLink, message: msgspec.Struct) -> None:
        """Buffer a message; `flush` and `poll` write it. To a link that ended it goes nowhere: `LinkEnded` says so."""
        if not link.is_open:
            return
        try:
            link.framed.queue(message)
            self._unsent[link] = None
        except ChannelFault as fault:
            self._end(link, str(fault))

    def flush(self) -> None:
        """Write what the peers take now; what is left then goes when they take more."""
        unsent, self._unsent = self._unsent, {}
        for link in unsent:
            if link.is_open:
                self._flush(link)

    def end(self, link: PolledLink) -> None:
        """Cut a link from our side."""
        self._end(link, "cut by this process")

    def ready(self, **facts: str) -> None:
        """Tell the supervisor that the process can do its work."""
        self.tell(Ready(facts))

    def heartbeat(self) -> None:
        """Say that the process lives, from within long work that is known to advance (loading weights)."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_INTERVAL_S
            self.tell(Heartbeat())

    def tell(self, message: msgspec.Struct) -> None:
        """Send the supervisor a message.

        Raises: SupervisorGone.
        """
        try:
            self._control.queue(message)
            self._control.flush()
        except ChannelFault as fault:
            raise SupervisorGone from fault

    def close(self) -> None:
        """Close every socket."""
        for link in self._links[:]:
            self._forget(link)
        self._selector.close()
        self._control.close()

    def _drain_on_signal(self, _signum: int, _frame: object) -> None:
        self.draining = True

    def _poll_sockets(self, timeout_s: float) -> None:
        self.heartbeat()
        self.flush()
        for key, mask in self._selector.select(timeout_s):
            link: PolledLink | None = key.data
            if link is None:
                self._read_control()
                continue
            if mask & selectors.EVENT_WRITE and link.is_open:
                self._flush(link)
            if mask & selectors.EVENT_READ and link.is_open:
                self._read(link)

    def _read_control(self) -> None:
        try:
            messages, ended = self._control.receive()
            for message in messages:
                self._handle(message)
        except ChannelFault as fault:
            raise SupervisorGone from fault
        if ended:
            raise SupervisorGone

    def _handle(self, message: Any) -> None:
        match message:
            case Assign():
                self.config = parse_configuration(message.configuration, configuration_directory(message))
                self.assignment = message
            case GrantLink():
                self._take(message, socket.socket(fileno=self._control.take_fd()))
            case ProcessStates():
                self.states = message.processes
            case Drain():
                self.drain_timeout_s = message.timeout_s
                self.draining = True
            case _:
                log.warning("control_message_ignored", kind=type(message).__name__)

    def _take(self, granted: GrantLink, sock: socket.socket) -> None:
        link = PolledLink(sock, self.role, granted)
        try:
            introduce(sock, self.role, self.instance)
        except OSError:
            sock.close()
            return
        self._links.append(link)
        self._selector.register(sock, selectors.EVENT_READ, link)

    def _read(self, link: PolledLink) -> None:
        try:
            if not link.is_introduced:
                verify_introduction(link.framed.sock, link.granted)
                link.is_introduced = True
                self._events.append(LinkOpened(link))
                return
            messages, ended = link.framed.receive()
        except (ChannelFault, OSError) as fault:
            if isinstance(fault, MalformedMessage):
                log.error("peer_refused", peer=f"{link.peer_role}/{link.peer_instance}", reason=str(fault))
            self._end(link, str(fault))
            return
        self._events.extend([Received(link, message) for message in messages])
        if ended:
            self._end(link, "the peer ended the link")

    def _flush(self, link: PolledLink) -> None:
        try:
            link.framed.flush()
        except LinkClosed as fault:
            self._end(link, str(fault))
            return
        if link.framed.wants_write != link.is_awaited:
            link.is_awaited = link.framed.wants_write
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.is_awaited else 0)
            self._selector.modify(link.framed.sock, wanted, link)

    def _end(self, link: PolledLink, reason: str) -> None:
        if not link.is_open:
            return
        log.info("link_ended", peer=f"{link.peer_role}/{link.peer_instance}", reason=reason)
        self._forget(link)
        if link.is_introduced:
            self._events.append(LinkEnded(link))
        self.tell(LinkLost(link.peer_role, link.peer_instance, link.granted.pid))

    def _forget(self, link: PolledLink) -> None:
        link.is_open = False
        self._links.remove(link)
        self._selector.unregister(link.framed.sock)
        link.framed.close()
