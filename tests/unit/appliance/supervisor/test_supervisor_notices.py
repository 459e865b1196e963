"""Notices of commands become records, each removed when its record is durable."""

from pathlib import Path

import pytest

from appliance.supervisor.lifecycle import LifecycleRecorder
from appliance.supervisor.notices import NoticeCarrier, encode_notice
from audit.entry import parse_canonical
from audit.formats import flatten
from audit.permissions import verify_permitted
from security.stewards.outbox import Notice, Outbox
from tests.support.controls import control


class Recorder(LifecycleRecorder):
    """Takes events, and says that they are durable when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[bytes, object]] = []

    def record(self, event: bytes, on_recorded: object = None) -> None:
        self.taken.append((event, on_recorded))


def test_notice_is_recorded_once_and_kept_until_it_is_durable(tmp_path: Path) -> None:
    """A second look does not send it again; a carrier of a later life does."""
    outbox, recorder = Outbox(tmp_path), Recorder()
    outbox.put("model_promoted", name="tiny", digest="sha256:00", actor="os:ops", facts={"approved_by": "ada, bob"})
    carrier = NoticeCarrier(outbox, recorder)
    carrier.carry()
    carrier.carry()
    assert len(recorder.taken) == 1
    event = parse_canonical(recorder.taken[0][0])
    assert event["unmapped"]["casemate"]["kind"] == "model_promoted"
    assert event["actor"]["user"]["name"] == "os:ops"
    assert len(list(tmp_path.iterdir())) == 1
    NoticeCarrier(outbox, recorder).carry()
    assert len(recorder.taken) == 2
    done = recorder.taken[0][1]
    assert callable(done)
    done()
    assert list(tmp_path.iterdir()) == []


@control("AU-3", "AU-10", "3.3.2")
@pytest.mark.parametrize(
    "kind", ["model_promoted", "segments_applied", "log_exported", "key_rotated", "hash_looked_up"]
)
def test_who_ran_a_command_is_found_by_one_name(kind: str) -> None:
    """In the place where searches, exports and reports look, whatever the command."""
    event = encode_notice(Notice(kind, "n", "sha256:00", "os:root", 5, {"facts": "f"}))
    assert event is not None
    record = parse_canonical(event)
    verify_permitted("supervisor", "event", record)
    assert flatten(record)["actor"] == "os:root"


def test_notice_of_another_kind_is_not_sent(tmp_path: Path) -> None:
    """Whoever can write there cannot invent that somebody asked a model."""
    outbox, recorder = Outbox(tmp_path), Recorder()
    outbox.put("inference_intent", name="tiny", digest="d", actor="x", facts={})
    NoticeCarrier(outbox, recorder).carry()
    assert recorder.taken == []
    ((_, notice),) = outbox.waiting()
    assert encode_notice(notice) is None
