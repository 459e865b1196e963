"""What the auditor watches: the clock, the space, the rations of strangers, and the counts of all parties."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.auditor.clock_watch import TOLERANCE_MS, verify_floor
from appliance.auditor.history import read_backwards
from appliance.auditor.watches import Limits
from appliance.messages.audit import AppendEvent, AppendRefused, AuditorStatus, CountTokens, Recorded, TicketsRefused
from audit.append import LogWriter
from audit.entry import Json, encode_event
from audit.errors import ClockRejected
from audit.events import TokenCounts, token_issued_event, token_rejected_event
from audit.rotation import load_predecessor, rotate_log
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import Auditor, FakePeer, count, intent, outcome


def of_kind(auditor: Auditor, kind: str) -> list[Json]:
    """The records of one kind, their own facts only."""
    own = [record["unmapped"]["casemate"] | {"status": record["status_id"]} for record in auditor.records()]
    return [facts for facts in own if facts["kind"] == kind]


def rejected(num_times: int = 1) -> AppendEvent:
    """A gateway's record of a stranger."""
    return AppendEvent(
        9,
        encode_event(
            token_rejected_event(address="10.0.0.1", port=1, route="/", code="c", detail="", num_times=num_times)
        ),
    )


def issued(client_id: str) -> AppendEvent:
    """An authority's record of a token."""
    event = token_issued_event(
        client_id=client_id, subject=client_id, tenant="t", address="10.0.0.1", port=1, issuer="i", token_id="j",
        token_key_id="k", scope="inference", expires_at_ms=5,
    )  # fmt: skip
    return AppendEvent(9, encode_event(event))


@control("3.3.7", "AU-8")
def test_a_clock_that_is_set_is_recorded(tmp_path: Path) -> None:
    """Forward and back, by how much; a slow drift that corrects itself is not."""
    auditor = Auditor(tmp_path)
    auditor.utc_ms += 400
    auditor.pass_time(2)
    auditor.utc_ms -= 400
    auditor.pass_time(2)
    assert not of_kind(auditor, "log_clock_jumped")
    auditor.utc_ms -= 3_600_000
    auditor.pass_time(2)
    auditor.utc_ms += 7_000
    auditor.pass_time(2)
    assert [facts["jump_ms"] for facts in of_kind(auditor, "log_clock_jumped")] == [-3_600_000, 7_000]


@control("AU-5(2)", "SI-4(5)")
def test_a_jump_of_more_than_a_day_is_an_alarm(tmp_path: Path) -> None:
    """It stays until the next start; a small one is none."""
    auditor = Auditor(tmp_path)
    gateway = auditor.connect("gateway")
    auditor.utc_ms += 5_000
    auditor.pass_time(2)
    assert gateway.last(AuditorStatus).alarms == ()
    auditor.utc_ms -= 2 * 86_400_000
    auditor.pass_time(2)
    auditor.pass_time(2)
    assert "installs are suspended" in gateway.last(AuditorStatus).alarms[0]


def test_small_jumps_that_make_a_day_are_an_alarm_as_well(tmp_path: Path) -> None:
    """Whoever sets the clock hour by hour gets no further than who sets it at once."""
    auditor = Auditor(tmp_path)
    gateway = auditor.connect("gateway")
    for _ in range(23):
        auditor.utc_ms += 3_600_000
        auditor.pass_time(2)
    assert gateway.last(AuditorStatus).alarms == ()
    auditor.utc_ms += 3_600_000
    auditor.pass_time(2)
    auditor.pass_time(2)
    assert "installs are suspended" in gateway.last(AuditorStatus).alarms[0]


@control("3.3.7", "AU-8")
def test_a_clock_below_the_last_record_forbids_a_start(tmp_path: Path) -> None:
    """But for the little that a time server corrects."""
    auditor = Auditor(tmp_path)
    auditor.pass_time(100)
    last_ms = auditor.records()[-1]["time"]
    verify_floor(read_backwards(auditor.writer, None), last_ms - TOLERANCE_MS)
    with pytest.raises(ClockRejected, match="set the clock"):
        verify_floor(read_backwards(auditor.writer, None), last_ms - TOLERANCE_MS - 1)


def test_the_floor_of_a_log_that_continues_another_is_that_ones(tmp_path: Path) -> None:
    """A rotation is no way to set the clock back."""
    auditor = Auditor(tmp_path)
    auditor.service.stop()
    last_ms = auditor.records()[-1]["time"]
    auditor.die()
    rotate_log(tmp_path / "log", tmp_path / "log.key")
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="o.example/next")
    with pytest.raises(ClockRejected, match="set the clock"):
        verify_floor(read_backwards(writer, load_predecessor(tmp_path / "log")), last_ms - TOLERANCE_MS - 1)
    writer.close()


def test_an_empty_log_has_no_floor(tmp_path: Path) -> None:
    """A first start has nothing to compare with."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="o.example/l")
    assert writer.size == 0
    verify_floor(read_backwards(writer, None), 0)
    writer.close()


@control("3.14.6", "AU-4", "SC-5", "SI-4")
def test_strangers_cannot_fill_the_log(tmp_path: Path) -> None:
    """Beyond their ration they are counted, and told in one record with how many attempts they stand for."""
    auditor = Auditor(tmp_path, limits=Limits(strangers_a_minute=3))
    gateway = auditor.connect("gateway")
    for number in range(10):
        auditor.tell(gateway, rejected(num_times=number + 1))
    assert [type(answer).__name__ for answer in gateway.take(Recorded, AppendRefused)] == ["Recorded"] * 3 + [
        "AppendRefused"
    ] * 7
    auditor.pass_time(61)
    assert of_kind(auditor, "log_rationed") == [
        {"kind": "log_rationed", "status": 1, "token_rejected": 4 + 5 + 6 + 7 + 8 + 9 + 10}
    ]
    auditor.tell(gateway, rejected())
    assert gateway.take(Recorded), "a new minute has a new ration"


def test_one_client_cannot_fill_the_log_with_tokens(tmp_path: Path) -> None:
    """What is not recorded is not issued; another client is not touched."""
    auditor = Auditor(tmp_path, limits=Limits(tokens_a_minute=2))
    authority = auditor.connect("authority")
    for client in ("greedy", "greedy", "greedy", "modest"):
        auditor.tell(authority, issued(client))
    kinds = [type(answer).__name__ for answer in authority.take(Recorded, AppendRefused)]
    assert kinds == ["Recorded", "Recorded", "AppendRefused", "Recorded"]


def test_rations_of_the_last_minute_are_told_at_a_stop(tmp_path: Path) -> None:
    """Nothing that was counted is lost."""
    auditor = Auditor(tmp_path, limits=Limits(strangers_a_minute=1))
    gateway = auditor.connect("gateway")
    for _ in range(3):
        auditor.tell(gateway, rejected())
    auditor.service.stop()
    assert [facts["token_rejected"] for facts in of_kind(auditor, "log_rationed")] == [2]


@control("3.3.4", "AU-4", "AU-5", "AU-5(1)")
def test_little_space_is_told_once_and_shown_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are still taken; a disk at the bound does not tell every few seconds."""
    auditor = Auditor(tmp_path, limits=Limits(space_warning_bytes=1_000_000))
    gateway = auditor.connect("gateway")
    free = {"bytes": 2_000_000}
    monkeypatch.setattr("audit.storage.Disk.free_bytes", lambda _self, _folder: free["bytes"])
    auditor.pass_time(6)
    assert (gateway.last(AuditorStatus).alarms, gateway.last(AuditorStatus).free_bytes) == ((), 2_000_000)
    for free["bytes"] in (999_999, 1_000_001, 999_999):
        auditor.pass_time(6)
        assert gateway.last(AuditorStatus).alarms[0].startswith("the log's disk has")
    assert len(of_kind(auditor, "log_space_low")) == 1
    free["bytes"] = 5_000_000
    auditor.pass_time(6)
    assert gateway.last(AuditorStatus).alarms == ()
    assert gateway.last(AuditorStatus).can_append


@control("3.3.4", "AU-5(1)")
def test_few_files_that_can_be_made_are_told_as_little_space_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many are wanted as the log makes for records of the space that is wanted."""
    auditor = Auditor(tmp_path, limits=Limits(space_warning_bytes=900_000))
    gateway = auditor.connect("gateway")
    free = {"files": 10}
    monkeypatch.setattr("audit.storage.Disk.free_files", lambda _self, _folder: free["files"])
    auditor.pass_time(6)
    assert gateway.last(AuditorStatus).alarms == ()
    free["files"] = 9
    auditor.pass_time(6)
    assert gateway.last(AuditorStatus).alarms[0].endswith(", and 9 files that can be made")
    assert [facts["free_files"] for facts in of_kind(auditor, "log_space_low")] == [9]


class Traffic:
    """One gateway and one engine."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor
        self.gateway: FakePeer = auditor.connect("gateway")
        self.engine: FakePeer = auditor.connect("engine")
        self.number = 0

    def serve(self, counted: int | None = 7, told: int = 7) -> int:
        """One request, for which the engine counts and the gateway tells so many tokens."""
        self.number += 1
        uid = f"req-{self.number}"
        self.auditor.tell(self.gateway, intent(uid))
        index = self.gateway.inbox[-1].index
        if counted is not None:
            self.auditor.tell(self.engine, count(index, counted))
        counts = TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=told)
        self.auditor.tell(self.gateway, outcome(index, uid, counts=counts))
        self.auditor.pass_time(1)
        return int(index)

    def reconcile(self) -> Any:
        """The next minute's record."""
        self.auditor.pass_time(61)
        return of_kind(self.auditor, "log_reconciled")[-1]


@control("3.3.5", "3.14.7", "AU-6(3)", "AU-12(1)")
def test_counts_that_agree_are_reconciled_without_an_alarm(tmp_path: Path) -> None:
    """The record has all three parties' sums."""
    traffic = Traffic(Auditor(tmp_path))
    for _ in range(3):
        traffic.serve()
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_intents"], facts["num_outcomes"], facts["num_agree"]) == ("agree", 3, 3, 3)
    assert (facts["gateway_output_tokens"], facts["engine_output_tokens"]) == (21, 21)
    assert traffic.gateway.last(AuditorStatus).alarms == ()


@control("3.3.5", "3.12.3", "3.14.7", "AU-5(2)", "AU-6(3)", "AU-10", "SI-4(2)", "SI-4(5)", "SI-4(12)", "SI-6")
def test_a_gateway_that_makes_tokens_up_is_an_alarm(tmp_path: Path) -> None:
    """In the record, in the status, and gone after a minute in which all agree."""
    traffic = Traffic(Auditor(tmp_path))
    traffic.serve(told=9)
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_differ"], facts["status"]) == ("differ", 1, 2)
    status = traffic.gateway.last(AuditorStatus)
    assert "count different tokens" in status.alarms[0]
    assert status.num_differences == 1
    traffic.serve()
    assert traffic.reconcile()["result"] == "agree"
    assert traffic.gateway.last(AuditorStatus).alarms == ()


@control("3.12.3", "3.14.7", "SI-4(5)")
def test_tokens_that_no_engine_counted_are_an_alarm(tmp_path: Path) -> None:
    """An answer came from somewhere else; a request that ended before it had any is none."""
    traffic = Traffic(Auditor(tmp_path))
    traffic.serve(counted=None, told=0)
    assert traffic.reconcile()["result"] == "agree"
    traffic.serve(counted=None)
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_missing"]) == ("differ", 1)


def test_counts_for_what_nobody_recorded_are_an_alarm(tmp_path: Path) -> None:
    """An engine that computed for somebody who bypassed the gateway."""
    traffic = Traffic(Auditor(tmp_path))
    index = traffic.serve()
    for message in (count(99), count(index), CountTokens(0, 1, 0, 1, "stop")):
        traffic.auditor.tell(traffic.engine, message)
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_unexpected"]) == ("differ", 3)


def test_counts_that_come_late_settle_what_was_missing(tmp_path: Path) -> None:
    """They belong to an outcome that was recorded without them."""
    traffic = Traffic(Auditor(tmp_path))
    index = traffic.serve(counted=None)
    traffic.auditor.tell(traffic.engine, count(index))
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_late"], facts["engine_output_tokens"]) == ("agree", 1, 7)


@pytest.mark.parametrize("told", [0, 2])
@control("3.12.3", "3.14.7", "SI-4(5)")
def test_a_gateway_that_tells_its_outcome_before_the_engine_has_ended_is_found_out(tmp_path: Path, told: int) -> None:
    """Who ends a request on paper and lets the engine go on differs from it, though its counts come late."""
    traffic = Traffic(Auditor(tmp_path))
    index = traffic.serve(counted=None, told=told)
    traffic.auditor.tell(traffic.engine, count(index, 4_000))
    (late,) = of_kind(traffic.auditor, "inference_late_count")
    facts = traffic.reconcile()
    assert (late["counts"], facts["result"], facts["num_late_differ"]) == ("differ", "differ", 1)
    assert "count different tokens" in traffic.gateway.last(AuditorStatus).alarms[0]


def test_late_counts_settle_their_own_outcome_only(tmp_path: Path) -> None:
    """A request that reached no answer and is counted late covers up no answer that came from somewhere else."""
    traffic = Traffic(Auditor(tmp_path))
    index = traffic.serve(counted=None, told=0)
    traffic.auditor.tell(traffic.engine, count(index, 0))
    traffic.serve(counted=None)
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_missing"], facts["num_late_differ"]) == ("differ", 1, 0)


def test_counts_of_a_former_life_are_compared_with_their_outcome(tmp_path: Path) -> None:
    """An auditor that was killed in between finds the outcome again."""
    traffic = Traffic(Auditor(tmp_path))
    index = traffic.serve(counted=None, told=2)
    traffic.auditor.die()
    after = Traffic(Auditor(tmp_path))
    after.auditor.tell(after.engine, count(index, 4_000))
    assert after.reconcile()["num_late_differ"] == 1


def test_a_minute_in_which_nothing_happened_is_recorded_too(tmp_path: Path) -> None:
    """The log shows that somebody counted, and that there was nothing."""
    auditor = Auditor(tmp_path)
    for _ in range(3):
        auditor.pass_time(61)
    found = of_kind(auditor, "log_reconciled")
    assert [(facts["result"], facts["num_intents"], facts["period_ms"]) for facts in found] == [
        ("agree", 0, 61_000)
    ] * 3


def test_what_there_is_of_the_last_minute_is_reconciled_at_the_end(tmp_path: Path) -> None:
    """Whoever has the appliance started anew each minute escapes no comparison."""
    traffic = Traffic(Auditor(tmp_path))
    traffic.serve(told=9)
    traffic.auditor.service.stop()
    (facts,) = of_kind(traffic.auditor, "log_reconciled")
    assert (facts["result"], facts["num_differ"]) == ("differ", 1)
    assert traffic.auditor.kinds()[-1] == "log_stopped"


@control("3.12.3", "3.14.7", "SI-4(5)")
def test_a_killed_auditor_takes_no_minute_out_of_the_comparison(tmp_path: Path) -> None:
    """What was recorded behind the last reconciliation is compared in the first of the next life, once."""
    traffic = Traffic(Auditor(tmp_path))
    traffic.serve(told=9)
    assert traffic.reconcile()["num_differ"] == 1
    traffic.serve(told=9)
    traffic.serve()
    traffic.auditor.die()
    traffic = Traffic(Auditor(tmp_path))
    traffic.number = 9
    traffic.serve()
    facts = traffic.reconcile()
    assert [facts[name] for name in ("result", "num_differ", "num_intents", "num_outcomes")] == ["differ", 1, 3, 3]
    assert traffic.reconcile()["num_outcomes"] == 0
    traffic.auditor.die()
    assert Traffic(Auditor(tmp_path)).reconcile()["result"] == "agree"


@control("3.14.7", "SI-4(5)")
def test_tickets_that_an_engine_refused_are_an_alarm(tmp_path: Path) -> None:
    """Somebody asked the engine past the gateway; from a gateway the same words mean nothing."""
    traffic = Traffic(Auditor(tmp_path))
    traffic.auditor.tell(traffic.gateway, TicketsRefused(4, "made up"))
    assert traffic.reconcile()["result"] == "agree"
    traffic.auditor.tell(traffic.engine, TicketsRefused(2, "ticket for intent 7: the MAC does not hold"))
    traffic.auditor.tell(traffic.engine, TicketsRefused(1, "ticket for intent 8: the MAC does not hold"))
    facts = traffic.reconcile()
    assert (facts["result"], facts["num_bad_tickets"]) == ("differ", 3)
    assert (
        "3 requests to engines without a ticket that holds (engine/0: ticket for intent 8"
        in (traffic.auditor.records()[-1]["status_detail"])
    )
    assert "without a ticket" in traffic.gateway.last(AuditorStatus).alarms[0]


def test_status_messages_of_an_older_form_are_understood() -> None:
    """A gateway's view has defaults for what is new."""
    old = msgspec.msgpack.encode(["auditor_status", 1, 1, True, ""])
    assert msgspec.msgpack.decode(old, type=AuditorStatus).alarms == ()
