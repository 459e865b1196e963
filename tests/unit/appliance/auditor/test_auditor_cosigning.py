"""Witnesses asked by the auditor itself: a quorum's word is kept, rubbish changes nothing, a disputed history is an alarm."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from appliance.auditor.cosigning import Witnessing
from appliance.auditor.ledger import Clock
from appliance.auditor.quorum_watch import QuorumWatch
from appliance.auditor.watches import Limits
from appliance.auditor.witnesses import parse_witnesses
from appliance.messages.audit import AppendEvent, AuditorStatus, FetchProof, Proof
from appliance.messages.witnessing import AskWitness, WitnessAnswered
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import verify_cosignatures
from audit.courier import COSIGNED
from audit.entry import encode_event
from audit.errors import KeyUnusable
from audit.events import process_event
from audit.proof import parse_proof, verify_proof
from audit.signing_key import load_signer, open_cosigners
from audit.witness import Answer, Witness, encode_request
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import Auditor, FakePeer

EVENT = AppendEvent(5, encode_event(process_event("process_started", role="engine", instance=0, pid=1)))


class Here(Executor):
    """Runs at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Site:
    """An auditor, a courier, and witnesses elsewhere."""

    def __init__(self, home: Path, num_witnesses: int = 2, quorum: int = 1) -> None:
        self.home = home
        self.cosigners = [
            open_cosigners(home / f"w{number}", f"witness.example/w{number}", with_mldsa=False)[0]
            for number in range(num_witnesses)
        ]
        keys = [cosigner.key for cosigner in self.cosigners]
        self.keys = keys
        self.auditor = Auditor(
            home,
            limits=Limits(witnesses=tuple(keys), witness_max_age_s=3_600, witness_quorum=quorum),
            witnessing=Witnessing([(key, True) for key in keys], quorum, 30, Here()),
        )
        self.witnesses = [self.open_witness(number) for number in range(num_witnesses)]
        self.supervisor = self.auditor.connect("supervisor")
        self.gateway = self.auditor.connect("gateway")
        self.grow()
        self.courier = self.auditor.connect("courier")

    def open_witness(self, number: int, state: str = "") -> Witness:
        return Witness(
            self.home / (state or f"w{number}"),
            [self.cosigners[number]],
            [self.auditor.writer.key],
            lambda: self.auditor.utc_ms / 1000 + self.auditor.now_s - 100,
        )

    def grow(self) -> None:
        for _ in range(3):
            self.auditor.tell(self.supervisor, EVENT)
        self.auditor.pass_time(1.0)

    def carry(self, *away: int) -> list[int]:
        """Let the courier carry until nobody is asked any more; gives which witnesses were asked."""
        self.auditor.service.turn()
        asked: list[int] = []
        while questions := self.courier.take(AskWitness):
            for question in questions:
                asked.append(question.witness)
                if question.witness not in away:
                    self.answer(question, self.witnesses[question.witness].add_checkpoint(question.body))
        return asked

    def answer(self, question: AskWitness, answer: Answer) -> None:
        message = WitnessAnswered(question.witness, question.correlation, answer.status, answer.body)
        self.auditor.tell(self.courier, message)

    def cosigned(self) -> tuple[int, set[str]]:
        """Size of what is kept, and who cosigned it."""
        path = self.home / COSIGNED
        if not path.exists():
            return 0, set()
        key = self.auditor.writer.key
        note = path.read_bytes()
        return verify_checkpoint(note, [key], key.name).size, set(verify_cosignatures(note, self.keys))

    def status(self) -> AuditorStatus:
        self.auditor.pass_time(6.0)
        status = self.gateway.last(AuditorStatus)
        assert isinstance(status, AuditorStatus)
        return status


@control("AU-10", "AU-9(3)")
def test_witnesses_are_asked_every_interval_and_their_words_meet_in_one_note(tmp_path: Path) -> None:
    """Both cosign the same checkpoint; the status says for how many records, and how long ago."""
    site = Site(tmp_path, quorum=2)
    assert site.carry() == [0, 1]
    first = site.auditor.writer.checkpoint.size
    assert site.cosigned() == (first, {"witness.example/w0", "witness.example/w1"})
    status = site.status()
    assert status.cosigned_size == first
    assert 0 <= status.cosigned_age_s <= 10
    site.grow()
    assert site.carry() == []
    site.auditor.pass_time(30.0)
    site.grow()
    assert site.carry() == [0, 1]
    assert site.cosigned()[0] > first


def test_fewer_than_the_quorum_do_not_count_and_do_not_displace_it(tmp_path: Path) -> None:
    """One witness that is away leaves the last quorum's word where it is, and its age grows."""
    site = Site(tmp_path, quorum=2)
    site.carry()
    before = site.cosigned()
    site.grow()
    site.auditor.pass_time(60.0)
    assert site.carry(1) == [0, 1]
    assert site.auditor.writer.checkpoint.size > before[0], "one of them has cosigned more"
    assert site.cosigned() == before
    assert site.status().cosigned_age_s >= 60


def test_a_witness_that_remembers_more_than_we_thought_is_asked_once_more(tmp_path: Path) -> None:
    """After a restart of the auditor nothing is known of what was asked before: 409 tells."""
    site = Site(tmp_path, num_witnesses=1)
    site.carry()
    site.auditor.service.link_ended(site.courier)
    site.auditor.die()
    site.auditor = Auditor(
        tmp_path,
        limits=Limits(witnesses=tuple(site.keys), witness_max_age_s=3_600),
        witnessing=Witnessing([(site.keys[0], True)], 1, 30, Here()),
    )
    site.supervisor, site.gateway = site.auditor.connect("supervisor"), site.auditor.connect("gateway")
    site.grow()
    site.courier = site.auditor.connect("courier")
    assert site.carry() == [0, 0]
    assert site.cosigned()[0] == site.auditor.writer.checkpoint.size
    assert site.status().alarms == ()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b""),
        Answer(200, b"\xff\xfe\x00rubbish"),
        Answer(200, "— witness.example/w0 AAAA\n".encode()),
        Answer(200, "— stranger.example/x AAAAAAAA\n".encode() * 1000),
        Answer(409, b"\xff\xff"),
        Answer(409, b"-1\n"),
        Answer(409, b"007\n"),
        Answer(409, b"9" * 5_000),
        Answer(500, b"<html>" * 100_000),
        Answer(302, b"http://elsewhere"),
        Answer(0, b"ConnectionRefusedError"),
        Answer(404, b"this witness does not know the log"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:12]!r}",
)
def test_rubbish_changes_nothing(tmp_path: Path, answer: Answer) -> None:
    """It is logged; the other witness's word is kept, the courier's link stays, the next round is as ever."""
    site = Site(tmp_path)
    site.auditor.service.turn()
    for question in site.courier.take(AskWitness):
        good = site.witnesses[1].add_checkpoint(question.body) if question.witness == 1 else answer
        site.answer(question, good)
    site.carry()
    assert site.cosigned()[1] == {"witness.example/w1"}
    assert site.auditor.cut == []
    site.auditor.pass_time(31.0)
    site.grow()
    assert set(site.carry()) == {0, 1}
    assert site.cosigned()[1] == {"witness.example/w0", "witness.example/w1"}


def test_a_signature_that_is_wrong_is_not_kept(tmp_path: Path) -> None:
    """Of another text, under the right name."""
    site = Site(tmp_path, num_witnesses=1)
    site.auditor.service.turn()
    (question,) = site.courier.take(AskWitness)
    answer = site.witnesses[0].add_checkpoint(question.body)
    site.answer(question, Answer(200, answer.body[:-8] + b"AAAAAA=\n"))
    assert site.cosigned() == (0, set())


@control("AU-9(3)")
def test_a_log_that_went_back_is_an_alarm_and_a_record(tmp_path: Path) -> None:
    """The witness remembers more records than there are: it has seen a history that is gone."""
    site = Site(tmp_path, num_witnesses=1)
    site.auditor.service.turn()
    (question,) = site.courier.take(AskWitness)
    site.answer(question, Answer(409, b"1000\n"))
    (alarm,) = site.status().alarms
    size = site.auditor.writer.checkpoint.size
    assert "it has cosigned 1000 records, the log has" in alarm
    assert size < 1000
    assert site.auditor.kinds().count("log_history_disputed") == 1
    site.auditor.pass_time(31.0)
    (question,) = site.courier.take(AskWitness)
    site.answer(question, Answer(409, b"1000\n"))
    assert site.auditor.kinds().count("log_history_disputed") == 1


@control("AU-10")
def test_what_witnesses_have_cosigned_is_proven_with_their_words(tmp_path: Path) -> None:
    """Of newer records the proof is under the log's last checkpoint."""
    site = Site(tmp_path, num_witnesses=1)
    site.carry()
    covered = site.auditor.writer.checkpoint.size
    site.status()  # Time passes, and the kept word is looked at.
    site.grow()
    key = site.auditor.writer.key
    for index, names in ((covered - 1, {"witness.example/w0"}), (covered, set())):
        site.auditor.tell(site.gateway, FetchProof(index + 1, index))
        proof = site.gateway.last(Proof).proof.encode()
        found, checkpoint = verify_proof(proof, site.auditor.writer.read(index), [key], key.name)
        assert found == index
        assert (checkpoint.size == covered) == bool(names)
        assert set(verify_cosignatures(parse_proof(proof).checkpoint, site.keys)) == names


def test_a_witness_that_was_shown_the_next_checkpoint_first_disputes_nothing(tmp_path: Path) -> None:
    """Somebody took it from the folder by hand before the auditor had taken it in; the next round asks with a proof."""
    site = Site(tmp_path, num_witnesses=1)
    site.auditor.service.turn()
    (question,) = site.courier.take(AskWitness)
    site.auditor.tell(site.supervisor, EVENT)
    size = site.auditor.writer.size
    assert size > site.auditor.writer.checkpoint.size
    site.answer(question, Answer(409, b"%d\n" % size))
    assert site.status().alarms == ()
    assert "log_history_disputed" not in site.auditor.kinds()


@control("AU-9(3)")
def test_a_forked_log_is_an_alarm_and_a_record(tmp_path: Path) -> None:
    """The witness has cosigned another history of the same key and name: what we show does not extend it."""
    site = Site(tmp_path, num_witnesses=1)
    signer = load_signer(tmp_path / "log.key", site.auditor.writer.key.name)
    forked = signer.sign(Checkpoint(site.auditor.writer.key.name, 2, bytes(32)).encode())
    assert site.witnesses[0].add_checkpoint(encode_request(0, [], forked)).status == 200
    assert site.carry() == [0, 0]
    (alarm,) = site.status().alarms
    assert "not the beginning of this log" in alarm
    assert site.auditor.kinds().count("log_history_disputed") == 1
    assert site.cosigned() == (0, set())


def test_late_answers_and_those_of_strangers_are_dropped(tmp_path: Path) -> None:
    """A number that was not asked, a witness that is not there, another courier."""
    site = Site(tmp_path, num_witnesses=1)
    site.auditor.service.turn()
    (question,) = site.courier.take(AskWitness)
    good = site.witnesses[0].add_checkpoint(question.body)
    stranger = FakePeer("courier", 1)
    site.auditor.tell(stranger, WitnessAnswered(0, question.correlation, good.status, good.body))
    site.auditor.tell(site.courier, WitnessAnswered(0, question.correlation + 7, good.status, good.body))
    site.auditor.tell(site.courier, WitnessAnswered(9, question.correlation, good.status, good.body))
    assert site.cosigned() == (0, set())
    site.answer(question, good)
    assert site.cosigned()[1] == {"witness.example/w0"}


@pytest.mark.parametrize(
    "url",
    [
        "https://witness.example:8440",
        "ftp://10.0.0.1",
        "https://10.0.0.1:99999",
        "10.0.0.1:8440",
        "https://u@10.0.0.1/",
    ],
)
def test_addresses_of_witnesses_are_literals(tmp_path: Path, url: str) -> None:
    """No name to resolve, no other scheme, no credentials."""
    (cosigner,) = open_cosigners(tmp_path, "witness.example/w", with_mldsa=False)
    with pytest.raises(KeyUnusable):
        parse_witnesses([f"{cosigner.key.encode()} {url}"])
    (found,) = parse_witnesses([f"{cosigner.key.encode()} https://[fd00::1]:8440/w"])
    assert found[1] is not None
    assert (found[1].endpoint, found[1].path) == ("[fd00::1]:8440", "/w")


def missed(site: Site) -> list[dict[str, Any]]:
    """What the log says of rounds without a quorum."""
    found = [record["unmapped"]["casemate"] for record in site.auditor.records()]
    return [own for own in found if own["kind"] == "log_quorum_missed"]


@control("AU-5", "AU-9(3)")
def test_a_round_without_a_quorum_is_a_record_an_alarm_and_a_count(tmp_path: Path) -> None:
    """Whose word was missing; the alarm ends with the round that reaches the quorum, and that costs no record."""
    site = Site(tmp_path, quorum=2)
    site.carry(1)
    assert missed(site) == []
    site.auditor.pass_time(31.0)
    site.auditor.service.turn()
    (told,) = missed(site)
    assert (told["missing"], told["num_rounds"]) == ("witness.example/w1", 1)
    status = site.status()
    assert status.num_quorums_missed == 1
    assert "1 rounds of cosigning in a row reached no quorum" in status.alarms[0]
    site.carry()
    site.auditor.pass_time(31.0)
    site.carry()
    assert site.status().alarms == ()
    assert site.status().num_quorums_missed == 1
    assert len(missed(site)) == 1


@pytest.mark.parametrize(
    "is_missing", [lambda _number: True, lambda number: number % 5 > 0], ids=["away", "comes and goes"]
)
def test_a_dead_witness_does_not_fill_the_log(is_missing: Callable[[int], bool]) -> None:
    """A week of rounds every half minute: a record an hour at most, and each missed round is counted in one."""
    now_s, told = 0.0, []
    watch = QuorumWatch(Clock(lambda: now_s, lambda: 0))
    for number in range(7 * 2_880):
        now_s += 30.0
        watch.round_ended(["w"] if is_missing(number) else [])
        if untold := watch.take_untold():
            told.append(untold)
        assert bool(watch.alarm) == is_missing(number)
    assert 160 <= len(told) <= 7 * 24
    assert sum(told) <= watch.num_missed < sum(told) + 120


def test_a_round_in_which_the_courier_was_stopped_is_not_judged(tmp_path: Path) -> None:
    """As at each stop of the appliance, in which the auditor is the last."""
    site = Site(tmp_path)
    site.carry(0, 1)
    site.auditor.service.link_ended(site.courier)
    site.auditor.pass_time(31.0)
    assert missed(site) == []


def test_both_cosignatures_of_one_witness_are_kept(tmp_path: Path) -> None:
    """It is asked once, at the address of one of its keys, and answers with an Ed25519 and an ML-DSA-44 cosignature."""
    both = open_cosigners(tmp_path / "w", "witness.example/w", with_mldsa=True)
    keys = [cosigner.key for cosigner in both]
    witnessing = Witnessing([(keys[0], True), (keys[1], False)], 1, 30, Here())
    auditor = Auditor(tmp_path, witnessing=witnessing)
    auditor.pass_time(1.0)
    courier = auditor.connect("courier")
    auditor.service.turn()
    (question,) = courier.take(AskWitness)
    witness = Witness(tmp_path / "w", both, [auditor.writer.key], lambda: 1_795_000_000)
    answer = witness.add_checkpoint(question.body)
    auditor.tell(courier, WitnessAnswered(question.witness, question.correlation, answer.status, answer.body))
    note = (tmp_path / COSIGNED).read_bytes()
    for key in keys:
        assert verify_cosignatures(note, [key]) == {"witness.example/w": 1_795_000_000}


def test_a_courier_that_is_away_is_no_quorum_either(tmp_path: Path) -> None:
    """Who asks nobody gets no word; one that comes back within its round fails nothing."""
    site = Site(tmp_path)
    site.auditor.service.link_ended(site.courier)
    site.courier = site.auditor.connect("courier")
    site.carry()
    site.auditor.pass_time(31.0)
    assert missed(site) == []
    site.auditor.service.link_ended(site.courier)
    for _ in range(3):
        site.auditor.pass_time(31.0)
    assert len(missed(site)) == 1
    assert "witness.example/w0" in site.status().alarms[0]
