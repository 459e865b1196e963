"""Peers that were captured: whatever they tell, the auditor refuses or records it, goes on, and can be started again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.messages.audit import AppendEvent, AppendIntent, AppendOutcome, AppendRefused, IntentRecorded, Recorded
from audit.entry import Json, encode_event, parse_canonical
from audit.errors import StorageFailed
from audit.events import TokenCounts, denied_event
from tests.unit.appliance.auditor.conftest import CALLER, Auditor, FakePeer, call, count, intent, outcome

Change = Callable[[Json], Any]


def changed(message: Any, change: Change) -> Any:
    """The message with another event."""
    event = parse_canonical(message.event)
    change(event)
    return msgspec.structs.replace(message, event=encode_event(event))


def denied() -> AppendEvent:
    """A plain event of a gateway."""
    return AppendEvent(9, encode_event(denied_event(CALLER, call("r"), code="c", detail="d", http_status=429)))


def own(event: Json) -> Json:
    """The event's part that OCSF has no place for."""
    part: Json = event["unmapped"]["casemate"]
    return part


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (denied(), lambda event: event.update(actor="x")),
        (denied(), lambda event: own(event).update(request_uid=5)),
        (denied(), lambda event: own(event).update(scan_from="x")),
        (intent("req-2", 9), lambda event: own(event).update(intent_index="x")),
        (outcome(1, correlation=9), lambda event: event.update(actor="x")),
        (denied(), lambda event: event.update(activity_id=[])),
        (denied(), lambda event: event.update(activity_id={})),
    ],
)
def test_an_event_that_a_start_could_not_read_back_is_refused(
    auditor: Auditor, tmp_path: Path, message: AppendEvent | AppendIntent | AppendOutcome, change: Change
) -> None:
    """It is malformed to its peer, and the next start is none the wiser."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, changed(message, change))
    refused = gateway.last(AppendRefused)
    assert (refused.correlation, refused.code) == (9, "malformed")
    assert auditor.cut == []
    auditor.service.stop()
    auditor.die()
    Auditor(tmp_path).die()


def test_a_record_that_recovery_does_not_need_never_stops_a_start(auditor: Auditor, tmp_path: Path) -> None:
    """However it came into the log: what is open is still known."""
    auditor.connect("engine")
    auditor.tell(auditor.connect("gateway"), intent())
    event = denied_event(CALLER, call("r"), code="c", detail="d", http_status=429) | {"actor": "x"}
    auditor.service._ledger.add_own(event)
    auditor.service.turn()
    auditor.die()
    again = Auditor(tmp_path)
    assert again.service.num_open == 1
    again.die()


@pytest.mark.parametrize("is_counted_first", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda event: (event.pop("message_context"), event.update(ai_model="x")),
        lambda event: (event.pop("message_context"), event.update(ai_model={"name": 5})),
        lambda event: (event.update(severity_id="9"), event["message_context"].update(completion_tokens=99)),
        lambda event: event.update(time=1),
        lambda event: event.update(metadata="x"),
        lambda event: event["metadata"].update(sequence=1),
    ],
)
def test_an_outcome_of_wrong_types_is_refused_and_a_right_one_taken(
    auditor: Auditor, change: Change, is_counted_first: bool
) -> None:
    """Whether the engine told its counts before or after; the intent does not stay open."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    if is_counted_first:
        auditor.tell(engine, count(1))
    auditor.tell(gateway, changed(outcome(1), change))
    assert gateway.last(AppendRefused).code == "malformed"
    if not is_counted_first:
        auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1, correlation=3))
    assert gateway.last(Recorded).correlation == 3
    assert (auditor.service.num_open, auditor.cut) == (0, [])


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_an_outcome_that_gets_too_large_with_the_counts_is_replaced(auditor: Auditor, is_counted_first: bool) -> None:
    """Its gateway is told, and the auditor closes the intent."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    name = "m" * 28_000

    def swell(event: Json) -> None:
        del event["message_context"]
        event["ai_model"]["name"] = name
        own(event)["padding"] = "p" * 28_000

    auditor.tell(gateway, changed(intent(model=name), lambda event: event["ai_model"].update(name=name)))

    for peer, told in ((engine, count(1)), (gateway, changed(outcome(1), swell)))[:: 1 if is_counted_first else -1]:
        auditor.tell(peer, told)
    auditor.service.turn()
    assert gateway.last(AppendRefused).code == "too_large"
    assert auditor.records()[-1]["status_code"] == "outcome_refused"
    assert (auditor.service.num_open, auditor.cut) == (0, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event["actor"].update(app_uid="other"),
        lambda event: event["actor"]["user"].update(uid="other"),
        lambda event: event["actor"]["session"].update(uid="other"),
        lambda event: event.pop("actor"),
        lambda event: event["ai_model"].update(name="cheap"),
        lambda event: event["metadata"].update(tenant_uid="other"),
        lambda event: event["src_endpoint"].update(ip="10.9.9.9"),
        lambda event: own(event).update(role="admin"),
        lambda event: event["message_context"].update(prompt_tokens=11),
    ],
)
@pytest.mark.parametrize("is_of_a_former_life", [False, True])
def test_an_outcome_names_who_asked_as_its_intent_does(
    auditor: Auditor, tmp_path: Path, change: Change, is_of_a_former_life: bool
) -> None:
    """Else a captured gateway could have one client's use counted as another's, and found under another's name."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    if is_of_a_former_life:
        auditor.die()
        auditor = Auditor(tmp_path)
        gateway = auditor.connect("gateway")
    auditor.tell(gateway, changed(outcome(1), change))
    assert gateway.last(AppendRefused).code == "malformed"
    auditor.tell(gateway, outcome(1, correlation=3))
    auditor.pass_time(1.0)
    assert gateway.last(Recorded).correlation == 3
    auditor.die()


def test_late_counts_for_the_longest_intent_are_recorded(auditor: Auditor) -> None:
    """What the auditor adds to a copy of an intent fits, however long the intent is."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")

    def swell(event: Json) -> None:
        del event["message_context"], event["http_request"]
        for name in ("decision", "parameters", "prompt_hash", "prompt_key_id", "reservation"):
            del own(event)[name]
        event["actor"]["x"] = ["y" * 1_000] * 58
        event["actor"]["z"] = "z" * (59_990 - len(encode_event(event)))

    auditor.tell(gateway, changed(intent(), swell))
    auditor.service.link_ended(gateway)
    auditor.pass_time(1.0)
    auditor.tell(engine, msgspec.structs.replace(count(1), reason="\x01" * 64))
    auditor.service.turn()
    assert auditor.kinds()[-2:] == ["inference_outcome", "inference_late_count"]
    assert auditor.cut == []


def test_a_message_that_cannot_be_handled_costs_its_peer_the_link_only(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are served on, and its intents are closed when its link has ended."""
    auditor.connect("engine")
    gateway, other = auditor.connect("gateway", 0), auditor.connect("gateway", 1)
    auditor.tell(gateway, intent())
    with monkeypatch.context() as patched:
        patched.setattr("appliance.auditor.service.verify_permitted", lambda *_: [][1])
        auditor.tell(gateway, outcome(1))
    assert auditor.cut == [gateway]
    auditor.service.link_ended(gateway)
    auditor.tell(other, intent("req-2"))
    assert other.last(IntentRecorded).index == 2
    auditor.pass_time(1.0)
    assert list(auditor.service._book.open) == [2]


def test_a_failing_disk_costs_no_peer_its_link(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the process, as ever."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")

    def fail(_: object) -> None:
        raise StorageFailed("disk")

    monkeypatch.setattr(auditor.writer, "append", fail)
    with pytest.raises(StorageFailed):
        auditor.service.received(gateway, intent())
    assert auditor.cut == []


def test_an_engine_counts_for_its_own_intents_only(auditor: Auditor) -> None:
    """Another's counts are not taken, neither before the outcome nor after it."""
    engine, stranger, gateway = auditor.connect("engine", 0), auditor.connect("engine", 1), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(stranger, count(1, 0))
    auditor.tell(gateway, outcome(1))
    auditor.pass_time(1.0)
    assert own(auditor.records()[-1])["counts"] == "unreported"
    auditor.tell(stranger, count(1, 0))
    auditor.service.turn()
    assert auditor.kinds()[-1] == "inference_outcome"
    auditor.tell(engine, count(1))
    auditor.service.turn()
    assert own(auditor.records()[-1])["engine"]["output_tokens"] == 7


def test_more_delivered_tokens_than_an_entry_can_hold_are_not_taken(auditor: Auditor) -> None:
    """Every record is in the restricted form, whatever an engine tells."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(engine, msgspec.structs.replace(count(1), delivered_tokens=2**60))
    auditor.tell(gateway, outcome(1, counts=TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=7)))
    auditor.pass_time(1.0)
    assert own(auditor.records()[-1])["counts"] == "unreported"


def test_a_stop_records_and_answers_outcomes_that_wait_for_counts(auditor: Auditor) -> None:
    """The gateway's own outcome, not one that the auditor makes up."""
    auditor.connect("engine")
    gateway: FakePeer = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, outcome(1))
    auditor.service.stop()
    assert gateway.last(Recorded) == Recorded(2, 3)
    assert auditor.kinds()[2:] == ["log_reconciled", "inference_outcome", "log_stopped"]
    assert auditor.records()[3]["status_code"] == "stop"
    assert auditor.service.num_open == 0
