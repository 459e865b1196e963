"""One process that the supervisor started: its pid, its control socket, what it said last."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import structlog

from appliance.config.child_environment import child_environment
from appliance.errors import ChannelFault
from appliance.ipc.edges import ControlCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.control import (
    CannotStart,
    GrantLink,
    Heartbeat,
    LinkLost,
    ProcessToSupervisor,
    Ready,
    Role,
)
from security.sandbox.launch import interpreter

log = structlog.get_logger(__name__)

PROGRAM = ("-m", "appliance.processes")
"""What the interpreter runs for every role."""

State = Literal["starting", "ready", "restarting", "draining", "failed"]

_RANKS_END_S = 30.0
"""How long ranks that were killed may take to end: a GPU's memory is taken back first."""
_RANKS_POLL_S = 0.05


class Child:
    """One life of one process. A restarted process is a new Child with the same role and instance."""

    def __init__(
        self,
        role: Role,
        instance: int,
        watchdog_timeout_s: float,
        start_timeout_s: float,
        confine: Callable[[list[str], int], list[str]] = lambda command, _control_fd: command,
        program: Sequence[str] = PROGRAM,
        uid: int | None = None,
        num_ranks: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.role: Role = role
        self.instance = instance
        self.state: State = "starting"
        self.facts: dict[str, str] = {}
        self.refusal: str | None = None
        self.hung_s = 0.0
        """How long the main loop had been silent when the watchdog killed the process; 0 if it did not."""
        self.dismissal = self.overdue = ""
        """Why it was ended while everything stopped: of no use any more, or too slow."""
        self.started_at = time.monotonic()
        self.heard_at = self.started_at
        self._watchdog_timeout_s = watchdog_timeout_s
        self._start_timeout_s = start_timeout_s
        self._confine = confine
        self._program = program
        self._num_ranks = num_ranks
        self._environment = environment
        self.uid = os.getuid() if uid is None else uid
        """Of the user that it runs as; peers are told."""
        self._process: asyncio.subprocess.Process
        self._control: FramedSocket | None = None
        self.on_ready: Callable[[Child], None] = lambda _child: None
        self.on_link_lost: Callable[[Child, LinkLost], None] = lambda _child, _lost: None

    @property
    def name(self) -> str:
        """`role/instance`, as logs and states name it."""
        return f"{self.role}/{self.instance}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """True until the process was seen to end or its control socket closed."""
        return self._control is not None

    async def start(self) -> None:
        """Start the process with one inherited socket and nothing else of ours: no environment, no other descriptor."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fd = theirs.fileno()
        command = [*interpreter(), *self._program, self.role, "--control-fd", str(fd)]
        confined = self._confine(command, fd)
        ranks = []
        if self._num_ranks > 1:
            ranks = [*interpreter(), "-m", "appliance.processes.ranks", str(self._num_ranks), str(fd), "--"]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *ranks,
                *confined,
                pass_fds=(fd,),
                stdin=asyncio.subprocess.DEVNULL,
                env={**child_environment(is_confined=confined != command), **self._environment},
                process_group=0,  # Ctrl-C at a terminal reaches the supervisor only, which drains
            )  # fmt: skip
        finally:
            theirs.close()
        self._control = FramedSocket(ours, ControlCodec(ProcessToSupervisor), takes_fds=True)
        asyncio.get_running_loop().add_reader(ours, self._read)

    async def wait(self) -> int:
        """Wait for the end of the process; gives its exit status, negative for a signal. Its other ranks are ended as well."""
        status = await self._process.wait()
        if self._num_ranks > 1:
            self._kill_group()
        if self._control is not None:
            self._read()
        self._close_control()
        return status

    async def ranks_ended(self) -> None:
        """Wait, after `wait`, until none of an engine's other ranks is left: what comes next needs their GPUs' memory.

        They notice by themselves that the first has ended, unless they are stopped, or stuck in a library. In a container
        whose first process is this one they are its children by then, and nobody else would take their exit status.
        """
        deadline = time.monotonic() + _RANKS_END_S
        while self._num_ranks > 1 and time.monotonic() < deadline:
            if not self._has_group():
                return
            await asyncio.sleep(_RANKS_POLL_S)
        if self._num_ranks > 1:
            log.error("ranks_left_behind", child=self.name, group=self.pid)

    def send(self, message: msgspec.Struct, fd: int | None = None) -> None:
        """Send a control message; to a process that is gone it goes nowhere, as `wait` will say so."""
        if self._control is None:
            if fd is not None:
                socket.close(fd)
            return
        try:
            self._control.queue(message, fd)
            self._control.flush()
            if self._control.wants_write:
                asyncio.get_running_loop().add_writer(self._control.sock, self._write_more)
        except ChannelFault as fault:
            log.warning("control_channel_failed", child=self.name, reason=str(fault))
            self._close_control()

    def grant(self, end: socket.socket, peer: "Child") -> None:
        """Hand over one end of a link to `peer`."""
        self.send(GrantLink(peer.role, peer.instance, peer.pid, peer.uid), fd=end.detach())

    def kill(self) -> None:
        """End the process, if it is still there, and all ranks of an engine.

        Not by the library's `kill`, which first takes the status of one that has ended just now: then `wait` would give 255.
        """
        if self._process.returncode is not None:
            return
        if self._num_ranks > 1:
            self._kill_group()
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _has_group(self) -> bool:
        is_left = any(map(self._is_of_group, Path("/proc").glob("[0-9]*/stat")))
        with contextlib.suppress(ChildProcessError):  # They are somebody else's children.
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        return is_left

    def _is_of_group(self, stat: Path) -> bool:
        """Whether a process is of our group and has not ended; one that has is there until its parent asks for it."""
        try:
            state, _parent, group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            return False
        return int(group) == self.pid and state not in "ZX"

    def _kill_group(self) -> None:
        """End what the process has started: an engine's other ranks are in its group, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def is_silent(self, now: float) -> bool:
        """True when the main loop has not been heard of for longer than its limit."""
        limit = self._start_timeout_s if self.state == "starting" else self._watchdog_timeout_s
        return now - self.heard_at > limit or (
            self.state == "starting" and now - self.started_at > self._start_timeout_s
        )

    def _read(self) -> None:
        if self._control is None:
            return
        try:
            messages, ended = self._control.receive()
            for message in messages:
                self._handle(message)
        except ChannelFault as fault:
            log.error("control_channel_failed", child=self.name, reason=str(fault))
            self.kill()
            ended = True
        if ended:
            self._close_control()

    def _handle(self, message: Any) -> None:
        self.heard_at = time.monotonic()
        match message:
            case Heartbeat():
                pass
            case Ready():
                self.facts = message.facts
                self.state = "ready"
                self.on_ready(self)
            case LinkLost():
                self.on_link_lost(self, message)
            case CannotStart():
                self.refusal = message.message

    def _write_more(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            control.flush()
        except ChannelFault:
            self._close_control()
            return
        if not control.wants_write:
            asyncio.get_running_loop().remove_writer(control.sock)

    def _close_control(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control.sock)
            loop.remove_writer(self._control.sock)
            self._control.close()
            self._control = None
