"""A Hypothesis state machine over the auditor's rules: peers come, go, lie and repeat themselves; the auditor dies and returns.

What must hold, whatever they do: each question is answered exactly once while its link lives; an answer names a durable record of
what was asked; every intent has at most one outcome, and exactly one once all gateways are gone; the folder verifies.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from appliance.messages.audit import AppendEvent, AppendRefused, FetchReceipt, IntentRecorded, Receipt, Recorded
from audit.entry import encode_event
from audit.events import process_event
from audit.fsck import verify_log
from audit.storage import Disk
from tests.unit.appliance.auditor.conftest import Auditor, FakePeer, count, intent, outcome


class UnsyncedDisk(Disk):
    """What is written is there for whoever starts next, as long as only processes die."""

    def sync(self, fd: int, path: Path) -> None:
        """Wait for nothing."""

    def sync_folders(self, paths: object) -> None:
        """Wait for nothing."""


ROLES = st.sampled_from(["gateway", "gateway", "engine", "supervisor", "authority", "policy"])


class ServiceMachine(RuleBasedStateMachine):
    """The service, its peers, and what each of them still waits for."""

    @initialize()
    def start(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.auditor = Auditor(self.home, UnsyncedDisk())
        self.peers: list[FakePeer] = []
        self.questions: dict[tuple[int, int], str] = {}
        self.number = 0

    @rule(role=ROLES, instance=st.integers(0, 2))
    def connect(self, role: Any, instance: int) -> None:
        if all((peer.peer_role, peer.peer_instance) != (role, instance) for peer in self.peers):
            self.peers.append(self.auditor.connect(role, instance))

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.peers))
        self.peers.remove(peer)
        self.questions = {key: kind for key, kind in self.questions.items() if key[0] != id(peer)}
        self.auditor.service.link_ended(peer)

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), engine=st.integers(0, 2), reused=st.booleans(), broken=st.booleans())
    def ask_intent(self, data: st.DataObject, engine: int, reused: bool, broken: bool) -> None:
        uid = "req-again" if reused else f"req-{self.number}"
        message = intent(uid, engine_instance=engine)
        if broken:
            message = msgspec.structs.replace(
                message, event=message.event[: data.draw(st.integers(0, len(message.event)))]
            )
        self.ask(data, message, "intent")

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), index=st.integers(0, 60))
    def ask_outcome(self, data: st.DataObject, index: int) -> None:
        open_intents = self.auditor.service._book.open
        chosen = data.draw(st.sampled_from(sorted(open_intents))) if open_intents and index % 4 else index
        uid = open_intents[chosen].request_uid if chosen in open_intents else "req-0"
        self.ask(data, outcome(chosen, uid), "outcome")

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def ask_event(self, data: st.DataObject) -> None:
        event = encode_event(process_event("process_started", role="engine", instance=0, pid=1))
        self.ask(data, AppendEvent(0, event), "event")

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), uid=st.integers(0, 40))
    def ask_receipt(self, data: st.DataObject, uid: int) -> None:
        self.ask(data, FetchReceipt(0, f"req-{uid}", "demo"), "receipt")

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), index=st.integers(-1, 60), output_tokens=st.integers(-1, 9))
    def tell_counts(self, data: st.DataObject, index: int, output_tokens: int) -> None:
        self.auditor.service.received(data.draw(st.sampled_from(self.peers)), count(index, output_tokens))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.6, 1.1, 4.0]))
    def turn(self, seconds: float) -> None:
        self.auditor.pass_time(seconds)
        self.take_answers()

    @rule()
    def die_and_return(self) -> None:
        self.auditor.die()
        self.peers, self.questions = [], {}
        now_s, utc_ms = self.auditor.now_s, self.auditor.utc_ms
        self.auditor = Auditor(self.home, UnsyncedDisk())
        self.auditor.now_s, self.auditor.utc_ms = max(now_s, self.auditor.now_s), utc_ms

    def ask(self, data: st.DataObject, message: Any, kind: str) -> None:
        peer = data.draw(st.sampled_from(self.peers))
        self.number += 1
        self.questions[id(peer), self.number] = kind
        self.auditor.service.received(peer, msgspec.structs.replace(message, correlation=self.number))

    def take_answers(self) -> None:
        wanted = {"intent": IntentRecorded, "outcome": Recorded, "event": Recorded, "receipt": Receipt}
        recorded = {"intent": "inference_intent", "outcome": "inference_outcome", "event": "process_started"}
        for peer in self.peers:
            for answer in peer.take(IntentRecorded, Recorded, Receipt, AppendRefused):
                kind = self.questions.pop((id(peer), answer.correlation))
                if isinstance(answer, AppendRefused):
                    continue
                assert isinstance(answer, wanted[kind])
                if kind != "receipt":
                    record = msgspec.json.decode(self.auditor.writer.read(answer.index))
                    assert record["unmapped"]["casemate"]["kind"] == recorded[kind]
                    assert record["metadata"]["reporter"]["name"] == f"{peer.peer_role}/{peer.peer_instance}"

    def teardown(self) -> None:
        if not hasattr(self, "auditor"):
            return
        for _ in range(3):
            self.auditor.pass_time(4.0)
            self.take_answers()
        assert self.questions == {}, "somebody was never answered"
        for peer in self.peers[:]:
            self.auditor.service.link_ended(peer)
        for _ in range(3):
            self.auditor.pass_time(4.0)
        assert self.auditor.service.num_open == len(self.auditor.service._outcomes._timed) == 0
        kinds: dict[str, list[int]] = {"inference_intent": [], "inference_outcome": []}
        for index, record in enumerate(self.auditor.records()):
            own = record["unmapped"]["casemate"]
            if own["kind"] in kinds:
                kinds[own["kind"]].append(own.get("intent_index", index))
        assert sorted(kinds["inference_outcome"]) == kinds["inference_intent"]
        self.auditor.service.stop()
        self.auditor.die()
        assert verify_log(self.home / "log", self.auditor.writer.key).num_unsigned == 0
        shutil.rmtree(self.home)


TestServiceMachine = ServiceMachine.TestCase
TestServiceMachine.settings = settings(max_examples=40, stateful_step_count=40)
