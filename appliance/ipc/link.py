"""A link for asyncio processes: send without waiting, receive in order, end at once when the peer ends.

Messages are taken one by one with `receive`, by a task that may wait between two, or handed by `serve` to a function in the very
call that reads them: that spares each a turn of the loop.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from appliance.errors import ChannelFault, LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.introduction import introduce, verify_introduction
from appliance.messages.control import GrantLink, Role

_MAX_WAITING = 4096
"""Messages read and not yet received before reading pauses."""


class Link:
    """One checked connection to a peer. Made by `open_link`; owned by the task that handles it."""

    def __init__(self, sock: socket.socket, own: Role, granted: GrantLink) -> None:
        self.peer_role = granted.role
        self.peer_instance = granted.instance
        self.closed = asyncio.Event()
        self._framed = FramedSocket(sock, EdgeCodec(own, granted.role))
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._fault: ChannelFault | None = None
        self._handle: Callable[[Any], None] | None = None
        self._failure: Exception | None = None
        self._reading = False
        self._writing = False
        self._resume_reading()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message, or buffer it while the peer is busy.

        Raises: LinkClosed when the link has ended, or ends now because the peer left too much unread.
        """
        if self._fault is not None:
            raise LinkClosed(str(self._fault))
        try:
            self._framed.send(message)
        except ChannelFault as fault:
            self._end(fault)
            raise LinkClosed(str(fault)) from fault
        if self._framed.wants_write and not self._writing:
            self._loop.add_writer(self._framed.sock, self._write_more)
            self._writing = True

    async def receive(self) -> Any:
        """The peer's next message, of the edge's union.

        Raises: LinkClosed after the last message, also when the peer broke the protocol.
        """
        while not self._waiting:
            if self._fault is not None:
                raise LinkClosed(str(self._fault)) from self._fault
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        if not self._reading and self._fault is None and len(self._waiting) < _MAX_WAITING // 2:
            self._resume_reading()
        return message

    async def serve(self, handle: Callable[[Any], None]) -> None:
        """Hand every message to `handle` as soon as it is read, until the link ends. No `receive` afterwards.

        Raises: LinkClosed after the last message, also when the peer broke the protocol; whatever `handle` raises, which ends
            the link.
        """
        self._handle = handle
        waiting = list(self._waiting)
        self._waiting.clear()
        if not self._reading and self._fault is None:
            self._resume_reading()
        self._hand_over(handle, waiting)
        await self.closed.wait()
        raise self._failure or LinkClosed(str(self._fault)) from self._fault

    def close(self) -> None:
        """End the link; may be called more than once."""
        self._end(LinkClosed(f"the link to {self.peer_role}/{self.peer_instance} was closed"))

    def _read(self) -> None:
        try:
            messages, ended = self._framed.receive()
        except ChannelFault as fault:
            self._end(fault)
            return
        if self._handle is not None:
            self._hand_over(self._handle, messages)
        else:
            self._waiting.extend(messages)
            self._arrived.set()
            if len(self._waiting) >= _MAX_WAITING and not ended:
                self._loop.remove_reader(self._framed.sock)
                self._reading = False
        if ended:
            self._end(LinkClosed(f"{self.peer_role}/{self.peer_instance} ended the link"))

    def _hand_over(self, handle: Callable[[Any], None], messages: list[Any]) -> None:
        try:
            for message in messages:
                handle(message)
        except Exception as failure:  # noqa: BLE001 - it is the failure of whoever serves this link, and raised there.
            self._failure = failure
            self.close()

    def _resume_reading(self) -> None:
        self._loop.add_reader(self._framed.sock, self._read)
        self._reading = True

    def _write_more(self) -> None:
        try:
            self._framed.flush()
        except ChannelFault as fault:
            self._end(fault)
            return
        if not self._framed.wants_write:
            self._loop.remove_writer(self._framed.sock)
            self._writing = False

    def _end(self, fault: ChannelFault) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        self._loop.remove_reader(self._framed.sock)
        self._loop.remove_writer(self._framed.sock)
        self._framed.close()
        self._arrived.set()
        self.closed.set()


async def open_link(sock: socket.socket, own: Role, own_instance: int, granted: GrantLink) -> Link:
    """Introduce ourselves on a granted socket and check the peer before anything it says is decoded.

    The peer may still be starting, which takes an engine minutes: this waits until it speaks or ends.
    Raises: MalformedMessage if the peer is not who the supervisor said; LinkClosed if it is gone.
    """
    try:
        sock.setblocking(False)
        introduce(sock, own, own_instance)
        await _readable(sock)
        verify_introduction(sock, granted)
        return Link(sock, own, granted)
    except OSError as error:
        sock.close()
        raise LinkClosed(f"{granted.role}/{granted.instance} is gone: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.add_reader(sock, lambda: None if arrived.done() else arrived.set_result(None))
    try:
        await arrived
    finally:
        loop.remove_reader(sock)
