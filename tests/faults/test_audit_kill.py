"""SIGKILL at random moments under load: no acknowledged record is lost, moved or changed, and the log stays verifiable.

Three gateways with many requests under way, an engine and a supervisor talk to a real auditor process. It is killed; what it had
acknowledged, down to the last bytes in the sockets, must be in the folder under its index. Then it is started again on it.
"""

import json
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ChannelFault
from appliance.ipc.edges import EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.audit import AppendEvent, AppendRefused, IntentRecorded, Recorded, TicketKey
from appliance.messages.control import Role
from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.entry import encode_event, parse_canonical
from audit.errors import EntryNotFound, KeyUnusable
from audit.events import process_event
from audit.fsck import verify_log
from audit.merkle import verify_consistency
from audit.note import VerifierKey
from audit.reader import LogReader
from audit.signing_key import load_verifier_key
from tests.faults.audit_zygote import ORIGIN
from tests.support.controls import control
from tests.support.waiting import GIVE_UP_S
from tests.unit.appliance.auditor.conftest import count, intent, outcome

ROOT = Path(__file__).parents[2]
PEERS: list[tuple[Role, int]] = [("gateway", 0), ("gateway", 1), ("gateway", 2), ("engine", 0), ("supervisor", 0)]
UNDER_WAY = 12
ROUNDS_A_LOG = 8


class Zygote:
    """The process that forks auditors."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([sys.executable, "-m", "tests.faults.audit_zygote"], stdin=theirs, cwd=ROOT)
        theirs.close()
        self.control.settimeout(60)

    def start(self, home: Path) -> tuple[int, list[socket.socket]]:
        """A fresh auditor: its pid, and our ends of its links."""
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in PEERS]
        command = json.dumps({"home": str(home), "peers": PEERS}).encode()
        socket.send_fds(self.control, [command], [theirs.fileno() for _, theirs in pairs])
        pid = int(self.control.recv(100))
        for _, theirs in pairs:
            theirs.close()
        return pid, [ours for ours, _ in pairs]

    def exit_status(self) -> int:
        """How the last auditor ended; negative for a signal."""
        return int(self.control.recv(100))

    def close(self) -> None:
        """End it."""
        self.control.close()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@dataclass
class Acknowledged:
    """What a killed auditor had answered."""

    records: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Index to kind and request id (or the pid that a supervisor's event names)."""
    checkpoints: list[Checkpoint] = field(default_factory=list)


class Load:
    """The peers: requests from intent to outcome, as fast as they are answered."""

    def __init__(self, home: Path, name: str, socks: list[socket.socket], key: VerifierKey | None) -> None:
        self.home, self.name, self.key = home, name, key
        self.links = {
            peer: FramedSocket(sock, EdgeCodec(peer[0], "auditor")) for peer, sock in zip(PEERS, socks, strict=True)
        }
        self.waiting: dict[tuple[tuple[Role, int], int], tuple[str, str]] = {}
        self.acknowledged = Acknowledged()
        self.number = 0
        self.has_engine = False

    def run(self, num_answers: int) -> None:
        """Load the auditor until it has acknowledged so many records."""
        deadline = time.monotonic() + GIVE_UP_S
        while len(self.acknowledged.records) < num_answers:
            assert time.monotonic() < deadline, "it acknowledges nothing any more"
            self.feed()
            with suppress(ChannelFault):
                for link in self.links.values():
                    link.flush()
            select.select([link.sock for link in self.links.values()], [], [], 0.005)
            self.read()
            if self.number % 7 == 0:
                self.see_checkpoint()

    def feed(self) -> None:
        """Keep requests and events under way."""
        if not self.has_engine:
            return
        for peer in PEERS[:3]:
            for _ in range(UNDER_WAY - sum(1 for waiting, _ in self.waiting if waiting == peer)):
                self.number += 1
                uid = f"{self.name}-{self.number}"
                self.send(peer, intent(uid, self.number), ("inference_intent", uid))
        if not any(peer == ("supervisor", 0) for peer, _ in self.waiting):
            self.number += 1
            event = encode_event(process_event("process_started", role="engine", instance=0, pid=self.number))
            self.send(("supervisor", 0), AppendEvent(self.number, event), ("process_started", str(self.number)))

    def send(self, peer: tuple[Role, int], message: Any, what: tuple[str, str]) -> None:
        self.waiting[peer, message.correlation] = what
        self.links[peer].queue(message)

    def read(self) -> None:
        """Take all answers; to an intent follow counts and outcome."""
        for peer, link in self.links.items():
            messages, _ = link.receive()
            for message in messages:
                self.answer(peer, message)

    def answer(self, peer: tuple[Role, int], message: Any) -> None:
        match message:
            case TicketKey():
                self.has_engine = True
            case IntentRecorded() | Recorded():
                what = self.waiting.pop((peer, message.correlation))
                assert message.index not in self.acknowledged.records, "an index was given out twice"
                self.acknowledged.records[message.index] = what
                if isinstance(message, IntentRecorded):
                    if message.index % 5:  # Every fifth is never counted.
                        self.links["engine", 0].queue(count(message.index))
                    self.number += 1
                    self.send(peer, outcome(message.index, what[1], self.number), ("inference_outcome", what[1]))
            case AppendRefused():
                raise AssertionError(f"refused: {message}")
            case _:
                pass

    def see_checkpoint(self) -> None:
        """What a monitor would have fetched by now."""
        if self.key is not None and (self.home / "log/checkpoint").exists():
            note = (self.home / "log/checkpoint").read_bytes()
            self.acknowledged.checkpoints.append(verify_checkpoint(note, [self.key], ORIGIN))


def verify_survived(home: Path, acknowledged: Acknowledged, earlier: list[Checkpoint]) -> None:
    """Every acknowledged record is there, the folder verifies, and all checkpoints ever seen are prefixes of the log."""
    with suppress(EntryNotFound, KeyUnusable):  # Killed before the first checkpoint, or even the key, was there.
        verified = verify_log(home / "log", load_verifier_key(str(home / "log.vkey")))
        assert verified.checkpoint.size + verified.num_unsigned >= max(acknowledged.records, default=-1) + 1
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    try:
        for index, (kind, name) in acknowledged.records.items():
            record = parse_canonical(writer.read(index))
            own = record["unmapped"]["casemate"]
            assert (own["kind"], own.get("request_uid", str(own.get("pid")))) == (kind, name), f"record {index}"
            assert record["metadata"]["sequence"] == index
        if writer.size:
            writer.publish()
            reader = LogReader(home / "log")
            for seen in (*earlier[-20:], *acknowledged.checkpoints[-20:]):
                proof = reader.prove_consistency(seen.size, writer.checkpoint.size)
                verify_consistency(seen.size, writer.checkpoint.size, proof, seen.root, writer.checkpoint.root)
    finally:
        writer.close()


def kill_rounds(zygote: Zygote, folder: Path, rounds: int, seed: int) -> int:
    """Kill so often; gives the number of acknowledged records."""
    chance = random.Random(seed)
    total = 0
    checkpoints: list[Checkpoint] = []
    home = folder
    for number in range(rounds):
        if number % ROUNDS_A_LOG == 0:
            home, checkpoints = folder / str(number), []
            home.mkdir()
        pid, socks = zygote.start(home)
        key = load_verifier_key(str(home / "log.vkey")) if (home / "log.vkey").exists() else None
        load = Load(home, f"r{number}", socks, key)
        load.run(chance.choice((0, chance.randrange(20), chance.randrange(300))))
        time.sleep(chance.choice((0, chance.uniform(0, 0.02))))
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)], check=True)
        assert zygote.exit_status() == -signal.SIGKILL
        load.read()  # What it had sent before it died was acknowledged too.
        for sock in socks:
            sock.close()
        verify_survived(home, load.acknowledged, checkpoints)
        checkpoints += load.acknowledged.checkpoints
        total += len(load.acknowledged.records)
    return total


@control("3.3.1", "3.13.2", "SC-24", "Article 12(1)")
def test_no_acknowledged_record_is_lost_by_sigkill(zygote: Zygote, tmp_path: Path) -> None:
    """Forty kills at random moments, several in a row on the same log, in recovery and in publication too."""
    total = kill_rounds(zygote, tmp_path, 40, seed=20_261_123)
    print(f"{total} acknowledged records survived 40 kills")
    assert total > 1_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_no_acknowledged_record_is_lost_by_many_sigkills(zygote: Zygote, tmp_path: Path) -> None:
    """Six hundred kills."""
    assert kill_rounds(zygote, tmp_path, 600, seed=int(time.time())) > 15_000
