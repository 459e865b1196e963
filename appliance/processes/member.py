"""Taking part as an asyncio process: gateway workers, policy, authority.

The main loop itself sends the heartbeat, so that a loop that hangs is silent and the supervisor notices.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import structlog

from appliance.config import Configuration, parse_configuration
from appliance.errors import ChannelFault, LinkClosed, MalformedMessage
from appliance.ipc.edges import ControlCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.introduction import verify_control_peer
from appliance.ipc.link import Link, open_link
from appliance.messages.control import (
    Assign,
    Drain,
    GrantLink,
    GrantListener,
    Heartbeat,
    IssuerKeys,
    LinkLost,
    ProcessState,
    ProcessStates,
    Ready,
    RenewCertificate,
    Role,
    SupervisorToProcess,
)
from appliance.processes.refusal import configuration_directory

HEARTBEAT_INTERVAL_S = 0.25
LinkHandler = Callable[[Link], Awaitable[None]]

log = structlog.get_logger(__name__)


class Member:
    """What a process knows of the whole: who it is, its configuration, its links, what the supervisor sees."""

    def __init__(self, control: socket.socket, role: Role) -> None:
        verify_control_peer(control)
        self.role = role
        self.instance = 0
        self.states: list[ProcessState] = []
        self.listeners: list[socket.socket] = []
        """Our own first; the others are our siblings'."""
        self.draining = asyncio.Event()
        self.drain_timeout_s = 0.0
        self.supervisor_gone = asyncio.Event()
        self.on_issuer_keys: Callable[[IssuerKeys], Coroutine[Any, Any, None]] | None = None
        self.on_certificate: Callable[[RenewCertificate], object] = lambda _message: None
        self.assignment: Assign
        self.config: Configuration
        self._control = FramedSocket(control, ControlCodec(SupervisorToProcess), takes_fds=True)
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[Role, LinkHandler] = {}
        self._early: list[tuple[GrantLink, socket.socket]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._assigned = asyncio.Event()
        self._listening = asyncio.Event()
        self._loop.add_reader(control, self._read)
        self._loop.add_signal_handler(signal.SIGTERM, self.draining.set)
        self._beat()

    async def assigned(self) -> None:
        """Wait for the first message: who we are, and the configuration."""
        await self._assigned.wait()

    async def listening(self) -> None:
        """Wait for the listening sockets that the supervisor bound for us and our siblings."""
        await self._listening.wait()

    def on_link(self, role: Role, handler: LinkHandler) -> None:
        """Run `handler` as a task for each link to a process of `role`, those granted before included.

        When it returns or raises LinkClosed the link is closed; if the peer lives the supervisor grants a new one.
        """
        self._handlers[role] = handler
        waiting, self._early = self._early, []
        for granted, sock in waiting:
            self._take_link(granted, sock)

    async def ready(self, **facts: str) -> None:
        """Tell the supervisor that the process can do its work."""
        self._send(Ready(facts))

    def close(self) -> None:
        """End everything that was opened here."""
        self.supervisor_gone.set()
        for task in self._tasks:
            task.cancel()
        self._loop.remove_reader(self._control.sock)
        self._control.close()

    def _send(self, message: msgspec.Struct) -> None:
        if self.supervisor_gone.is_set():
            return
        try:
            self._control.queue(message)
            self._control.flush()
        except ChannelFault:
            self._lose_supervisor()

    def refuse(self, message: msgspec.Struct) -> None:
        """Send the last word before an exit."""
        self._send(message)

    def _beat(self) -> None:
        if not self.supervisor_gone.is_set():
            self._send(Heartbeat())
            self._loop.call_later(HEARTBEAT_INTERVAL_S, self._beat)

    def _lose_supervisor(self) -> None:
        self.supervisor_gone.set()
        self._loop.remove_reader(self._control.sock)

    def _read(self) -> None:
        try:
            messages, ended = self._control.receive()
            for message in messages:
                self._handle(message)
        except ChannelFault as fault:
            log.error("control_channel_failed", reason=str(fault))
            ended = True
        if ended:
            self._lose_supervisor()

    def _handle(self, message: Any) -> None:
        match message:
            case Assign():
                self.assignment = message
                self.instance = message.instance
                self.config = parse_configuration(message.configuration, configuration_directory(message))
                self._assigned.set()
            case GrantLink():
                self._take_link(message, socket.socket(fileno=self._control.take_fd()))
            case GrantListener():
                self._take_listener(message, socket.socket(fileno=self._control.take_fd()))
            case ProcessStates():
                self.states = message.processes
            case RenewCertificate():
                self.on_certificate(message)
            case IssuerKeys() if self.on_issuer_keys is not None:
                task = self._loop.create_task(self.on_issuer_keys(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Drain():
                self.drain_timeout_s = message.timeout_s
                self.draining.set()

    def _take_listener(self, granted: GrantListener, listener: socket.socket) -> None:
        self.listeners.insert(0 if granted.is_own else len(self.listeners), listener)
        if len(self.listeners) == granted.count:
            self._listening.set()

    def _take_link(self, granted: GrantLink, sock: socket.socket) -> None:
        handler = self._handlers.get(granted.role)
        if handler is None:
            self._early.append((granted, sock))
            return
        task = self._loop.create_task(self._run_link(granted, sock, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_link(self, granted: GrantLink, sock: socket.socket, handler: LinkHandler) -> None:
        link: Link | None = None
        try:
            link = await open_link(sock, self.role, self.instance, granted)
            await handler(link)
        except LinkClosed as fault:
            log.info("link_ended", peer=f"{granted.role}/{granted.instance}", reason=str(fault))
        except MalformedMessage as fault:
            log.error("peer_refused", peer=f"{granted.role}/{granted.instance}", reason=str(fault))
        finally:
            if link is not None:
                link.close()
            if not self.supervisor_gone.is_set():
                self._send(LinkLost(granted.role, granted.instance, granted.pid))
