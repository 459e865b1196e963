"""The supervisor's rounds: an address that answers stops serving; a changed file on the disk is told."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.config import parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR, default_configuration
from appliance.supervisor.lifecycle import LifecycleRecorder
from appliance.supervisor.rounds import HostRounds, verify_on_disk
from audit.entry import parse_canonical
from security.errors import ModelFolderRejected
from security.model_signing.algorithms import ALGORITHMS
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from tests.support.controls import control
from tests.support.stewardship import Stewardship


class Recorder(LifecycleRecorder):
    """Keeps the kinds of what it is given, and says later that it is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.threads: set[int] = set()
        self.waiting: list[Callable[[], None]] = []
        self.is_told = asyncio.Event()

    def record(self, event: bytes, on_recorded: Callable[[], None] | None = None) -> None:
        self.threads.add(threading.get_ident())
        self.kinds.append(parse_canonical(event)["unmapped"]["casemate"]["kind"])
        if on_recorded is not None:
            self.waiting.append(on_recorded)
            self.is_told.set()


@control("3.1.3", "3.1.20", "3.12.3", "AC-4", "AC-20", "AC-20(1)", "SC-7(18)", "SI-4(4)", "SI-4(5)", "SI-6", "SI-7(5)")
async def test_address_that_answers_stops_serving(tmp_path: Path) -> None:
    """The reason names it, and only when the record of it is durable: a stop would end an auditor that is still starting."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        probe = f"127.0.0.1:{listening.getsockname()[1]}"
        text = f'[segments]\nprobes = ["{probe}"]\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
        recorder, reasons = Recorder(), list[str]()
        rounds = HostRounds(parse_configuration(text.encode(), tmp_path), recorder, reasons.append)
        testing = asyncio.create_task(rounds._test_egress())
        await recorder.is_told.wait()
        assert (recorder.kinds, reasons) == (["egress_open"], [])
        recorder.waiting[0]()
        await testing
    assert probe in reasons[0]


async def test_log_that_cannot_be_written_does_not_keep_serving(tmp_path: Path) -> None:
    """The stop waits for its record, and not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = f'[segments]\nprobes = ["127.0.0.1:{listening.getsockname()[1]}"]\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
        reasons = list[str]()
        configuration = parse_configuration(text.encode(), tmp_path)
        await HostRounds(configuration, Recorder(), reasons.append, recorded_within_s=0.0)._test_egress()
    assert len(reasons) == 1


async def test_without_probes_nothing_is_tried(tmp_path: Path) -> None:
    """A clone connects to nobody."""
    configuration, _ = default_configuration(DEMO_MODEL_DIR, "tiny", tmp_path)
    recorder, reasons = Recorder(), list[str]()
    await HostRounds(configuration, recorder, reasons.append)._test_egress()
    assert (recorder.kinds, reasons) == ([], [])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@control("3.12.3", "3.14.5", "CM-6(2)", "SI-6", "SI-7(1)", "SI-7(2)")
async def test_changed_file_on_the_disk_is_told(algorithm: str, tmp_path: Path) -> None:
    """While it is served from memory, somebody changes weights or licence: the round finds it, the loop's own thread records it.

    Weights are hashed by BLAKE3 in either case: by the signature's own digests, or by load digests.
    """
    people, store = Stewardship(), ModelStore(tmp_path / "models")
    people.establish(tmp_path)
    source = Source(DEMO_MODEL_DIR, "tiny", "made here", "Apache-2.0", algorithm=algorithm)
    item = import_model(source, store, people.roles, people.signer("ines"), ()).item
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    promote_model(store, item, people.roles)
    configuration, _ = default_configuration(store.path_of("tiny"), "tiny", tmp_path)
    assert verify_on_disk(configuration, store.path_of("tiny")) == f"sha256:{item.root}"
    assert verify_on_disk(configuration, DEMO_MODEL_DIR) is None
    weights = store.path_of("tiny") / "model.safetensors"
    weights.chmod(0o644)
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(ModelFolderRejected, match=r"model\.safetensors: changed: BLAKE3"):
        verify_on_disk(configuration, store.path_of("tiny"))
    weights.write_bytes(kept)
    path = store.path_of("tiny") / "README.md"
    path.chmod(0o644)
    path.write_text("another licence")
    with pytest.raises(ModelFolderRejected, match=r"README\.md: changed"):
        verify_on_disk(configuration, store.path_of("tiny"))
    recorder = Recorder()
    await HostRounds(configuration, recorder, lambda _reason: None)._verify_model(store.path_of("tiny"), "tiny")
    assert recorder.kinds == ["model_verification_failed"]
    assert recorder.threads == {threading.get_ident()}
