"""The auditor's part in sealed bodies and in rules that two people set: a share for a record, destruction by the rules."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.auditor.stewardship import Custody
from appliance.messages.audit import AppendRefused, AuditorStatus, IntentRecorded
from appliance.messages.reading import ReadBy
from appliance.messages.stewardship import (
    BodiesDestroyed,
    BodyKeyKept,
    BodyShare,
    DecideChange,
    FetchRules,
    HashRootKept,
    KeepBodyKey,
    KeepHashRoot,
    OpenBody,
    ProposeChange,
    RulesNow,
)
from audit.entry import encode_event, parse_canonical
from audit.errors import NotDurable, StateMismatch
from audit.governance import Rules, save_rules
from audit.keyed_hash import root_context
from audit.rotation import load_predecessor, rotate_log
from audit.sealing import KeyContext, fingerprint, new_key_id, new_share, wrap_share
from audit.storage import Disk
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import ORIGIN, Auditor, FakePeer, intent

TODAY = "2026-11-23"
"""The day of the tests' clock."""
ADA = ReadBy("console", "ada", "default", "jti-1", "10.0.0.9", 4000)
RUDI = ReadBy("console", "rudi", "default", "jti-2", "10.0.0.8", 4000)
OF_ACME = ReadBy("console", "zoe", "acme", "jti-3", "10.0.0.7", 4000)
OF_OTHERS = ReadBy("console", "kim", "umbrella", "jti-4", "10.0.0.6", 4000)
DAY_S = 86_400.0


class House:
    """An auditor with a gateway and an engine."""

    def __init__(
        self, home: Path, *, utc_ms: int | None = None, origin: str = ORIGIN, predecessor: Any = None, **custody: Any
    ) -> None:
        self.custody = custody
        self.auditor = Auditor(home, origin=origin, utc_ms=utc_ms, custody=Custody(**custody), predecessor=predecessor)
        self.gateway = self.auditor.connect("gateway")
        self.engine = self.auditor.connect("engine")

    def ask(self, message: Any, kind: type[Any]) -> Any:
        self.gateway.take()
        self.auditor.tell(self.gateway, message)
        (answer,) = self.gateway.take(kind, AppendRefused)
        return answer

    def keep(self, day: str = TODAY, tenant: str = "t") -> tuple[str, bytes]:
        key_id = new_key_id()
        kept = self.ask(KeepBodyKey(1, tenant, day, key_id, b"[]"), BodyKeyKept)
        assert isinstance(kept, BodyKeyKept)
        return key_id, kept.share

    def record(self, key_id: str, day: str = TODAY, uid: str = "req-1") -> int:
        """An intent with a sealed prompt, of tenant t."""
        message = intent(uid)
        event = parse_canonical(message.event)
        event["unmapped"]["casemate"]["prompt_body"] = {
            "day": day, "key_id": key_id, "length": 9, "offset": 0, "sha256": "ab",
        }  # fmt: skip
        recorded = self.ask(msgspec.structs.replace(message, event=encode_event(event)), IntentRecorded)
        assert isinstance(recorded, IntentRecorded)
        return recorded.index

    def propose(self, by: ReadBy, role: Any, kind: Any, **given: Any) -> Any:
        fields = {"retention_days": None, "tenant": "", "from_day": "", "to_day": "", "hold_id": ""} | given
        return self.ask(ProposeChange(1, by, role, kind, "because", **fields), RulesNow)

    def agree(self, kind: Any, **given: Any) -> Rules:
        """Both roles."""
        proposed = self.propose(ADA, "auditor", kind, **given)
        confirmed = self.ask(DecideChange(2, RUDI, "admin", proposed.changed_id, True), RulesNow)
        assert isinstance(confirmed, RulesNow)
        return msgspec.json.decode(confirmed.rules, type=Rules)

    def shares(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.auditor.home / "shares")) for path in self.auditor.home.glob("shares/*/*")
        )

    def last(self, kind: str) -> Any:
        return [r for r in self.auditor.records() if r["unmapped"]["casemate"]["kind"] == kind][-1]


def again(house: House, stop_s: float = 0.0) -> House:
    """The auditor's next life, after a stop of so long by the clock."""
    house.auditor.die()
    passed_ms = round((house.auditor.now_s - 100.0 + stop_s) * 1000)
    return House(house.auditor.home, utc_ms=house.auditor.utc_ms + passed_ms, **house.custody)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@control("AU-9", "3.3.8", "AU-10")
def test_a_share_is_given_only_after_its_record(house: House) -> None:
    """Who, from where, which body; then the share and the escrow that were kept."""
    key_id, share = house.keep()
    index = house.record(key_id)
    given = house.ask(OpenBody(7, ADA, index), BodyShare)
    assert (given.share, given.escrow, given.purpose, given.tenant) == (share, b"[]", "prompt", "t")
    event = house.last("body_opened")
    assert event["actor"]["user"]["uid"] == "ada"
    assert (event["entity"]["uid"], event["src_endpoint"]["ip"]) == (str(index), "10.0.0.9")
    house.auditor.service.received(house.gateway, OpenBody(8, ADA, index))
    assert house.gateway.take(BodyShare) == []
    size = house.auditor.writer.size
    house.auditor.service.turn()
    assert [answer.correlation for answer in house.gateway.take(BodyShare)] == [8]
    assert house.auditor.writer.size == size + 1


def test_without_a_record_there_is_no_share(house: House) -> None:
    """With the log's disk full nobody opens anything."""
    key_id, _ = house.keep()
    index = house.record(key_id)
    house.auditor.service._ledger._fault = "the disk is full"
    refused = house.ask(OpenBody(1, ADA, index), BodyShare)
    assert (type(refused), refused.code) == (AppendRefused, "not_durable")
    house.auditor.service._ledger._fault = "the disk is full"
    assert isinstance(house.ask(KeepBodyKey(1, "t", TODAY, new_key_id(), b"[]"), BodyKeyKept), AppendRefused)


def test_auditors_open_their_tenants_bodies_only(tmp_path: Path) -> None:
    """Those of the overseeing tenant everybody's; for the others it is as if there were none, and no record is made."""
    house = House(tmp_path)
    index = house.record(house.keep()[0])
    assert isinstance(house.ask(OpenBody(1, ADA, index), BodyShare), BodyShare)
    before = house.auditor.kinds().count("body_opened")
    hidden = house.ask(OpenBody(1, OF_OTHERS, index), BodyShare)
    missing = house.ask(OpenBody(1, OF_OTHERS, 10_000), BodyShare)
    assert hidden.code == missing.code == "not_found"
    assert house.auditor.kinds().count("body_opened") == before


def test_a_record_opens_no_other_tenants_body(house: House) -> None:
    """A gateway that writes a record of one tenant which names another's key helps no auditor of the first to that one's share."""
    index = house.record(house.keep(tenant="umbrella")[0])
    for auditor in (ADA, OF_OTHERS):
        assert house.ask(OpenBody(1, auditor, index), BodyShare).code == "not_found"
    assert "body_opened" not in house.auditor.kinds()


def test_no_key_is_kept_for_a_day_to_come(house: House) -> None:
    """What is sealed under it would live longer than the retention says."""
    refused = house.ask(KeepBodyKey(1, "t", "2026-11-24", new_key_id(), b"[]"), BodyKeyKept)
    assert (type(refused), refused.code) == (AppendRefused, "malformed")
    assert house.shares() == []


def test_records_without_a_body_and_other_peers_get_nothing(house: House) -> None:
    """An engine or an authority cannot ask at all."""
    assert house.ask(OpenBody(1, ADA, 0), BodyShare).code == "not_found"
    index = house.record(house.keep()[0])
    for role in ("engine", "authority", "policy", "reader"):
        peer = house.auditor.connect(role)  # type: ignore[arg-type]
        peer.take()
        house.auditor.tell(peer, OpenBody(1, ADA, index))
        (refused,) = peer.take(BodyShare, AppendRefused)
        assert refused.code == "not_permitted"


@pytest.mark.parametrize(
    ("day", "key_id"),
    [("../..", "0" * 32), (TODAY, "../../log.key"), (TODAY, "A" * 32), ("2026-13-01", "0" * 32), ("", "")],
)
def test_names_that_lead_elsewhere_are_refused(house: House, day: str, key_id: str) -> None:
    """Neither to keep nor to open; the link stays."""
    assert isinstance(house.ask(KeepBodyKey(1, "t", day[:10], key_id[:32], b"[]"), BodyKeyKept), AppendRefused)
    index = house.record(key_id, day)
    assert isinstance(house.ask(OpenBody(1, ADA, index), BodyShare), AppendRefused)
    assert house.auditor.cut == []


def test_shares_survive_the_auditor(tmp_path: Path) -> None:
    """What was sealed before a crash can be opened after it."""
    house = House(tmp_path)
    key_id, share = house.keep()
    index = house.record(key_id)
    house.auditor.die()
    house = House(tmp_path)
    assert house.ask(OpenBody(1, ADA, index), BodyShare).share == share


@control("AU-11", "3.3.1")
def test_what_is_older_than_the_retention_is_destroyed_and_recorded(tmp_path: Path) -> None:
    """Shares and escrows of the period; younger ones stay; the gateways are told, the log stays as it is."""
    house = House(tmp_path, retention_days=2)
    old, young = house.keep("2026-11-20")[0], house.keep(TODAY)[0]
    index = house.record(old, "2026-11-20")
    house.gateway.take()
    house.auditor.pass_time(3_601.0)
    assert house.shares() == [f"{TODAY}/{young}.json"]
    (told,) = house.gateway.take(BodiesDestroyed)
    assert (told.day, told.key_ids) == ("2026-11-20", [old])
    own = house.last("log_bodies_destroyed")["unmapped"]["casemate"]
    assert (own["day"], own["num_keys"], own["retention_days"]) == ("2026-11-20", 1, 2)
    assert house.ask(OpenBody(1, ADA, index), BodyShare).code == "not_found"
    house.auditor.pass_time(3_601.0)
    assert house.auditor.kinds().count("log_bodies_destroyed") == 1


def test_a_start_destroys_what_is_due_too(tmp_path: Path) -> None:
    """An appliance that was off does not keep longer."""
    house = House(tmp_path, retention_days=2)
    key_id = house.keep("2026-11-20")[0]
    house.auditor.die()
    house = House(tmp_path, retention_days=2)
    assert house.shares() == []
    (told,) = house.auditor.connect("gateway", 1).take(BodiesDestroyed)  # It starts later than the auditor.
    assert (told.day, told.key_ids) == ("2026-11-20", [key_id])


@control("AU-11", "AU-9(5)")
def test_a_hold_forbids_destruction_until_it_is_lifted(tmp_path: Path) -> None:
    """Of its tenant and days alone; placed and lifted by both."""
    house = House(tmp_path, retention_days=2)
    rules = house.agree("hold", tenant="acme", from_day="2026-11-19", to_day="2026-11-20")
    held, free = house.keep("2026-11-20", "acme")[0], house.keep("2026-11-20", "umbrella")[0]
    house.auditor.pass_time(3_601.0)
    assert house.shares() == [f"2026-11-20/{held}.json"]
    assert free not in "".join(house.shares())
    assert house.last("hold_placed")["unmapped"]["casemate"]["approvers"] == ["ada", "rudi"]
    places = [house.last(kind)["src_endpoint"]["ip"] for kind in ("rules_proposed", "hold_placed")]
    assert places == [ADA.address, RUDI.address]
    assert house.agree("lift", hold_id=rules.holds[0].hold_id).holds == ()
    house.auditor.pass_time(1.0)
    assert house.shares() == []
    assert "hold_lifted" in house.auditor.kinds()


@control("AU-9(4)", "AU-9(5)", "AC-3(2)", "3.3.9")
def test_one_person_or_one_role_changes_nothing(house: House) -> None:
    """A proposal waits; the proposer, and others of the role, cannot confirm it; what is in force stays."""
    proposed = house.propose(ADA, "auditor", "retention", retention_days=365)
    for by, role in ((ADA, "auditor"), (OF_ACME, "auditor"), (ADA, "admin")):
        refused = house.ask(DecideChange(1, by, role, proposed.changed_id, True), RulesNow)  # type: ignore[arg-type]
        assert (type(refused), refused.code) == (AppendRefused, "refused")
    now = house.ask(FetchRules(1), RulesNow)
    assert json.loads(now.rules)["retention_days"] == 30
    assert "retention_changed" not in house.auditor.kinds()
    confirmed = house.ask(DecideChange(1, RUDI, "admin", proposed.changed_id, True), RulesNow)
    assert json.loads(confirmed.rules)["retention_days"] == 365
    event = house.last("retention_changed")
    assert event["entity"]["data"] == {"retention_days": 30}
    assert event["updated_entity"]["data"]["retention_days"] == 365
    assert event["unmapped"]["casemate"]["approvers"] == ["ada", "rudi"]


@control("AU-9(5)", "3.3.9")
def test_what_was_decided_is_told_another_way_than_the_gateways(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who decides is the gateway's word: a captured one could propose and confirm in two people's names."""
    proposed = house.propose(ADA, "auditor", "retention", retention_days=1)
    assert "audit_alert" not in capsys.readouterr().out
    house.ask(DecideChange(1, RUDI, "admin", proposed.changed_id, True), RulesNow)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "audit_alert" in line]
    for words in ("rules_decided", "retention_changed", "retention_days 1", "proposed by ada, confirmed by rudi"):
        assert words in line
    refused = house.propose(ADA, "auditor", "retention", retention_days=2)
    house.ask(DecideChange(1, RUDI, "admin", refused.changed_id, False), RulesNow)
    assert "audit_alert" not in capsys.readouterr().out


def test_rules_survive_the_auditor_and_a_damaged_file_stops_it(tmp_path: Path) -> None:
    """What is held must not be guessed."""
    house = House(tmp_path)
    house.agree("retention", retention_days=365)
    house.propose(ADA, "auditor", "rotation")
    house.auditor.die()
    house = House(tmp_path)
    rules = msgspec.json.decode(house.ask(FetchRules(1), RulesNow).rules, type=Rules)
    assert (rules.retention_days, [one.kind for one in rules.proposals]) == (365, ["rotation"])
    house.auditor.die()
    (tmp_path / "rules.json").write_bytes(b"{")
    with pytest.raises(StateMismatch):
        House(tmp_path)


def test_two_confirmations_in_one_commit_count_once(house: House) -> None:
    """Both were looked at before either was durable."""
    proposed = house.propose(ADA, "auditor", "hold", from_day="2026-11-01", to_day="2026-11-02")
    house.gateway.take()
    for number in (1, 2):
        house.auditor.service.received(house.gateway, DecideChange(number, RUDI, "admin", proposed.changed_id, True))
    house.auditor.service.turn()
    house.gateway.take()
    rules = msgspec.json.decode(house.ask(FetchRules(1), RulesNow).rules, type=Rules)
    assert len(rules.holds) == 1
    assert house.auditor.kinds().count("hold_placed") == 1


def test_gateways_that_are_strangers_to_it_are_not_told(house: House) -> None:
    """A peer that left gets nothing of a later destruction."""
    other: FakePeer = house.auditor.connect("gateway", 1)
    house.auditor.service.link_ended(other)
    other.take()
    house.keep("2026-01-01")
    house.auditor.pass_time(3_601.0)
    assert other.take(BodiesDestroyed) == []
    assert len(house.gateway.take(BodiesDestroyed)) == 1


@pytest.mark.parametrize("kind", ["retention", "hold", "rotation"])
def test_a_decision_that_a_crash_kept_from_being_in_force_is_an_alarm(tmp_path: Path, kind: Any) -> None:
    """Its record is durable, its file is not: nobody must believe the record alone."""
    house = House(tmp_path)
    given = {"retention": {"retention_days": 9}, "hold": {"from_day": TODAY, "to_day": TODAY}, "rotation": {}}[kind]
    proposed = house.propose(ADA, "auditor", kind, **given)
    decide = DecideChange(2, RUDI, "admin", proposed.changed_id, True)
    house.auditor.service.received(house.gateway, decide)
    house.auditor.service._ledger.writer.commit()  # The record is durable, and then there is no more power.
    house.auditor.die()
    house = House(tmp_path)
    (alarm,) = house.gateway.last(AuditorStatus).alarms
    assert proposed.changed_id in alarm
    assert "is not in force" in alarm
    assert isinstance(house.ask(decide, RulesNow), RulesNow)
    house.auditor.pass_time(1.0)
    assert house.gateway.last(AuditorStatus).alarms == ()


ROOT, OTHER_ROOT = b"\x01" * 32, b"\x02" * 32


@control("SC-12", "3.13.10")
def test_all_workers_hash_a_tenants_day_by_one_root_and_its_keeping_is_a_record(tmp_path: Path) -> None:
    """The first that is brought counts, after a restart too; it is given only when it is recorded that it exists."""
    house = House(tmp_path)
    house.gateway.take()
    house.auditor.service.received(house.gateway, KeepHashRoot(1, "t", TODAY, ROOT, b"[]"))
    assert house.gateway.take(HashRootKept) == []
    house.auditor.service.turn()
    (first,) = house.gateway.take(HashRootKept)
    assert first.root == ROOT
    assert house.ask(KeepHashRoot(2, "t", TODAY, OTHER_ROOT, b"[]"), HashRootKept).root == ROOT
    assert house.ask(KeepHashRoot(3, "u", TODAY, OTHER_ROOT, b"[]"), HashRootKept).root == OTHER_ROOT
    house.auditor.die()
    house = House(tmp_path)
    assert house.ask(KeepHashRoot(4, "t", TODAY, OTHER_ROOT, b"[]"), HashRootKept).root == ROOT
    assert house.auditor.kinds().count("hash_root_kept") == 2
    assert ROOT.hex() not in repr(first) + repr(KeepHashRoot(1, "t", TODAY, ROOT, b"[]"))


@pytest.mark.parametrize("day", ["2026-11-21", "2026-11-24", "", "../..", "2026-13-01"])
def test_a_gateway_gets_no_other_days_root(house: House, day: str) -> None:
    """A captured one could look up what was asked before it was captured; yesterday is for who asks at midnight."""
    assert house.ask(KeepHashRoot(1, "t", day, ROOT, b"[]"), HashRootKept).code == "malformed"
    assert house.shares() == []
    assert house.ask(KeepHashRoot(2, "t", "2026-11-22", ROOT, b"[]"), HashRootKept).root == ROOT


def test_a_root_passes_for_no_share_of_a_body(house: House) -> None:
    """A gateway that writes a record which names a root as the key of a body, and opens it in an auditor's name, gets nothing."""
    house.ask(KeepHashRoot(1, "t", TODAY, ROOT, b"[]"), HashRootKept)
    index = house.record(root_context("t", TODAY).key_id)
    assert house.ask(OpenBody(2, ADA, index), BodyShare).code == "not_found"


@control("AU-11", "3.8.3")
def test_roots_are_destroyed_with_their_day_unless_a_hold_covers_their_tenant(tmp_path: Path) -> None:
    """As the shares of the bodies are, in one record; another tenant's hold saves nothing of this one's."""
    house = House(tmp_path, retention_days=2)
    for tenant in ("acme", "umbrella"):
        house.ask(KeepHashRoot(1, tenant, TODAY, ROOT, b"[]"), HashRootKept)
    house.agree("hold", tenant="acme", from_day=TODAY, to_day=TODAY)
    house.auditor.pass_time(4 * DAY_S)
    assert house.shares() == [f"{TODAY}/{root_context('acme', TODAY).key_id}.json"]
    assert house.last("log_bodies_destroyed")["unmapped"]["casemate"]["num_keys"] == 1
    left = b"".join(path.read_bytes() for path in (tmp_path / "shares").rglob("*.json"))
    assert b"umbrella" not in left


class FullDisk(Disk):
    """Has room for so many files yet."""

    def __init__(self, num_files: int) -> None:
        self.num_files = num_files

    def write_file(self, path: Path, data: bytes, temporary: Path) -> None:
        self.num_files -= 1
        if self.num_files < 0:
            raise NotDurable(f"{path}: write: No space left on device")
        super().write_file(path, data, temporary)


@control("AU-5", "3.3.4")
def test_a_key_that_finds_no_space_makes_the_log_full(tmp_path: Path) -> None:
    """Nobody of the tenant is answered, so it is not ready, told and recorded, until there is space again."""
    house = House(tmp_path)
    store = house.auditor.service._stewardship._bodies._store
    store._disk = FullDisk(0)
    asked = KeepHashRoot(1, "t", TODAY, b"\x07" * 32, b"[]")
    refused = house.ask(asked, HashRootKept)
    assert (type(refused), refused.code) == (AppendRefused, "not_durable")
    house.auditor.pass_time(1.1)
    assert "No space left" in house.last("log_full")["status_detail"]
    store._disk = Disk()
    house.auditor.pass_time(1.1)
    assert isinstance(house.ask(asked, HashRootKept), HashRootKept)
    assert house.auditor.kinds()[-2:] == ["log_writable", "hash_root_kept"]


def test_a_rule_whose_file_cannot_be_written_is_nobodys_promise(tmp_path: Path) -> None:
    """It is recorded and holds; who confirmed is told what is wrong, an alarm stays until the file could be written after all."""
    house = House(tmp_path)
    proposed = house.propose(ADA, "auditor", "retention", retention_days=9)
    governance = house.auditor.service._stewardship._governance
    governance._disk = FullDisk(1)  # That a decision is under way still fits; the decision does not.
    refused = house.ask(DecideChange(2, RUDI, "admin", proposed.changed_id, True), RulesNow)
    assert (refused.code, "holds until the next start" in refused.message) == ("not_durable", True)
    assert governance.rules.retention_days == 9
    assert "retention_changed" in house.auditor.kinds()
    house.auditor.pass_time(1.1)
    (alarm,) = house.gateway.last(AuditorStatus).alarms
    assert "cannot be written" in alarm
    governance._disk = Disk()
    house.auditor.pass_time(1.1)
    house.auditor.pass_time(1.1)
    assert house.gateway.last(AuditorStatus).alarms == ()
    house.auditor.die()
    assert json.loads(House(tmp_path).ask(FetchRules(1), RulesNow).rules)["retention_days"] == 9


def test_a_decision_that_cannot_begin_for_want_of_space_changes_nothing(house: House) -> None:
    """No record, no alarm; the proposal waits on."""
    proposed = house.propose(ADA, "auditor", "retention", retention_days=9)
    governance = house.auditor.service._stewardship._governance
    governance._disk = FullDisk(0)
    decide = DecideChange(2, RUDI, "admin", proposed.changed_id, True)
    assert house.ask(decide, RulesNow).code == "not_durable"
    house.auditor.pass_time(1.1)
    assert house.gateway.last(AuditorStatus).alarms == ()
    assert "retention_changed" not in house.auditor.kinds()
    governance._disk = Disk()
    assert isinstance(house.ask(decide, RulesNow), RulesNow)


@control("AU-9(4)", "AU-9(5)", "AU-11", "3.3.9")
def test_one_person_changes_no_retention_by_the_configuration(tmp_path: Path) -> None:
    """It is that of the first start; who shortens it in the file afterwards destroys nothing."""
    house = House(tmp_path, retention_days=30)
    key_id = house.keep("2026-11-10")[0]
    house.auditor.die()
    house = House(tmp_path, retention_days=1)
    assert house.shares() == [f"2026-11-10/{key_id}.json"]
    assert json.loads(house.ask(FetchRules(1), RulesNow).rules)["retention_days"] == 30
    house.auditor.pass_time(1.0)
    assert house.gateway.last(AuditorStatus).alarms == ()


@control("AU-9(5)", "AU-11")
@pytest.mark.parametrize("is_older", [True, False])
def test_nothing_is_destroyed_by_rules_that_are_not_those_of_the_log(tmp_path: Path, is_older: bool) -> None:
    """A lost file, or one of a backup: the hold is in the log, and keeps what it held, until two people have decided again."""
    house = House(tmp_path, retention_days=2)
    older = (tmp_path / "rules.json").read_bytes()
    held = {"from_day": "2026-11-19", "to_day": "2026-11-20"}
    house.agree("hold", **held)
    key_id = house.keep("2026-11-20")[0]
    house.auditor.die()
    if is_older:
        (tmp_path / "rules.json").write_bytes(older)
    else:
        (tmp_path / "rules.json").unlink()
    for _ in range(2):  # The next start must not take the first one's word.
        house = House(tmp_path, retention_days=2)
        house.auditor.pass_time(3_601.0)
        assert house.shares() == [f"2026-11-20/{key_id}.json"]
        (alarm,) = house.gateway.last(AuditorStatus).alarms
        assert "holds may be missing" in alarm
        house.auditor.die()
    house = House(tmp_path, retention_days=2)
    rules = house.agree("hold", **held)
    house.auditor.pass_time(3_601.0)
    house.auditor.pass_time(1.0)
    assert house.gateway.last(AuditorStatus).alarms == ()
    assert house.shares() == [f"2026-11-20/{key_id}.json"]
    house.agree("lift", hold_id=rules.holds[0].hold_id)
    house.auditor.pass_time(1.0)
    assert house.shares() == []


def test_each_start_tells_the_rules_in_force(tmp_path: Path) -> None:
    """So that an auditor sees holds that are gone though nobody lifted them."""
    house = House(tmp_path)
    rules = house.agree("hold", from_day=TODAY, to_day=TODAY)
    assert house.last("hold_placed")["unmapped"]["casemate"]["rules"] == rules.digest
    house.auditor.die()
    own = House(tmp_path).last("log_started")["unmapped"]["casemate"]
    assert (own["num_holds"], own["retention_days"], own["rules"]) == (1, 30, rules.digest)


def test_a_log_of_an_earlier_release_has_no_word_on_the_rules(tmp_path: Path) -> None:
    """Its file counts: a program that went back and came forward again finds what was decided between."""
    house = House(tmp_path, retention_days=2)
    event = house.auditor.service._ledger.describe("log_started", {"scan_from": 0})
    house.auditor.service._ledger.add_own(event)
    house.auditor.service.turn()
    house.auditor.die()
    save_rules(tmp_path / "rules.json", Rules(9), Disk())
    house = House(tmp_path, retention_days=2)
    house.auditor.pass_time(1.0)
    assert house.gateway.last(AuditorStatus).alarms == ()
    assert json.loads(house.ask(FetchRules(1), RulesNow).rules)["retention_days"] == 9


def held_back(house: House) -> bool:
    """Whether an alarm says that what is due by the clock is not destroyed."""
    return any("due by the clock and not destroyed" in alarm for alarm in house.gateway.last(AuditorStatus).alarms)


@control("AU-8", "AU-11", "3.3.7")
@pytest.mark.parametrize("step_ms", [100 * 86_400_000, 23 * 3_600_000])
def test_a_clock_that_leaps_destroys_nothing(tmp_path: Path, step_ms: int) -> None:
    """In one step or in several; nor does the next start, as nobody has looked."""
    house = House(tmp_path, retention_days=30)
    key_id = house.keep()[0]
    for _ in range(100 * 86_400_000 // step_ms):
        house.auditor.utc_ms += step_ms
        house.auditor.pass_time(3_601.0)
    for _ in range(2):
        assert house.shares() == [f"{TODAY}/{key_id}.json"]
        assert held_back(house)
        house = again(house)


@control("AU-8", "AU-11", "3.3.7")
@pytest.mark.parametrize("step_s", [100 * DAY_S, 23 * 3_600.0])
def test_a_clock_that_leapt_over_a_stop_destroys_nothing(tmp_path: Path, step_s: float) -> None:
    """Whoever stops the appliance, sets the clock and starts it, once or again and again, has no bodies destroyed by it."""
    house = House(tmp_path, retention_days=30)
    key_id = house.keep()[0]
    for _ in range(round(100 * DAY_S // step_s)):
        house = again(house, step_s)
    house.auditor.pass_time(3_601.0)
    assert house.shares() == [f"{TODAY}/{key_id}.json"]
    assert held_back(house)
    for kind in ("log_started", "log_time_unvouched"):
        assert house.last(kind)["unmapped"]["casemate"]["unvouched_ms"] >= 90 * 86_400_000


def test_short_stops_hold_nothing_back(tmp_path: Path) -> None:
    """As long as they are no day together: an upgrade now and then is no alarm."""
    house = House(tmp_path, retention_days=2)
    key_id = house.keep("2026-11-21")[0]
    for _ in range(3):
        house = again(house, 6 * 3_600.0)
    assert (house.shares(), held_back(house)) == ([f"2026-11-21/{key_id}.json"], False)
    assert "log_time_unvouched" not in house.auditor.kinds()
    house.auditor.pass_time(DAY_S)
    assert (house.shares(), held_back(house)) == ([], False)


def test_what_was_due_before_the_leap_is_destroyed_all_the_same(tmp_path: Path) -> None:
    """Time that was vouched for counts; only what lies beyond does not."""
    house = House(tmp_path, retention_days=5)
    house.keep("2026-11-19")
    key_id = house.keep()[0]
    house = again(house, 100 * DAY_S)
    house.auditor.pass_time(2 * DAY_S)
    assert house.shares() == [f"{TODAY}/{key_id}.json"]


@control("AC-3(2)", "AU-8", "AU-9(5)", "AU-11")
def test_two_people_vouch_for_the_clock_and_one_does_not(tmp_path: Path) -> None:
    """After a stop of weeks: then what is due is destroyed, and the next start remembers their word."""
    house = House(tmp_path, retention_days=30)
    house.keep()
    house = again(house, 100 * DAY_S)
    proposed = house.propose(ADA, "auditor", "time").changed_id
    assert house.ask(DecideChange(2, ADA, "auditor", proposed, True), RulesNow).code == "refused"
    house.auditor.pass_time(3_601.0)
    assert held_back(house)
    assert isinstance(house.ask(DecideChange(2, RUDI, "admin", proposed, True), RulesNow), RulesNow)
    house.auditor.pass_time(1.0)
    assert (house.shares(), held_back(house)) == ([], False)
    own = house.last("log_time_vouched")["unmapped"]["casemate"]
    assert (own["proposed_by"], own["unvouched_ms"]) == ("ada", 0)
    assert own["vouched_ms"] >= 99 * 86_400_000
    house.keep("2027-03-03")
    house = again(house, 60.0)
    assert abs(house.last("log_started")["unmapped"]["casemate"]["unvouched_ms"]) < 3_600_000


@pytest.mark.parametrize("how", ["set", "started"])
def test_who_confirms_vouches_for_the_clock_that_was_proposed(tmp_path: Path, how: str) -> None:
    """One that was set in between, over a start or not, is another."""
    house = House(tmp_path)
    house = again(house, 3 * DAY_S)
    proposed = house.propose(ADA, "auditor", "time").changed_id
    if how == "set":
        house.auditor.utc_ms += 5 * 86_400_000
    else:
        house = again(house, 5 * DAY_S)
    refused = house.ask(DecideChange(2, RUDI, "admin", proposed, True), RulesNow)
    assert "propose it again" in refused.message


@control("AU-11", "AU-9(5)")
@pytest.mark.parametrize("is_taken_away", [False, True])
def test_a_rotation_makes_no_rules_forgotten(tmp_path: Path, is_taken_away: bool) -> None:
    """The log before says which are in force; where it was taken away nothing is destroyed until two people have decided."""
    house = House(tmp_path, retention_days=2)
    older = (tmp_path / "rules.json").read_bytes()
    house.agree("hold", from_day="2026-11-19", to_day="2026-11-20")
    key_id = house.keep("2026-11-20")[0]
    house.auditor.service.stop()
    house.auditor.die()
    _, old = rotate_log(tmp_path / "log", tmp_path / "log.key")
    (tmp_path / "rules.json").write_bytes(older)
    if is_taken_away:
        old.rename(tmp_path / "elsewhere")
    for _ in range(2):
        house = House(
            tmp_path, origin="log.example/next", predecessor=load_predecessor(tmp_path / "log"), retention_days=2
        )
        house.auditor.pass_time(3_601.0)
        assert house.shares() == [f"2026-11-20/{key_id}.json"]
        assert any("holds may be missing" in alarm for alarm in house.gateway.last(AuditorStatus).alarms)
        house.auditor.die()


def test_a_log_that_was_taken_away_takes_no_rules_with_it(tmp_path: Path) -> None:
    """A new one knows nothing, and there is something to lose: two people say what holds, and what time it is."""
    house = House(tmp_path, retention_days=2)
    key_id = house.keep("2026-11-20")[0]
    house.auditor.die()
    for name in ("log", "log.key", "log.vkey"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    house = House(tmp_path, retention_days=2, origin="log.example/next")
    house.auditor.pass_time(3_601.0)
    assert house.shares() == [f"2026-11-20/{key_id}.json"]
    house.agree("retention", retention_days=2)
    house.auditor.pass_time(1.0)
    assert (house.shares(), held_back(house)) == ([f"2026-11-20/{key_id}.json"], True)
    house.agree("time")
    house.auditor.pass_time(1.0)
    assert house.shares() == []


@control("AU-9", "3.3.8", "AU-12")
def test_the_record_of_a_key_names_who_can_open_what_it_seals(house: House) -> None:
    """By the fingerprints of the escrow: whoever puts a key of their own among the auditors' shows. Rubbish is no escrow."""
    keys = [X25519PrivateKey.generate().public_key() for _ in range(2)]
    escrow = wrap_share(new_share(), keys, KeyContext("t", TODAY, new_key_id()))
    house.ask(KeepBodyKey(1, "t", TODAY, new_key_id(), escrow), BodyKeyKept)
    said = house.last("body_key_kept")["updated_entity"]["data"]
    assert said == {"day": TODAY, "recipients": " ".join(map(fingerprint, keys)), "tenant": "t"}
    assert house.ask(KeepBodyKey(1, "t", TODAY, new_key_id(), b"{"), BodyKeyKept).code == "malformed"
