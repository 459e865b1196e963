"""`casemate audit forward`: sends records to a collector by syslog over TLS, from where it stopped, without gaps.

Syslog has no answers. So a position is kept as sent only when the peer's TCP has acknowledged every byte up to it; what was on
the way when a connection broke is sent again. Each record so arrives at least once, in order; its index is in the message.

Source: RFC 5425.
"""

import argparse
import array
import fcntl
import json
import socket
import ssl
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from appliance.cli.audit.arguments import (
    KEY_HELP,
    WrongUsage,
    add_folder,
    load_key,
    require_folder,
    set_handler,
)
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from audit.checkpoint import verify_checkpoint
from audit.errors import EntryNotFound, LogCorrupted
from audit.note import VerifierKey
from audit.reader import LogReader
from audit.storage import Disk
from audit.syslog import encode_message
from audit.tiles import TILE_WIDTH

CONNECT_TIMEOUT_S = 10.0
ACKNOWLEDGE_TIMEOUT_S = 30.0
RETRY_S = 5.0
POLL_S = 1.0


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
    forwarder = Forwarder(LogReader(folder), key, arguments.position, as_cef=arguments.cef)
    while True:
        try:
            forwarder.send(lambda: _connect(context, host.strip("[]"), int(port)), is_endless=not arguments.once)
            return EXIT_OK
        except OSError as error:
            if arguments.once:
                raise
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

    def __init__(self, reader: LogReader, key: VerifierKey, position: Path, *, as_cef: bool) -> None:
        self._reader = reader
        self._key = key
        self._path = position
        self._as_cef = as_cef
        self.position = self._load()
        """Index of the first record that the collector has not acknowledged."""

    def send(self, connect: Callable[[], socket.socket], *, is_endless: bool) -> None:
        """Send what is not sent, over one connection.

        Raises: OSError when the collector is gone; SignatureRejected, LogCorrupted.
        """
        with connect() as connection:
            while True:
                size = self._published_size()
                if size < self.position:
                    raise LogCorrupted(
                        f"the log has {size} records, {self.position} were sent: it went back to an earlier state"
                    )
                while self.position < size:
                    end = min(size, (self.position // TILE_WIDTH + 1) * TILE_WIDTH)
                    connection.sendall(self._encode(self.position, end, size))
                    _await_acknowledged(connection)
                    self._keep(end)
                if not is_endless:
                    return
                time.sleep(POLL_S)

    def _encode(self, start: int, end: int, size: int) -> bytes:
        entries = self._reader.read_bundle(start // TILE_WIDTH, size)
        first = start // TILE_WIDTH * TILE_WIDTH
        return b"".join(
            encode_message(entry, self._key.name, as_cef=self._as_cef) for entry in entries[start - first : end - first]
        )

    def _published_size(self) -> int:
        try:
            return verify_checkpoint(self._reader.checkpoint_note(), [self._key], self._key.name).size
        except EntryNotFound:
            return 0

    def _load(self) -> int:
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise WrongUsage(f"--position {self._path}: is damaged; remove it to send everything again") from error
        position = document.get("next") if isinstance(document, dict) else None
        if not isinstance(position, int) or position < 0 or document.get("log") != self._key.encode():
            raise WrongUsage(f"--position {self._path}: is of another log")
        return position

    def _keep(self, position: int) -> None:
        self.position = position
        data = json.dumps({"log": self._key.encode(), "next": position}).encode()
        disk = Disk()
        disk.write_file(self._path, data, self._path.with_name(f"{self._path.name}.tmp"))
        disk.sync_folders([self._path.resolve().parent])


def _await_acknowledged(connection: socket.socket) -> None:
    """Wait until the peer's TCP has acknowledged every byte (SIOCOUTQ, tcp(7)).

    Raises: OSError when the connection broke, or after ACKNOWLEDGE_TIMEOUT_S.
    """
    deadline_s = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
    unsent = array.array("i", [0])
    while True:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, unsent)
        if (error := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) != 0:
            raise OSError(error, "the connection broke")
        if unsent[0] == 0:
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError("the collector acknowledges nothing")
        time.sleep(0.005)
