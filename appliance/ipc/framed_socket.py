"""One non-blocking Unix socket that carries messages, and on the control socket file descriptors as well.

It knows no event loop: `link`, `processes.polling`, the supervisor and the members drive it. Writes are buffered up to a bound;
a peer that does not read loses the connection, never the process.
"""

import array
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any, Protocol

import msgspec

from appliance.errors import LinkClosed
from appliance.ipc.frames import FrameDecoder, encode_frame

MAX_BUFFERED_BYTES = 64 << 20
_READ_BYTES = 256 << 10
_MAX_READS = 16
"""Reads in one call, so that one busy peer does not starve the others."""
_MAX_FDS = 8
_MAX_GATHERED = 256


class Codec(Protocol):
    """Turns messages into bytes and back; `decode` raises MalformedMessage."""

    @property
    def encode(self) -> Callable[[msgspec.Struct], bytes]:
        """Gives a message's bytes, without the frame."""
        ...

    def decode(self, payload: bytes) -> Any:
        """The message. Raises: MalformedMessage."""
        ...


class FramedSocket:
    """Owner of one connected socket. After an exception from any method the only valid call is `close`.

    Args:
        takes_fds: file descriptors may come with messages; otherwise the kernel drops those that a peer sends.
    """

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec,
        *,
        takes_fds: bool = False,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._takes_fds = takes_fds
        self._incoming = memoryview(bytearray(_READ_BYTES))
        """Read into for ever: a new block of this size costs more than what is read, mostly some hundred bytes."""
        self._codec = codec
        self._decoder = FrameDecoder()
        self._outgoing: deque[tuple[bytes | memoryview, int | None]] = deque()
        self._buffered_bytes = 0
        self._max_buffered_bytes = max_buffered_bytes
        self._received_fds: deque[int] = deque()

    @property
    def wants_write(self) -> bool:
        """True while something waits for the peer to read."""
        return bool(self._outgoing)

    def queue(self, message: msgspec.Struct, fd: int | None = None) -> None:
        """Buffer one message; `fd` travels with it and is closed here once it is sent.

        Raises: LinkClosed when the peer has left more than the bound unread.
        """
        frame = encode_frame(self._codec.encode(message))
        if self._buffered_bytes + len(frame) > self._max_buffered_bytes:
            raise LinkClosed(f"the peer left {self._buffered_bytes} bytes unread")
        self._outgoing.append((frame, fd))
        self._buffered_bytes += len(frame)

    def send(self, message: msgspec.Struct) -> None:
        """`queue`, and `flush` unless something waits already: nearly always the message goes into the socket from here.

        Raises: LinkClosed, as both do.
        """
        if self._outgoing:
            self.queue(message)
            return
        frame = encode_frame(self._codec.encode(message))
        num_bytes = len(frame)
        if num_bytes > self._max_buffered_bytes:
            raise LinkClosed(f"a message of {num_bytes} bytes is more than may wait for the peer")
        try:
            sent = self.sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LinkClosed(f"the peer is gone: {error.strerror}") from error
        if sent < num_bytes:
            self._outgoing.append((memoryview(frame)[sent:], None))
            self._buffered_bytes = num_bytes - sent

    def flush(self) -> None:
        """Write what the socket takes now.

        Raises: LinkClosed when the peer is gone.
        """
        while self._outgoing:
            try:
                sent = self._send_some()
            except BlockingIOError:
                return
            except OSError as error:
                raise LinkClosed(f"the peer is gone: {error.strerror}") from error
            self._forget_sent(sent)

    def _send_some(self) -> int:
        """One system call for many small messages; a file descriptor goes with the first byte of its own."""
        data, fd = self._outgoing[0]
        if fd is None and len(self._outgoing) == 1:
            return self.sock.send(data)
        if fd is None:
            gathered = takewhile(lambda waiting: waiting[1] is None, islice(self._outgoing, _MAX_GATHERED))
            return self.sock.sendmsg([frame for frame, _ in gathered])
        sent = socket.send_fds(self.sock, [data], [fd])
        socket.close(fd)
        self._outgoing[0] = (data, None)
        return sent

    def _forget_sent(self, num_bytes: int) -> None:
        self._buffered_bytes -= num_bytes
        if not self._buffered_bytes:
            self._outgoing.clear()
            return
        while num_bytes:
            data, _ = self._outgoing[0]
            if num_bytes < len(data):
                self._outgoing[0] = (memoryview(data)[num_bytes:], None)
                return
            num_bytes -= len(data)
            self._outgoing.popleft()

    def receive(self) -> tuple[list[Any], bool]:
        """Read and decode what is there, without waiting.

        Returns: the messages, and whether the peer is known to have ended the stream after them; if not, the next call tells.
        Raises: MalformedMessage when the peer breaks the protocol.
        """
        messages: list[Any] = []
        decode, takes_fds = self._codec.decode, self._takes_fds
        for _ in range(_MAX_READS):
            try:
                num_bytes = self._read_with_fds() if takes_fds else self.sock.recv_into(self._incoming)
            except BlockingIOError:
                return messages, False
            except OSError:
                return messages, True
            if not num_bytes:
                return messages, True
            messages += map(decode, self._decoder.feed(self._incoming[:num_bytes]))
            if num_bytes < _READ_BYTES and not takes_fds:
                break  # That was all; or what is left is seen at the next call, as is the stream's end.
        return messages, False

    def _read_with_fds(self) -> int:
        """Read bytes, and keep the file descriptors that came with them. `recv_fds` would drop the close-on-exec flag."""
        size = array.array("i").itemsize
        num_bytes, ancillary, _flags, _address = self.sock.recvmsg_into(
            [self._incoming], socket.CMSG_SPACE(_MAX_FDS * size), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % size])
                self._received_fds.extend(fds)
        return num_bytes

    def take_fd(self) -> int:
        """The file descriptor of the oldest message that carried one and was not yet taken.

        Raises: LinkClosed if none came: the peer announced what it did not send.
        """
        if not self._received_fds:
            raise LinkClosed("a message announced a file descriptor and none came with it")
        return self._received_fds.popleft()

    def close(self) -> None:
        """Close the socket and every file descriptor that was not taken or sent."""
        for _data, fd in self._outgoing:
            if fd is not None:
                socket.close(fd)
        self._outgoing.clear()
        while self._received_fds:
            socket.close(self._received_fds.popleft())
        self.sock.close()
