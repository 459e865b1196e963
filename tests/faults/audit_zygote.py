"""A process that forks auditors for the kill test: imports once, so that a round costs milliseconds.

Each command on its standard input's socket is a folder and the sockets of the peers; the answer is the pid of a fresh auditor that
serves them until it is killed. The auditor is the product's own service over the product's own writer and framing; only the
supervisor's control socket is missing.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, name_of
from appliance.auditor.service import AuditorService
from appliance.errors import ChannelFault
from appliance.ipc.edges import EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.control import Role
from audit.append import LogWriter
from audit.reserve import Reserve

ORIGIN = "log.example/kill"


class ServedPeer:
    """One socket of the auditor."""

    def __init__(self, sock: socket.socket, role: Role, instance: int) -> None:
        self.peer_role = role
        self.peer_instance = instance
        self.framed = FramedSocket(sock, EdgeCodec("auditor", role))


def serve(home: Path, peers: list[ServedPeer]) -> None:
    """The auditor's loop."""
    writer = LogWriter(
        home / "log", home / "log.key", origin=ORIGIN, checkpoint_interval_ms=15, segment_bytes=64 * 1024
    )
    clock = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000)
    reserve = Reserve(home / "log/.state/reserve", 64 * 1024, num_files=2)
    service = AuditorService(
        Ledger(writer, reserve, clock),
        lambda peer, message: peer.framed.queue(message),  # type: ignore[attr-defined]
        clock,
        cut=_cut,
        count_wait_s=0.02,
        receipts_kept=500,
        receipt_wait_s=1.0,
    )
    service.start()
    selector = selectors.DefaultSelector()
    for peer in peers:
        selector.register(peer.framed.sock, selectors.EVENT_READ, peer)
        service.link_opened(peer)
    while True:
        for key, _ in selector.select(min(service.wait_s, 0.01)):
            messages, _ = key.data.framed.receive()
            for message in messages:
                service.received(key.data, message)
        service.turn()
        for peer in peers:
            peer.framed.flush()


def _cut(peer: Peer) -> None:
    raise AssertionError(f"a message of {name_of(peer)} could not be handled")


def main() -> None:
    """Fork until the socket ends."""
    control = socket.socket(fileno=0)
    gc.freeze()
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1 << 16, 32)
        if not data:
            return
        command: dict[str, Any] = json.loads(data)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            control.close()
            peers = [
                ServedPeer(socket.socket(fileno=fd), role, i)
                for fd, (role, i) in zip(fds, command["peers"], strict=True)
            ]
            try:
                serve(Path(command["home"]), peers)
            except ChannelFault:
                os._exit(0)
            except BaseException as error:
                sys.stderr.write(f"auditor: {type(error).__name__}: {error}\n")
                os._exit(1)
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        control.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
