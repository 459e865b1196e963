"""The auditor's rules, message by message."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.auditor.ledger import DRAWN_AT_ONCE
from appliance.messages.audit import (
    AppendEvent,
    AppendRefused,
    AuditorStatus,
    FetchReceipt,
    FetchUsage,
    IntentRecorded,
    LostRequest,
    Receipt,
    Recorded,
    Ticket,
    TicketKey,
    Usage,
)
from audit.entry import RANDOM_BYTES, encode_event
from audit.errors import StateMismatch, TicketRejected
from audit.events import TokenCounts, process_event, token_rejected_event
from audit.fsck import verify_log
from audit.proof import verify_proof
from audit.receipt import AuditReceipt, ReceiptEntry, encode_receipt, verify_receipt
from audit.rotation import load_predecessor, rotate_log
from audit.ticket import verify_ticket
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import DIGEST, ORIGIN, Auditor, count, intent, outcome


def own(record: dict[str, Any]) -> dict[str, Any]:
    """The record's part that OCSF has no place for."""
    return record["unmapped"]["casemate"]


def test_the_first_record_says_that_the_log_was_started(auditor: Auditor) -> None:
    """With what was found and cut off."""
    assert auditor.kinds() == ["log_started"]
    assert own(auditor.records()[0])["tree_size"] == 0


def fields_of(ticket: Ticket) -> dict[str, Any]:
    """What its MAC must hold for, as the intent of `conftest` was asked by the first worker."""
    named = {name: getattr(ticket, name) for name in ("worker", "request_id", "index", "model", "token_limit")}
    assert named | {"index": 0} == {"worker": 0, "request_id": 77, "index": 0, "model": "m", "token_limit": 64}
    return named | {"prompt_digest": DIGEST, "expires_at_ms": ticket.expires_at_ms}


def test_the_engine_gets_a_ticket_that_it_can_check(auditor: Auditor) -> None:
    """The key came before; the ticket is bound to worker, request, index, model, prompt, limit and time."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    key = engine.take()[0]
    assert isinstance(key, TicketKey)
    auditor.tell(gateway, intent(correlation=9))
    assert gateway.last(IntentRecorded) == IntentRecorded(9, 1)
    (ticket,) = engine.take(Ticket)
    assert (ticket.index, ticket.expires_at_ms) == (1, auditor.utc_ms + 5_000)
    verify_ticket(key.key, ticket.mac, **fields_of(ticket), now_ms=auditor.utc_ms)
    for name in ("token_limit", "worker", "request_id"):
        other = {**fields_of(ticket), name: 65}
        with pytest.raises(TicketRejected):
            verify_ticket(key.key, ticket.mac, **other, now_ms=auditor.utc_ms)


def test_a_ticket_names_the_worker_by_its_link(auditor: Auditor) -> None:
    """Whatever request it names, no worker gets a ticket for another's; and only the engine that was asked gets it."""
    engine, other = auditor.connect("engine"), auditor.connect("engine", 1)
    auditor.connect("gateway")
    auditor.tell(auditor.connect("gateway", 3), intent(request_id=12))
    (ticket,) = engine.take(Ticket)
    assert (ticket.worker, ticket.request_id) == (3, 12)
    assert other.take(Ticket) == []


def test_no_ticket_is_sent_before_the_intent_is_durable_nor_for_one_that_is_refused(auditor: Auditor) -> None:
    """The engine lets go what it has a ticket for."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.service.received(gateway, intent())
    assert engine.take(Ticket) == []
    auditor.service.turn()
    assert [ticket.index for ticket in engine.take(Ticket)] == [1]
    auditor.tell(gateway, intent())
    assert gateway.last(AppendRefused).code == "malformed"
    assert engine.take(Ticket) == []


def test_a_worker_that_is_gone_gets_no_ticket(auditor: Auditor) -> None:
    """Nobody would take the answer; the intent is closed as any other that a gateway left open."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.service.received(gateway, intent())
    auditor.service.link_ended(gateway)
    auditor.service.turn()
    assert engine.take(Ticket) == []
    auditor.pass_time(1.0)
    assert own(auditor.records()[2])["kind"] == "inference_outcome"


def test_an_engine_that_left_while_the_record_was_on_its_way_gets_nothing(auditor: Auditor) -> None:
    """What it held is gone. The gateway has its answer all the same; the engine that came since gets a ticket of its own key."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.service.received(gateway, intent("req-1", 1))
    auditor.service.link_ended(engine)
    auditor.service.turn()
    assert (engine.take(Ticket), gateway.last(IntentRecorded)) == ([], IntentRecorded(1, 1))
    again = auditor.connect("engine")
    auditor.service.received(gateway, intent("req-2", 2))
    auditor.service.link_ended(again)
    latest = auditor.connect("engine")
    auditor.service.turn()
    (ticket,) = [message for message in latest.inbox if isinstance(message, Ticket)]
    verify_ticket(latest.inbox[0].key, ticket.mac, **fields_of(ticket), now_ms=0)


@control("3.3.1", "AU-12")
def test_nothing_is_answered_before_it_is_durable(auditor: Auditor) -> None:
    """Messages are only taken in `received`; `turn` makes them durable and answers, all in one commit."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    for number in range(5):
        auditor.service.received(gateway, intent(f"req-{number}", number))
    assert gateway.take(IntentRecorded, AppendRefused) == []
    assert auditor.writer.size == 1
    assert auditor.service.wait_s == 0.0
    auditor.service.turn()
    assert [answer.index for answer in gateway.take(IntentRecorded)] == [1, 2, 3, 4, 5]
    assert auditor.writer.size == 6


def test_no_two_records_have_the_same_random_bits(auditor: Auditor) -> None:
    """They are drawn for many records at once, and each is used once."""
    gateway = auditor.connect("gateway")
    event = encode_event(token_rejected_event(address="10.0.0.1", port=1, route="/x", code="c", detail=""))
    for correlation in range(100):
        auditor.service.received(gateway, AppendEvent(correlation, event))
    auditor.service.turn()
    drawn = {record["metadata"]["uid"] for record in auditor.records()}
    assert len(drawn) == 101 > DRAWN_AT_ONCE
    assert all(len(bytes.fromhex(uid)) == RANDOM_BYTES for uid in drawn)


def test_each_engine_has_its_own_key_for_the_life_of_its_link(auditor: Auditor) -> None:
    """A ticket is minted for the engine that the gateway names; a new link has a new key."""
    one, two, gateway = auditor.connect("engine", 0), auditor.connect("engine", 1), auditor.connect("gateway")
    keys = {one.take()[0].key, two.take()[0].key}
    auditor.service.link_ended(one)
    again = auditor.connect("engine", 0)
    key = again.take()[0].key
    assert len(keys | {key}) == 3
    auditor.tell(gateway, intent(engine_instance=0))
    (ticket,) = again.take(Ticket)
    verify_ticket(key, ticket.mac, **fields_of(ticket), now_ms=0)
    assert two.take(Ticket) == []


def test_an_intent_for_an_engine_that_is_not_there_is_refused(auditor: Auditor) -> None:
    """Nobody could check the ticket, so nothing is recorded."""
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    assert gateway.last(AppendRefused).code == "no_engine"
    assert auditor.writer.size == 1


def test_an_outcome_waits_for_the_engines_counts(auditor: Auditor) -> None:
    """Then both stand in one record, and agree."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, outcome(1))
    assert gateway.take(Recorded) == []
    auditor.tell(engine, count(1))
    assert gateway.last(Recorded) == Recorded(2, 2)
    record = auditor.records()[2]
    assert own(record)["counts"] == "agree"
    assert own(record)["engine"]["output_tokens"] == 7
    assert record["metadata"]["reporter"] == {"name": "gateway/0"}
    assert auditor.service.num_open == 0


def test_counts_that_came_first_are_joined_at_once(auditor: Auditor) -> None:
    """The engine is often the first to know."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1))
    assert own(auditor.records()[2])["counts"] == "agree"


def test_a_gateway_that_lies_about_tokens_shows(auditor: Auditor) -> None:
    """Its number and the engine's stand side by side, with a raised severity."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(engine, count(1, output_tokens=7_000))
    auditor.tell(gateway, outcome(1, counts=TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=7)))
    record = auditor.records()[2]
    assert own(record)["counts"] == "differ"
    assert (record["message_context"]["completion_tokens"], own(record)["engine"]["output_tokens"]) == (7, 7_000)
    assert record["severity_id"] == 3


def test_counts_that_never_come_are_waited_for_a_short_time(auditor: Auditor) -> None:
    """And when they come after all, they get a record of their own, once."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, outcome(1))
    auditor.pass_time(0.4)
    assert gateway.take(Recorded) == []
    auditor.pass_time(0.2)
    assert gateway.last(Recorded).index == 2
    assert own(auditor.records()[2])["counts"] == "unreported"
    auditor.tell(engine, count(1))
    auditor.tell(engine, count(1))
    assert auditor.kinds() == ["log_started", "inference_intent", "inference_outcome", "inference_late_count"]


def test_without_an_engine_there_is_nothing_to_wait_for(auditor: Auditor) -> None:
    """The engine's end sends every held outcome on its way."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, outcome(1))
    auditor.service.link_ended(engine)
    auditor.service.turn()
    assert gateway.last(Recorded).index == 2


def test_the_intents_of_a_lost_gateway_are_closed_at_the_engines_count(auditor: Auditor) -> None:
    """The auditor makes the outcome itself, from the intent and the engine's word."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent("req-1", 1))
    auditor.tell(gateway, intent("req-2", 2))
    auditor.service.link_ended(gateway)
    auditor.tell(engine, count(1))
    auditor.pass_time(1.0)
    one, two = auditor.records()[3:]
    assert (one["status_code"], own(one)["intent_index"], own(one)["counts"]) == ("gateway_lost", 1, "engine_only")
    assert one["message_context"]["completion_tokens"] == 7
    assert one["actor"]["app_uid"] == "demo"
    assert one["metadata"]["reporter"] == {"name": "auditor/0"}
    assert (two["status_code"], own(two)["counts"]) == ("gateway_lost", "unreported")
    assert auditor.service.num_open == 0


def test_policy_hears_what_a_lost_gateways_requests_came_to(auditor: Auditor) -> None:
    """By the number of the reservation, and only where an engine counted; of other outcomes gateways tell themselves."""
    engine, gateway, policy = auditor.connect("engine"), auditor.connect("gateway"), auditor.connect("policy")
    for number in (1, 2, 3):
        auditor.tell(gateway, intent(f"req-{number}", number))
    auditor.tell(gateway, outcome(3, "req-3"))
    auditor.tell(engine, count(3))
    auditor.service.link_ended(gateway)
    auditor.tell(engine, count(1))
    auditor.pass_time(1.0)
    assert auditor.service.num_open == 0
    assert policy.take(LostRequest) == [LostRequest(1, "demo", "demo", "t", "m", 19)]
    auditor.service.link_ended(policy)
    again = auditor.connect("gateway")
    auditor.tell(again, intent("req-4", 4))
    auditor.tell(engine, count(4))
    auditor.service.link_ended(again)
    auditor.pass_time(1.0)
    assert policy.take(LostRequest) == []


def test_policy_hears_of_what_was_lost_before_it_came(auditor: Auditor, tmp_path: Path) -> None:
    """After a restart of the auditor an engine may tell its counts before policy is there. It hears of each once."""
    auditor.connect("engine")
    auditor.tell(auditor.connect("gateway"), intent())
    auditor.die()
    second = Auditor(tmp_path)
    second.tell(second.connect("engine"), count(1))
    second.service.turn()
    assert second.service.num_open == 0
    policy = second.connect("policy")
    assert policy.take(LostRequest) == [LostRequest(1, "demo", "demo", "t", "m", 19)]
    second.service.link_ended(policy)
    assert second.connect("policy").take(LostRequest) == []


def test_counts_that_the_former_life_recorded_may_be_told_again(auditor: Auditor, tmp_path: Path) -> None:
    """An engine does not know how far its auditor came. What says something else is recorded, as ever."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1))
    auditor.die()
    second = Auditor(tmp_path)
    engine = second.connect("engine")
    before = len(second.records())
    second.tell(engine, count(1))
    assert len(second.records()) == before
    second.tell(engine, count(1, output_tokens=8))
    assert (second.kinds()[-1], own(second.records()[-1])["counts"]) == ("inference_late_count", "differ")


def test_an_intent_whose_gateway_is_gone_before_it_is_durable_is_closed(auditor: Auditor) -> None:
    """Within one turn: the message, then the end of the link."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.service.received(gateway, intent())
    auditor.service.link_ended(gateway)
    auditor.service.turn()
    auditor.pass_time(1.0)
    assert auditor.kinds()[1:] == ["inference_intent", "inference_outcome"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"event": b"{}"}, "malformed"),
        ({"event": b"rubbish"}, "malformed"),
        ({"request_uid": "other"}, "malformed"),
        ({"client_id": "other"}, "malformed"),
        ({"model": "other"}, "malformed"),
        ({"token_limit": 65}, "malformed"),
        ({"event": outcome(1).event}, "not_permitted"),
    ],
)
def test_an_intent_that_says_two_things_is_refused(auditor: Auditor, change: dict[str, Any], code: str) -> None:
    """The ticket must be for what the record says."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent(**change))
    assert gateway.last(AppendRefused).code == code
    assert auditor.writer.size == 1


def test_a_request_id_is_used_once(auditor: Auditor) -> None:
    """Receipts are found by it."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent("req-1", 1))
    auditor.tell(gateway, intent("req-1", 2))
    assert "req-1" in gateway.last(AppendRefused).message
    for number in (3, 4):  # Within one commit as well.
        auditor.service.received(gateway, intent("req-2", number))
    auditor.service.turn()
    assert gateway.last(IntentRecorded).correlation == 3
    assert gateway.last(AppendRefused).correlation == 4


@control("3.3.9", "AU-8", "AU-9(4)", "AU-12", "AU-12(1)")
def test_a_peer_cannot_set_what_is_the_auditors(auditor: Auditor) -> None:
    """Index, time, reporter and random bits."""
    supervisor = auditor.connect("supervisor")
    event = process_event("process_started", role="engine", instance=0, pid=1)
    event["metadata"]["sequence"] = 99
    auditor.tell(supervisor, AppendEvent(5, encode_event(event)))
    refused = supervisor.last(AppendRefused)
    assert (refused.correlation, refused.code) == (5, "malformed")
    assert "sequence" in refused.message


@control("3.3.8", "AU-9", "AU-12")
def test_events_are_taken_by_role(auditor: Auditor) -> None:
    """The supervisor's from the supervisor, and from nobody else."""
    event = encode_event(process_event("process_started", role="engine", instance=0, pid=1))
    supervisor, gateway = auditor.connect("supervisor"), auditor.connect("gateway")
    auditor.tell(supervisor, AppendEvent(5, event))
    assert supervisor.last(Recorded) == Recorded(5, 1)
    auditor.tell(gateway, AppendEvent(6, event))
    assert gateway.last(AppendRefused).code == "not_permitted"
    rejected = encode_event(token_rejected_event(address="10.0.0.1", port=1, route="/", code="expired", detail=""))
    auditor.tell(gateway, AppendEvent(7, rejected))
    assert gateway.last(Recorded) == Recorded(7, 2)


def test_only_a_gateway_appends_intents_and_only_an_engine_counts(auditor: Auditor) -> None:
    """A captured engine cannot make its own tickets, a captured gateway no counts."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(engine, intent())
    assert engine.last(AppendRefused).code == "not_permitted"
    auditor.tell(gateway, intent())
    auditor.tell(gateway, count(1))
    auditor.tell(gateway, outcome(1))
    auditor.pass_time(1.0)
    assert own(auditor.records()[2])["counts"] == "unreported"


def test_outcomes_of_others_unknown_and_second_ones_are_refused(auditor: Auditor) -> None:
    """An intent is closed once, by the gateway that opened it."""
    auditor.connect("engine")
    gateway, other = auditor.connect("gateway", 0), auditor.connect("gateway", 1)
    auditor.tell(gateway, intent())
    auditor.tell(other, outcome(1))
    assert other.last(AppendRefused).code == "unknown_intent"
    auditor.tell(gateway, outcome(77))
    assert gateway.last(AppendRefused).code == "unknown_intent"
    auditor.tell(gateway, outcome(1, correlation=3))
    auditor.tell(gateway, outcome(1, correlation=4))
    assert gateway.last(AppendRefused).correlation == 4
    auditor.pass_time(1.0)
    auditor.tell(gateway, outcome(1, correlation=5))
    assert gateway.last(AppendRefused).correlation == 5
    assert auditor.kinds().count("inference_outcome") == 1


def test_an_outcome_about_another_request_or_with_counts_of_its_own_is_refused(auditor: Auditor) -> None:
    """The gateway cannot write the engine's words."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.tell(gateway, msgspec.structs.replace(outcome(2), intent_index=1))
    assert gateway.last(AppendRefused).code == "malformed"
    auditor.tell(gateway, outcome(1, uid="req-2"))
    assert gateway.last(AppendRefused).code == "malformed"
    event = msgspec.json.decode(outcome(1).event)
    event["unmapped"]["casemate"]["counts"] = "agree"
    auditor.tell(gateway, msgspec.structs.replace(outcome(1), event=encode_event(event)))
    assert gateway.last(AppendRefused).code == "malformed"
    assert auditor.service.num_open == 1


def test_counts_that_cannot_be_are_not_taken(auditor: Auditor) -> None:
    """Negative, too large, for no intent: nothing is recorded and nothing breaks."""
    engine, gateway = auditor.connect("engine"), auditor.connect("gateway")
    auditor.tell(gateway, intent())
    for wrong in (count(1, -1), count(1, 2**60), count(0), count(999), count(-5)):
        auditor.tell(engine, wrong)
    assert auditor.writer.size == 2
    auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1))
    assert own(auditor.records()[2])["counts"] == "agree"


def finish(auditor: Auditor, uid: str = "req-1") -> None:
    """One request from intent to outcome."""
    engine, gateway = auditor.connect("engine", 7), auditor.connect("gateway", 7)
    auditor.tell(gateway, intent(uid, engine_instance=7))
    index = gateway.last(IntentRecorded).index
    auditor.tell(engine, count(index))
    auditor.tell(gateway, outcome(index, uid))


def test_a_receipt_waits_for_the_checkpoint_that_covers_it(auditor: Auditor) -> None:
    """Both records with proofs that verify with the key alone."""
    finish(auditor)
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, FetchReceipt(3, "req-1", "demo"))
    assert gateway.take(Receipt, AppendRefused) == []
    auditor.pass_time(1.0)
    receipt = gateway.last(Receipt)
    assert receipt.correlation == 3
    for part in (receipt.intent, receipt.outcome):
        assert verify_proof(part.proof.encode(), part.record, [auditor.writer.key], ORIGIN)[0] == part.index
    document = encode_receipt(
        AuditReceipt(
            intent=ReceiptEntry(index=receipt.intent.index, record=receipt.intent.record.decode(), proof=receipt.intent.proof),
            outcome=ReceiptEntry(index=receipt.outcome.index, record=receipt.outcome.record.decode(), proof=receipt.outcome.proof),
            log_vkey=receipt.log_vkey,
        )
    )  # fmt: skip
    assert verify_receipt(document, [auditor.writer.key], ORIGIN).outcome is not None


def test_a_receipt_of_a_running_request_has_no_outcome(auditor: Auditor) -> None:
    """The intent alone is shown."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.pass_time(1.0)
    auditor.tell(gateway, FetchReceipt(3, "req-1", "demo"))
    assert gateway.last(Receipt).outcome is None


@control("3.3.8", "AU-9")
def test_receipts_go_to_their_own_client_only(auditor: Auditor) -> None:
    """Another client, another person by the same, an unknown request, another role: the same words."""
    finish(auditor)
    auditor.pass_time(1.0)
    gateway, engine = auditor.connect("gateway"), auditor.connect("engine")
    messages = []
    for peer, uid, client, subject in (
        (gateway, "req-1", "other", ""),
        (gateway, "req-1", "demo", "somebody-else"),
        (gateway, "req-9", "demo", ""),
        (engine, "req-1", "demo", ""),
    ):
        auditor.tell(peer, FetchReceipt(3, uid, client, subject))
        refused = peer.last(AppendRefused)
        messages.append((refused.code, refused.message))
    assert len(set(messages)) == 1
    assert messages[0][0] == "not_found"


def test_only_the_latest_requests_are_found_by_id(tmp_path: Path) -> None:
    """The table is bounded; what fell out is found by index."""
    auditor = Auditor(tmp_path, receipts_kept=2)
    for number in range(3):
        finish(auditor, f"req-{number}")
    auditor.pass_time(1.0)
    gateway = auditor.connect("gateway")
    for number in range(3):
        auditor.tell(gateway, FetchReceipt(number, f"req-{number}", "demo"))
    assert [m.correlation for m in gateway.take(AppendRefused, Receipt) if isinstance(m, AppendRefused)] == [0]
    auditor.die()


def test_gateways_are_told_the_state_twice_a_second(auditor: Auditor) -> None:
    """And at once when their link opens."""
    gateway = auditor.connect("gateway")
    (status,) = gateway.take(AuditorStatus)
    assert (status.tree_size, status.checkpoint_size, status.can_append, status.detail) == (1, 1, True, "")
    assert status.alarms == ()
    for _ in range(4):
        auditor.pass_time(0.25)
    assert len(gateway.take(AuditorStatus)) == 2


def test_a_stop_closes_what_is_open_and_publishes(auditor: Auditor, tmp_path: Path) -> None:
    """The last record says so, and the last checkpoint covers it."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.service.stop()
    assert auditor.kinds() == ["log_started", "inference_intent", "log_reconciled", "inference_outcome", "log_stopped"]
    assert auditor.writer.checkpoint.size == 5
    auditor.die()
    assert verify_log(tmp_path / "log", auditor.writer.key).num_unsigned == 0


def test_a_start_closes_what_the_last_life_left_open(auditor: Auditor, tmp_path: Path) -> None:
    """After a short time in which gateways and engines may come back and tell."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    for number in range(3):
        auditor.tell(gateway, intent(f"req-{number}", number))
    auditor.die()
    second = Auditor(tmp_path)
    engine, gateway = second.connect("engine"), second.connect("gateway")
    assert second.service.num_open == 3
    second.tell(engine, count(1))
    second.tell(gateway, outcome(2, "req-1"))
    second.pass_time(3.1)
    second.service.turn()
    closed = {
        own(record)["intent_index"]: record for record in second.records() if own(record)["kind"] == "inference_outcome"
    }
    assert {index: record["status_code"] for index, record in closed.items()} == {
        1: "recovered",
        2: "stop",
        3: "recovered",
    }
    assert own(closed[1])["engine"]["output_tokens"] == 7
    assert own(closed[3])["counts"] == "unreported"
    assert second.kinds()[-1] == "log_recovered"
    second.die()
    third = Auditor(tmp_path)
    assert third.service.num_open == 0
    gateway = third.connect("gateway")
    third.pass_time(1.0)
    third.tell(gateway, FetchReceipt(1, "req-1", "demo"))
    assert gateway.last(Receipt).outcome.index == 5 + 1
    third.die()


def test_intents_survive_a_recovery_that_is_itself_killed(auditor: Auditor, tmp_path: Path) -> None:
    """Started twice without having closed them: they are still known."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.tell(gateway, intent())
    auditor.die()
    for _ in range(3):
        again = Auditor(tmp_path)
        assert again.service.num_open == 1
        again.die()
    last = Auditor(tmp_path)
    last.pass_time(3.1)
    assert last.service.num_open == 0
    last.die()


def test_the_reading_at_a_start_is_bounded_by_the_auditors_own_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what lies behind the last mark, was not reconciled, or belongs to the receipts kept, is read back."""
    auditor = Auditor(tmp_path, receipts_kept=1)
    monkeypatch.setattr("appliance.auditor.service.MARK_INTERVAL", 500)
    monkeypatch.setattr("appliance.auditor.history.MAX_RECOUNTED", 500)
    auditor.service._next_mark = 500
    for number in range(700):
        finish(auditor, f"req-{number}")
    assert "log_marked" in auditor.kinds()
    auditor.die()
    reads: list[int] = []
    original = auditor.writer.__class__.read_bundle
    monkeypatch.setattr(
        auditor.writer.__class__, "read_bundle", lambda self, number: reads.append(number) or original(self, number)
    )
    again = Auditor(tmp_path, receipts_kept=1)
    assert len(set(reads)) < again.writer.size // 256
    assert again.service.num_open == 0
    again.die()


def test_a_log_whose_end_cannot_be_read_back_refuses_the_start(auditor: Auditor, tmp_path: Path) -> None:
    """Intents might be open that nobody would close."""
    auditor.writer.append([b"rubbish"])
    auditor.writer.commit()
    auditor.die()
    with pytest.raises(StateMismatch, match="read back"):
        Auditor(tmp_path)


@control("AC-6", "SC-5")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_rotation_of_the_log_gives_nobody_a_fresh_day(tmp_path: Path, is_there: bool) -> None:
    """What was used before it is read from the log that was closed, where that still lies there."""

    def used(auditor: Auditor) -> int:
        policy = auditor.connect("policy")
        auditor.tell(policy, FetchUsage(1, 0))
        return sum(row.tokens for row in policy.last(Usage).rows)

    auditor = Auditor(tmp_path)
    for number in range(3):
        finish(auditor, f"req-{number}")
    before = used(auditor)
    auditor.service.stop()
    auditor.die()
    _, old = rotate_log(tmp_path / "log", tmp_path / "log.key")
    if not is_there:
        shutil.rmtree(old)
    predecessor = load_predecessor(tmp_path / "log")
    auditor = Auditor(tmp_path, origin="log.example/second", predecessor=predecessor)
    assert used(auditor) == (before if is_there else 0)
    assert before > 0
    auditor.die()
