"""`casemate audit forward`: sends records to a collector by syslog over TLS, from where it stopped, without gaps.

Syslog has no answers, and that TCP has acknowledged says only that the collector's kernel has the bytes: what its program had not
read when it ended is lost. So records go in *flights*, a connection each: after the last record we close, and wait until the
collector has closed too, which it does when it has read that far, and until TCP says that nothing was left unread. Only then the
flight counts as sent; after anything else it is sent again. Each record so arrives at least once, in order; its index is in the
message.

Each record is led to the signed tree before it is sent, and the root of what was sent is kept with the position: a log that was
told anew meanwhile, or whose files were changed, is not forwarded.

That a collector is given records is itself an event (`log_exported`): once for each run of the command that has something to send.

Source: RFC 5425, section 4.4 (closure); RFC 9293, section 3.6 (a reset is sent where a connection is closed with data unread).
"""

import argparse
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from appliance.cli.audit.announcing import announce_export
from appliance.cli.audit.arguments import (
    KEY_HELP,
    WrongUsage,
    add_folder,
    load_key,
    require_folder,
    set_handler,
)
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import EntryNotFound, LogCorrupted
from audit.merkle import EMPTY_ROOT
from audit.note import VerifierKey
from audit.range_proof import verify_records
from audit.reader import LogReader
from audit.storage import Disk
from audit.syslog import encode_message
from audit.tiles import TILE_WIDTH

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 30.0
CLOSE_POLL_S = 0.005
RETRY_S = 5.0
POLL_S = 1.0
FLIGHT_S = 5.0
"""How long a flight waits for further records; shorter than collectors wait before they close a connection that is idle."""
MAX_FLIGHT_RECORDS = 1 << 14
_TCP_CLOSED = 7
"""The first byte of Linux' `struct tcp_info`: both closes are acknowledged, or the connection was reset."""


def add_forward_commands(commands: Commands) -> None:
    """Add it."""
    forward = add_command(commands, "forward", "send records to a collector by syslog over TLS (RFC 5425)")
    add_folder(forward)
    forward.add_argument("--key", metavar="VKEY", help=f"{KEY_HELP} (default: log.vkey beside the folder)")
    forward.add_argument("--to", metavar="HOST:PORT", required=True, help="the collector; 6514 is the usual port")
    forward.add_argument(
        "--ca", metavar="FILE", type=Path, required=True, help="certificates that the collector's must lead to"
    )
    forward.add_argument(
        "--identity", metavar=("CERTIFICATE", "KEY"), nargs=2, type=Path, help="our own, where it asks for one"
    )
    forward.add_argument("--position", metavar="FILE", type=Path, required=True, help="where it is kept how far we are")
    forward.add_argument("--cef", action="store_true", help="CEF lines instead of the records' own JSON")
    forward.add_argument("--once", action="store_true", help="end when everything under the checkpoint is sent")
    set_handler(forward, _forward)


def _forward(arguments: argparse.Namespace) -> int:
    folder = require_folder(arguments.dir).resolve()
    key = load_key(arguments.key or str(folder.parent / "log.vkey"))
    host, _, port = arguments.to.rpartition(":")
    if not host or not port.isdigit():
        raise WrongUsage(f"--to: expected HOST:PORT, got {arguments.to!r}")
    context = ssl.create_default_context(cafile=str(arguments.ca))
    if arguments.identity is not None:
        context.load_cert_chain(*arguments.identity)
    form = "cef" if arguments.cef else "json"

    def announce(start: int, checkpoint: Checkpoint) -> None:
        facts = {"checkpoint_size": checkpoint.size, "form": form, "receiver": arguments.to, "start": start}
        announce_export(folder, origin=key.name, digest=f"sha256:{checkpoint.root.hex()}", facts=facts)

    forwarder = Forwarder(LogReader(folder), key, arguments.position, as_cef=arguments.cef, announce=announce)
    while True:
        try:
            forwarder.send(lambda: _connect(context, host.strip("[]"), int(port)), is_endless=not arguments.once)
            return EXIT_OK
        except OSError as error:
            if arguments.once:
                reason = f"the collector {arguments.to} did not take all: {error}"
                sys.stderr.write(f"casemate: {reason}; run again, it goes on at record {forwarder.position}\n")
                return EXIT_FAILED
            sys.stderr.write(f"casemate: the collector is away, trying again: {error}\n")
            time.sleep(RETRY_S)


def _connect(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    raw = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    try:
        return context.wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise


class Forwarder:
    """Sends one log to one collector. Owner of the position's file."""

    def __init__(
        self,
        reader: LogReader,
        key: VerifierKey,
        position: Path,
        *,
        as_cef: bool,
        announce: Callable[[int, Checkpoint], None],
    ) -> None:
        """
        Args:
            announce: is told once, before anything leaves, from which record on, and under which signed tree.
        """
        self._reader = reader
        self._key = key
        self._path = position
        self._as_cef = as_cef
        self._announce: Callable[[int, Checkpoint], None] | None = announce
        self._root: bytes | None = None
        """Of the tree of all before the position; None where an earlier release kept none."""
        self.position = self._load()
        """Index of the first record of which it is not known that the collector has read it."""

    def send(self, connect: Callable[[], ssl.SSLSocket], *, is_endless: bool) -> None:
        """Send what is not sent; endlessly, what comes later too.

        Raises: OSError when the collector is gone, after which `send` may be called again; SignatureRejected, LogCorrupted.
        """
        while True:
            if (checkpoint := self._published()).size > self.position:
                if self._announce is not None:
                    self._announce(self.position, checkpoint)
                    self._announce = None
                self._fly(connect, FLIGHT_S if is_endless else 0.0)
            elif is_endless:
                time.sleep(POLL_S)
            else:
                return

    def _fly(self, connect: Callable[[], ssl.SSLSocket], wait_s: float) -> None:
        """One flight: (1) connect, (2) send, (3) close and wait for the collector's close, (4) keep the position."""
        with connect() as connection:
            end, root = self._send_flight(connection, wait_s)
            _close(connection)
        self._keep(end, root)

    def _send_flight(self, connection: ssl.SSLSocket, wait_s: float) -> tuple[int, bytes]:
        """Gives the index behind the last record that was sent, and the root of all before it."""
        deadline_s = time.monotonic() + wait_s
        sent, last = self.position, self.position + MAX_FLIGHT_RECORDS
        while True:
            checkpoint = self._published()
            while sent < min(checkpoint.size, last):
                end = min(checkpoint.size, last, (sent // TILE_WIDTH + 1) * TILE_WIDTH)
                connection.sendall(self._encode(sent, end, checkpoint))
                sent = end
            if sent == last or time.monotonic() >= deadline_s:
                return sent, self._reader.root(sent, checkpoint.size)
            time.sleep(POLL_S)

    def _encode(self, start: int, end: int, checkpoint: Checkpoint) -> bytes:
        """Records of one bundle as messages. Raises: ProofRejected where they do not lead to the signed tree."""
        first, size = start // TILE_WIDTH * TILE_WIDTH, checkpoint.size
        entries = self._reader.read_bundle(start // TILE_WIDTH, size)[start - first : end - first]
        verify_records(
            entries, start, size, checkpoint.root, lambda low, high: self._reader.range_hash(low, high, size)
        )
        return b"".join(encode_message(entry, self._key.name, as_cef=self._as_cef) for entry in entries)

    def _published(self) -> Checkpoint:
        """Raises: LogCorrupted where it does not continue what was sent."""
        try:
            checkpoint = verify_checkpoint(self._reader.checkpoint_note(), [self._key], self._key.name)
        except EntryNotFound:
            checkpoint = Checkpoint(self._key.name, 0, EMPTY_ROOT)
        if checkpoint.size < self.position:
            raise LogCorrupted(
                f"the log has {checkpoint.size} records, {self.position} were sent: it went back to an earlier state"
            )
        if self._root is not None and self._reader.root(self.position, checkpoint.size) != self._root:
            raise LogCorrupted(
                f"the first {self.position} records are others than those that were sent: the log was told anew"
            )
        return checkpoint

    def _load(self) -> int:
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise WrongUsage(f"--position {self._path}: is damaged; remove it to send everything again") from error
        position = document.get("next") if isinstance(document, dict) else None
        # A log keeps its name when it gets another key, and no two logs have one name.
        name = str(document.get("log")).partition("+")[0] if isinstance(document, dict) else ""
        if not isinstance(position, int) or position < 0 or name != self._key.name:
            raise WrongUsage(f"--position {self._path}: is of another log")
        root = document.get("root")
        if root is not None:
            try:
                self._root = bytes.fromhex(root)
            except (ValueError, TypeError) as error:
                raise WrongUsage(f"--position {self._path}: is damaged; remove it to send everything again") from error
        return position

    def _keep(self, position: int, root: bytes) -> None:
        self.position, self._root = position, root
        data = json.dumps({"log": self._key.encode(), "next": position, "root": root.hex()}).encode()
        disk = Disk()
        disk.write_file(self._path, data, self._path.with_name(f"{self._path.name}.tmp"))
        disk.sync_folders([self._path.resolve().parent])


def _close(connection: ssl.SSLSocket) -> None:
    """Close, and wait until it is certain that the collector has read up to that.

    (1) Our close, and the collector's, with a word of TLS or without. Neither tells anything by itself: a collector that closes
    what is idle, or ends, may have done so before it read what was under way. (2) We close TCP as well, and wait until both sides'
    closes are acknowledged. If the collector had closed its socket with anything unread, or before all of it came, its kernel
    answers with a reset instead.
    Raises: OSError where it has not, or does not close.
    """
    connection.settimeout(CLOSE_TIMEOUT_S)
    with suppress(ssl.SSLEOFError):  # (1)
        connection.unwrap()
    connection.shutdown(socket.SHUT_WR)  # (2)
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSED:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the collector does not close the connection within {CLOSE_TIMEOUT_S:.0f} s")
        time.sleep(CLOSE_POLL_S)
    if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, f"the collector closed the connection before it had read all: {os.strerror(number)}")
