"""Forwarding to a collector over TLS: everything in order, at least once, over broken connections and new lives."""

import array
import datetime
import fcntl
import json
import socket
import ssl
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from appliance.cli.audit.forwarding import _close
from appliance.cli.caller import actor
from appliance.cli.main import main
from appliance.models.places import open_outbox
from appliance.supervisor.notices import encode_notice
from audit.append import LogWriter
from audit.entry import parse_canonical
from audit.note import NoteSigner
from tests.support.controls import control
from tests.support.waiting import wait_until
from tests.unit.audit.test_audit_index import Log


def make_identity(folder: Path) -> Path:
    """A self-signed certificate for localhost, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / "collector.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return path


def unread_bytes(connection: socket.socket) -> int:
    """How much the kernel holds for us."""
    found = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, found)
    return found[0]


class Collector:
    """Takes connections one after the other; breaks each after so many bytes, if told to."""

    def __init__(self, identity: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.port = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self.break_after: int | None = None
        self.break_when_full = False
        """Read a little, wait until the kernel holds all the rest, end without reading it."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    data = b""
                    while chunk := connection.recv(1 << 16):
                        data += chunk
                        if self.break_when_full:
                            wait_until(lambda: unread_bytes(connection) > 300_000)
                            break
                        if self.break_after is not None and len(data) > self.break_after:
                            break
                    self.received.append(data)
            except OSError:
                if self._listener.fileno() < 0:
                    return

    def indices(self) -> list[int]:
        """Of every whole message, in the order of arrival."""
        found = []
        for data in self.received:
            while data:
                length, _, rest = data.partition(b" ")
                if not length.isdigit() or len(rest) < int(length):
                    break
                message, data = rest[: int(length)], rest[int(length) :]
                found.append(int(message.split(b'index="')[1].split(b'"')[0]))
        return found

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._thread.join(timeout=10)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    collector = Collector(make_identity(tmp_path))
    yield collector
    collector.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    log.grow(600)
    yield log
    log.writer.close()


def forward(log: Log, collector: Collector, *more: str) -> int:
    words = ["audit", "forward", "--dir", str(log.home / "log"), "--to", f"localhost:{collector.port}", "--once"]
    return main([*words, "--ca", str(log.home / "collector.pem"), "--position", str(log.home / "position"), *more])


@control("3.3.5", "AC-2(12)", "AU-4(1)", "AU-6(1)", "AU-6(3)", "AU-6(5)", "AU-9(2)", "SI-4(2)", "Article 19(1)")
def test_everything_is_sent_once_and_the_next_run_goes_on(log: Log, collector: Collector) -> None:
    """In order; what was sent is not sent again."""
    assert forward(log, collector) == 0
    log.grow(50)
    assert forward(log, collector) == 0
    assert forward(log, collector, "--cef") == 0
    collector.close()
    assert collector.indices() == list(range(650))


@control("3.3.5", "AU-4(1)", "AU-6(1)", "AU-6(3)")
def test_a_broken_connection_loses_nothing(log: Log, collector: Collector) -> None:
    """What the collector did not take comes again: at least once, no gap."""
    collector.break_after = 150_000
    ended = [forward(log, collector) for _ in range(2)]
    collector.break_after = None
    assert forward(log, collector) == 0
    collector.close()
    indices = collector.indices()
    assert sorted(set(indices)) == list(range(600))
    assert ended[0] in (0, 1)


@control("3.3.5", "AU-4(1)", "AU-6(1)", "AU-6(3)")
def test_what_the_collector_did_not_read_comes_again(
    log: Log, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kernel had acknowledged every byte when it ended after the first few messages: none of the rest may be missing."""
    collector.break_when_full = True
    assert forward(log, collector) == 1
    assert "did not take all: " in (said := capsys.readouterr().err)
    assert "it goes on at record 0" in said
    collector.break_when_full = False
    assert forward(log, collector) == 0
    assert forward(log, collector) == 0
    collector.close()
    indices = collector.indices()
    assert 0 < len(indices) - 600 < 50
    assert sorted(set(indices)) == list(range(600))


class Unencrypted(socket.socket):
    """Our end of a connection, without TLS; the collector closes without a word of it."""

    def unwrap(self) -> None:
        assert self.recv(1) == b""
        raise ssl.SSLEOFError


@pytest.mark.parametrize("how", ["reads all", "ends with some unread", "ended before it came"])
@control("3.3.5", "AU-4(1)", "AU-6(1)", "AU-6(3)")
def test_a_close_counts_only_where_nothing_was_left_unread(how: str) -> None:
    """That the collector closed is seen in all three cases alike; only a reset, which may come behind it, tells them apart."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Unencrypted() as ours:
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        if how == "ended before it came":
            theirs.close()
            ours.sendall(b"records")
        else:
            ours.sendall(b"records")
            assert how == "ends with some unread" or theirs.recv(100) == b"records"
            theirs.shutdown(socket.SHUT_RDWR)
            theirs.close()
        if how == "reads all":
            _close(ours)  # type: ignore[arg-type]
        else:
            with pytest.raises(OSError, match=r"before it had read all|not connected"):
                _close(ours)  # type: ignore[arg-type]


@control("3.13.8", "AU-6(1)", "SC-8", "SC-8(1)")
def test_a_collector_with_another_certificate_gets_nothing(log: Log, collector: Collector, tmp_path: Path) -> None:
    """Nor one that is away."""
    (tmp_path / "other").mkdir()
    make_identity(tmp_path / "other")
    words = ["audit", "forward", "--dir", str(log.home / "log"), "--once", "--position", str(log.home / "position")]
    assert main([*words, "--to", f"localhost:{collector.port}", "--ca", str(tmp_path / "other" / "collector.pem")]) == 1
    assert main([*words, "--to", "localhost:9", "--ca", str(log.home / "collector.pem")]) == 1
    assert not (log.home / "position").exists()


def test_a_log_that_went_back_is_not_forwarded(
    log: Log, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """More was sent than there is; and a position of another log is not taken."""
    position = {"log": log.writer.key.encode(), "next": 900}
    (log.home / "position").write_text(json.dumps(position))
    assert forward(log, collector) == 1
    assert "went back" in capsys.readouterr().err
    (log.home / "position").write_text(json.dumps(position | {"log": "other"}))
    assert forward(log, collector) == 2


@control("AU-9", "3.3.8")
def test_a_log_that_was_told_anew_is_not_forwarded(
    log: Log, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the same key, and longer than what was sent: only the root of that shows it."""
    assert forward(log, collector) == 0
    for name in ("log", "position", "collector.pem"):
        (log.home / name).rename(log.home / f"kept-{name}")
    writer = LogWriter(log.home / "log", log.home / "other.key", origin=log.writer.key.name)
    writer.append([b'{"metadata":{"sequence":%d},"time":1}' % index for index in range(700)])
    writer.commit()
    writer.publish()
    writer.close()
    (log.home / "kept-position").rename(log.home / "position")
    (log.home / "kept-collector.pem").rename(log.home / "collector.pem")
    assert forward(log, collector, "--key", str(log.home / "other.vkey")) == 1
    assert "the first 600 records are others than those that were sent" in capsys.readouterr().err


@control("AU-9", "AU-10", "3.3.8")
def test_a_record_that_was_changed_on_the_disk_is_not_forwarded(
    log: Log, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint's signature is good, and says nothing about what lies in a bundle."""
    bundle = log.home / "log" / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"client-ada", b"client-eve", 1))
    assert forward(log, collector) == 1
    assert "does not lead to the root" in capsys.readouterr().err
    collector.close()
    assert max(collector.indices(), default=0) < 256


@control("SC-12")
def test_a_log_with_another_key_is_forwarded_from_where_it_was(log: Log, collector: Collector) -> None:
    """The position is the log's, by its name, whichever of its keys signed then."""
    other = NoteSigner(log.writer.key.name, Ed25519PrivateKey.generate()).key
    (log.home / "position").write_text(json.dumps({"log": other.encode(), "next": log.writer.size - 1}))
    assert forward(log, collector) == 0
    assert json.loads((log.home / "position").read_text())["next"] == log.writer.size


@control("3.3.2", "AU-2", "AU-12")
def test_that_records_go_to_a_collector_is_left_for_the_log_before_they_do(
    tmp_path: Path, collector: Collector
) -> None:
    """On an installation: who, to where, from which record on. Not where nothing is to be sent; and nothing is sent without it."""
    state = tmp_path / "state"
    log = Log(state / "audit")
    log.grow(20)
    words = ["audit", "forward", "--dir", str(state / "audit" / "log"), "--to", f"localhost:{collector.port}", "--once"]
    words += ["--ca", str(tmp_path / "collector.pem"), "--position", str(tmp_path / "position")]
    (state / "outbox").write_text("in its place")
    assert main(words) != 0
    (state / "outbox").unlink()
    assert [main(words), main(words)] == [0, 0]
    ((_, notice),) = open_outbox(state).waiting()
    assert (notice.kind, notice.name, notice.actor) == ("log_exported", log.writer.key.name, actor())
    assert notice.digest == f"sha256:{log.writer.checkpoint.root.hex()}"
    told = {"checkpoint_size": 20, "form": "json", "receiver": f"localhost:{collector.port}", "start": 0}
    assert notice.facts == told
    event = parse_canonical(encode_notice(notice) or b"")
    assert told.items() <= event["unmapped"]["casemate"].items()
    collector.close()
    assert collector.indices() == list(range(20))
    log.writer.close()


def test_exports_by_command(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made, verified, recorded; wrong usage told apart."""
    words = [
        "audit",
        "export",
        str(tmp_path / "out"),
        "--dir",
        str(log.home / "log"),
        "--from",
        "10",
        "--to",
        "20",
        "--form",
        "csv",
    ]
    assert main(words) == 0
    assert main(words) == 2, "the folder exists"
    vkey = log.writer.key.encode()
    assert main(["audit", "verify-export", str(tmp_path / "out"), "--key", vkey]) == 0
    assert "verified: every record" in capsys.readouterr().out
    (tmp_path / "out" / "records.csv").write_text("x")
    assert main(["audit", "verify-export", str(tmp_path / "out"), "--key", vkey]) == 1
    assert main([*words[:2], str(tmp_path / "new"), *words[3:], "--sign-as", "x"]) == 2
