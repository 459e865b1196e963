"""Witnessing from end to end: the commands on both sides, the listener, and what the auditor makes of a witness's word."""

import hashlib
import json
import shutil
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.auditor import witness_listener
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.vouching import TimeVoucher
from appliance.auditor.watches import Limits, Watches
from appliance.auditor.witness_listener import MAX_CONNECTIONS, build_server
from appliance.auditor.witness_watch import WitnessWatch
from appliance.auditor.witnesses import parse_witnesses
from appliance.cli.main import main
from appliance.messages.audit import AppendEvent, AppendRefused, AuditorStatus, FetchProof, Proof
from appliance.messages.reading import ReadBy
from appliance.messages.stewardship import DecideChange, ProposeChange, RulesNow
from appliance.supervisor.notices import encode_notice
from audit.append import LogWriter
from audit.checkpoint import parse_checkpoint
from audit.entry import encode_event, parse_canonical
from audit.errors import KeyUnusable, LogCorrupted, StateMismatch
from audit.events import process_event
from audit.governance import RULES
from audit.note import SignedNote, encode_note, parse_note
from audit.permissions import verify_permitted
from audit.proof import verify_proof
from audit.reserve import Reserve
from audit.rotation import load_predecessor, rotate_log
from audit.signing_key import open_cosigners
from audit.witness import Witness
from security.stewards.outbox import Notice
from tests.support.controls import control
from tests.support.waiting import GIVE_UP_S, wait_until
from tests.unit.appliance.auditor.conftest import Auditor

NAME = "witness.example/w1"
CLOCK = Clock(lambda: 0.0, lambda: 0)
EVENT = AppendEvent(5, encode_event(process_event("process_started", role="engine", instance=0, pid=1)))


def run(*words: object) -> int:
    return main(["audit", *map(str, words)])


class Site:
    """A log, and a witness elsewhere."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log, self.state = home / "log", home / "elsewhere"
        self.auditor = Auditor(home)
        self.supervisor = self.auditor.connect("supervisor")
        self.grow()
        self.key = self.auditor.writer.key
        self.vkey = self.key.encode()
        (cosigner,) = open_cosigners(self.state, NAME, with_mldsa=False)
        self.witness = cosigner.key.encode()

    def grow(self) -> None:
        """More records, published."""
        for _ in range(5):
            self.auditor.tell(self.supervisor, EVENT)
        self.auditor.pass_time(1.0)

    def go_back(self) -> None:
        """The log grows and is cosigned; then somebody stops the auditor and puts what was there before in its place."""
        backup = self.home / "backup"
        shutil.copytree(self.log, backup)
        self.grow()
        self.carry()
        self.auditor.die()
        shutil.rmtree(self.log)
        shutil.copytree(backup, self.log)

    def carry(self) -> None:
        """One trip of the courier."""
        both = ("--dir", self.log, "--key", self.vkey, "--witness", self.witness, "--request", self.home / "request")
        assert run("cosign", *both) == 0
        witness = ("--state", self.state, "--name", NAME, "--log", self.vkey)
        assert run("witness", *witness, "--answer", self.home / "request", "-o", self.home / "answer") == 0
        assert run("cosign", *both, "--take", self.home / "answer") == 0

    def limits(self, **changes: Any) -> Limits:
        return Limits(witnesses=tuple(key for key, _ in parse_witnesses([self.witness])), **changes)

    def watch(self) -> WitnessWatch:
        """As a starting auditor has it."""
        clock = Clock(lambda: 0.0, lambda: 0)
        return WitnessWatch(self.auditor.writer, [key for key, _ in parse_witnesses([self.witness])], 60, clock)

    def restart(self, **changes: Any) -> Auditor:
        """A new auditor that knows the witness."""
        self.auditor.die()
        self.auditor = Auditor(self.home, limits=self.limits(**changes))
        return self.auditor


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_courier_brings_what_excludes_a_rollback(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice, as the log grows; `verify` with the witness's key then ends with 0."""
    site.carry()
    site.grow()
    site.carry()
    site.grow()
    assert run("verify", site.log, "--key", site.vkey, "--witness", site.witness) == 0
    printed = capsys.readouterr().out
    assert f"{NAME} cosigned 11 records at" in printed
    assert printed.endswith("consistent; rollback excluded up to the witness's last word\n")


def test_an_old_word_excludes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does a witness that has not said anything."""
    site.carry()
    assert run("verify", site.log, "--key", site.vkey, "--witness", site.witness, "--max-age-s", "-1") == 3
    (other,) = open_cosigners(site.home / "third", "witness.example/w3", with_mldsa=False)
    assert run("verify", site.log, "--key", site.vkey, "--witness", other.key.encode()) == 3
    assert "no witness that you named has cosigned" in capsys.readouterr().out


def test_a_word_of_a_time_to_come_excludes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be fresh for as long as its witness's clock was ahead."""
    site.carry()
    (cosigner,) = open_cosigners(site.state, NAME, with_mldsa=False)
    note = parse_note((site.home / "cosigned").read_bytes())
    own = [one for one in note.signatures if one.name != NAME]
    word = cosigner.cosign(note.text, int(time.time()) + 86_400)
    (site.home / "cosigned").write_bytes(encode_note(SignedNote(note.text, (*own, word))))
    assert run("verify", site.log, "--key", site.vkey, "--witness", site.witness) == 3
    assert "every witness gave its word at a time that has not come" in capsys.readouterr().out


@control("3.3.8", "AU-9", "AU-9(2)", "Article 19(1)")
def test_a_log_that_was_put_back_is_found_out(site: Site) -> None:
    """By `verify`, by the witness, and by the auditor, which refuses to write it."""
    site.go_back()
    assert run("verify", site.log, "--key", site.vkey, "--witness", site.witness) == 1
    assert (
        run("cosign", "--dir", site.log, "--key", site.vkey, "--witness", site.witness, "--request", site.home / "r")
        == 1
    )
    site.auditor = Auditor(site.home)
    with pytest.raises(StateMismatch, match="went back to an earlier state"):
        site.watch().verify_history()


@control("AU-9(3)")
def test_another_history_of_the_same_log_is_found_out(site: Site) -> None:
    """Written on from a backup, signed with the log's own key, and longer than what was cosigned."""
    site.go_back()
    site.auditor = Auditor(site.home)
    site.supervisor = site.auditor.connect("supervisor")
    for _ in range(3):
        site.grow()
    assert run("verify", site.log, "--key", site.vkey, "--witness", site.witness) == 1
    with pytest.raises(StateMismatch, match="another history"):
        site.watch().verify_history()


@control("AU-9(3)")
def test_another_history_that_is_not_published_yet_is_found_out(site: Site) -> None:
    """Before the log signs it: its records are in the write-ahead log alone."""
    site.go_back()
    site.auditor = Auditor(site.home)
    supervisor = site.auditor.connect("supervisor")
    for _ in range(12):
        site.auditor.tell(supervisor, EVENT)
    published, size = site.auditor.writer.checkpoint.size, site.auditor.writer.size
    cosigned = parse_checkpoint(parse_note((site.home / "cosigned").read_bytes()).text).size
    assert published < cosigned < size
    with pytest.raises(StateMismatch, match="another history"):
        site.watch().verify_history()


def test_the_same_history_that_is_not_published_yet_is_no_other(site: Site) -> None:
    """The last checkpoint was lost with the power: its records come back from the write-ahead log."""
    site.grow()
    before = {size: site.auditor.writer.root_of(size) for size in range(site.auditor.writer.size + 1)}
    for _ in range(3):
        site.auditor.tell(site.supervisor, EVENT)
    after = site.auditor.writer.size
    assert site.auditor.writer.checkpoint.size < after
    later = {size: site.auditor.writer.root_of(size) for size in range(after + 1)}
    site.auditor.pass_time(1.0)
    assert later == before | {size: site.auditor.writer.root_of(size) for size in range(after + 1)}


@control("AU-9", "AU-9(3)", "3.3.8")
@pytest.mark.parametrize(
    ("is_cut", "has_word", "status", "words"),
    [
        (False, True, 0, "; they begin that log"),
        (False, False, 3, "no word lies beside it of the log that continues it"),
        (True, True, 1, "records were taken away"),
        (True, False, 3, "rollback not excluded of log.example/casemate"),
    ],
)
def test_a_log_that_was_cut_before_another_continued_it_is_found_out(
    site: Site, capsys: pytest.CaptureFixture[str], is_cut: bool, has_word: bool, status: int, words: str
) -> None:
    """The next one names whatever end was left, and its witnesses know no other: the word on the closed log counts, too."""
    shutil.copytree(site.log, site.home / "shorter")
    site.grow()
    site.carry()
    site.auditor.die()
    if is_cut:
        shutil.rmtree(site.log)
        shutil.copytree(site.home / "shorter", site.log)
        with pytest.raises(LogCorrupted, match="records were taken away"):
            rotate_log(site.log, site.home / "log.key")
    word = (site.home / "cosigned").rename(site.home / "word")
    _, closed = rotate_log(site.log, site.home / "log.key")
    if has_word:
        word.rename(closed.with_suffix(".cosigned"))
    site.auditor = Auditor(site.home, origin="log.example/second", predecessor=load_predecessor(site.log))
    site.auditor.pass_time(1.0)
    site.vkey = site.auditor.writer.key.encode()
    site.carry()
    capsys.readouterr()
    both = ("--key", site.vkey, "--witness", site.witness)
    assert run("verify", site.log, *both) == 0
    assert run("verify", site.log, *both, "--continues", closed) == status
    printed = capsys.readouterr()
    assert words in printed.out + printed.err


@control("AU-5(2)", "SI-4(5)")
def test_an_auditor_whose_witness_is_silent_says_so(site: Site) -> None:
    """After the time that is set; and no longer once there is a fresh word."""
    auditor = site.restart(witness_max_age_s=50)
    gateway = auditor.connect("gateway")
    auditor.pass_time(40)
    assert gateway.last(AuditorStatus).alarms == ()
    auditor.pass_time(20)
    assert "no witness has cosigned for 60 s" in gateway.last(AuditorStatus).alarms[0]
    site.carry()  # A word of the real now.
    auditor.utc_ms += int(time.time() * 1000) - auditor.clock_ms
    auditor.pass_time(6)
    auditor.pass_time(6)
    assert not any("witness" in alarm for alarm in gateway.last(AuditorStatus).alarms)


def test_a_word_of_a_time_to_come_is_an_alarm(site: Site) -> None:
    """It would be fresh for as long as its witness's clock is ahead, however long that is silent."""
    auditor = site.restart(witness_max_age_s=50)
    gateway = auditor.connect("gateway")
    site.carry()
    auditor.utc_ms += int(time.time() * 1000) - 86_400_000 - auditor.clock_ms
    auditor.pass_time(6)
    auditor.pass_time(6)
    status = gateway.last(AuditorStatus)
    assert any("their last word is of a time that has not come" in alarm for alarm in status.alarms)
    assert status.cosigned_age_s == -1


@control("AU-8", "AU-11")
def test_a_witness_vouches_for_the_time(site: Site) -> None:
    """Up to the time of its own clock: a stop holds nothing back of which it knows, a leap beyond its word does."""
    site.carry()
    said_ms = int(time.time() * 1000)
    day_ms = 86_400_000
    for now_ms, unvouched_ms in ((said_ms, 0), (said_ms + 50 * day_ms, 50 * day_ms), (said_ms - 9 * day_ms, 0)):
        voucher = TimeVoucher(Clock(lambda: 0.0, lambda now_ms=now_ms: now_ms), 100 * day_ms)  # type: ignore[misc]
        watches = Watches(
            Ledger(site.auditor.writer, Reserve(site.home / "reserve", 1), CLOCK), CLOCK, site.limits(), voucher
        )
        watches.look(0)
        assert abs(voucher.unvouched_ms - unvouched_ms) < 60_000
        assert (voucher.vouched_ms == now_ms) == (unvouched_ms == 0)


def test_a_forged_word_is_an_alarm(site: Site) -> None:
    """It is not believed, and not passed over."""
    site.carry()
    cosigned = site.home / "cosigned"
    cosigned.write_bytes(cosigned.read_bytes().replace(b"\n11\n", b"\n99\n").replace(b"\n6\n", b"\n9\n"))
    auditor = site.restart()
    gateway = auditor.connect("gateway")
    auditor.pass_time(6)
    assert "is wrong" in gateway.last(AuditorStatus).alarms[0]


def test_keys_of_witnesses_that_are_none_forbid_a_start() -> None:
    """The log's own key is not a witness's."""
    for text in ("x", "log.example/x+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"):
        with pytest.raises(KeyUnusable, match=r"audit\.witnesses"):
            parse_witnesses([text])


def test_proofs_by_index(site: Site) -> None:
    """Of what a checkpoint covers; to gateways only."""
    gateway, engine = site.auditor.connect("gateway"), site.auditor.connect("engine")
    site.auditor.tell(gateway, FetchProof(1, 3))
    proof = gateway.last(Proof).proof.encode()
    assert verify_proof(proof, site.auditor.writer.read(3), [site.key], site.key.name)[0] == 3
    site.auditor.tell(gateway, FetchProof(2, 10_000))
    assert gateway.last(AppendRefused).code == "not_found"
    site.auditor.tell(engine, FetchProof(3, 3))
    assert engine.last(AppendRefused).code == "not_permitted"


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    cosigners = open_cosigners(site.state, NAME, with_mldsa=False)
    witness = Witness(site.state, cosigners, [site.key], lambda: 1_795_411_388)
    server = build_server(witness, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
    witness.close()


def test_a_witness_over_http(site: Site, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked by the command, growing; and what it remembers can be fetched by anybody."""
    for _ in range(2):
        site.grow()
        assert run("cosign", "--dir", site.log, "--key", site.vkey, "--witness", site.witness, "--url", url) == 0
    assert capsys.readouterr().out.splitlines() == ["cosigned: 11 records", "cosigned: 16 records"]
    digest = hashlib.sha256(site.key.name.encode()).hexdigest()
    with urllib.request.urlopen(f"{url}/{digest}/checkpoint") as answer:
        (site.home / "fetched").write_bytes(answer.read())
    words = ("verify", site.log, "--key", site.vkey, "--witness", site.witness, "--cosigned", site.home / "fetched")
    assert run(*words, "--max-age-s", 10**10) == 0


@control("AU-10", "AU-9(3)")
def test_a_proof_brings_the_words_of_witnesses_that_cover_its_record(
    site: Site, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command and from the auditor, when the log has grown since; a witness that has not spoken is told."""
    site.grow()
    assert run("cosign", "--dir", site.log, "--key", site.vkey, "--witness", site.witness, "--url", url) == 0
    for _ in range(60):
        site.grow()  # Other partial tiles, and a full one.
    proof, record = site.home / "proof", site.home / "record"
    record.write_bytes(site.auditor.writer.read(3))
    both = ("--dir", site.log, "--key", site.vkey, "-o", proof)
    command = ("verify-receipt", proof, "--record", record, "--key", site.vkey)
    assert run("prove", 3, *both, "--cosigned") == 0
    size = len(site.auditor.records())
    capsys.readouterr()
    assert run(*command, "--witness", site.witness) == 0
    assert "in the log log.example/casemate of 11 records, cosigned by witness.example/w1" in capsys.readouterr().out
    assert run("prove", 3, *both) == 0
    assert run(*command) == 0
    assert run(*command, "--witness", site.witness) == 1
    assert run("prove", size - 2, *both, "--cosigned") == 1
    assert "under one that witnesses have cosigned" in capsys.readouterr().err

    gateway = site.auditor.connect("gateway")
    site.auditor.tell(gateway, FetchProof(1, 3))
    told = gateway.last(Proof).proof.encode()
    assert verify_proof(told, record.read_bytes(), [site.key], site.key.name)[1].size > 11


def test_a_listener_refuses_what_is_no_request(url: str) -> None:
    """Other routes, bodies without an end, bodies that are too long."""
    for path, headers, status in (
        ("/other", {}, 404),
        ("/add-checkpoint", {"content-length": "99999999"}, 413),
        ("/add-checkpoint", {"content-length": "9" * 5000}, 413),
        ("/add-checkpoint", {"content-length": "x"}, 411),
        ("/add-checkpoint", {}, 400),
    ):
        request = urllib.request.Request(url + path, data=b"rubbish", headers=headers, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == status
        refused.value.close()
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(f"{url}/{'00' * 32}/checkpoint")
    assert missing.value.code == 404
    missing.value.close()


def test_strangers_take_no_more_than_the_places_there_are(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes when all are taken is turned away, who goes gives a place back; many may come at the same moment."""
    monkeypatch.setattr(witness_listener._Handler, "timeout", GIVE_UP_S)
    address = urllib.parse.urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    strangers = [socket.create_connection((address.hostname, address.port), 10) for _ in range(MAX_CONNECTIONS)]
    late = socket.create_connection((address.hostname, address.port), 10)
    assert late.recv(1) == b""
    late.close()
    for stranger in strangers:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()  # With a reset.

    def is_asked_again() -> bool:
        try:
            urllib.request.urlopen(f"{url}/{'00' * 32}/checkpoint")
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code == 404
        except OSError:
            return False
        return True

    wait_until(is_asked_again)
    wait_until(lambda: not any("process_request_thread" in one.name for one in threading.enumerate()))  # All have told.
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert told.count("the connection ended: ConnectionResetError") == MAX_CONNECTIONS


def test_a_witness_that_is_away_is_an_error(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, no traceback."""
    words = ("cosign", "--dir", site.log, "--key", site.vkey, "--witness", site.witness, "--url", "http://127.0.0.1:9")
    assert run(*words) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_wrong_usage_is_told_apart(site: Site) -> None:
    """Exit status 2, as everywhere."""
    base = ("cosign", "--dir", site.log, "--key", site.vkey, "--witness", site.witness)
    assert run(*base) == 2
    assert run(*base, "--take", site.home / "x") == 2
    assert run(*base, "--url", "ftp://x") == 2
    assert run("cosign", "--dir", site.log, "--key", site.vkey, "--witness", "rubbish", "--url", "http://x") == 2


def test_a_log_with_its_own_post_quantum_cosignature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is verified where its key is given, ignored where not, and is no witness."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/pq", with_mldsa=True)
    writer.append([b'{"metadata":{"sequence":0}}'])
    writer.commit()
    writer.publish()
    writer.close()
    own = tmp_path / "log-mldsa.vkey"
    words = ("verify", tmp_path / "log", "--key", tmp_path / "log.vkey")
    assert run(*words) == 3
    assert run(*words, "--mldsa-key", own) == 3
    assert "ML-DSA-44" in capsys.readouterr().out
    (other,) = open_cosigners(tmp_path / "third", "witness.example/w3", with_mldsa=False)
    assert run(*words, "--mldsa-key", other.key.encode()) == 1
    assert run(*words, "--witness", own) == 2, "the log's own word says nothing of a rollback"


def test_keys_and_logs_are_rotated_by_command(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Step by step, with a notice of each for the log; the new log's first record names the old one."""
    installed = site.home / "audit"
    installed.mkdir()
    auditor = Auditor(installed)
    auditor.die()
    log = ("--dir", installed / "log")
    assert run("rotate-key", *log) == 0
    auditor = Auditor(installed)
    auditor.pass_time(1.0)
    assert run("rotate-key", *log, "--finish") == 78, "an auditor writes"
    auditor.die()
    assert run("rotate-key", *log, "--finish") == 0
    assert run("rotate-log", *log) == 1, "nobody has agreed to it"
    auditor = Auditor(installed)
    agree_to_rotate(auditor)
    auditor.pass_time(1.0)
    size = auditor.writer.size
    auditor.die()
    rules = (installed / RULES).read_bytes()
    (installed / RULES).write_bytes(rules.replace(b'"rotation_index":', b'"rotation_index":1'))
    assert run("rotate-log", *log) == 1, "another record is no agreement"
    (installed / RULES).write_bytes(rules)
    assert run("rotate-log", *log) == 0
    assert f"{size} records" in capsys.readouterr().out
    notices = [json.loads(path.read_text()) for path in sorted((site.home / "outbox").glob("*.json"))]
    assert {notice["kind"] for notice in notices} == {"key_rotated"}
    assert [notice["facts"]["stage"] for notice in notices] == ["staged", "finished", "log closed"]
    assert notices[2]["facts"]["previous"] == notices[1]["digest"], "the key that signed the log last"
    auditor = Auditor(installed, origin="log.example/second", predecessor=load_predecessor(installed / "log"))
    first = auditor.records()[0]["unmapped"]["casemate"]
    assert (first["kind"], first["previous_size"]) == ("log_rotated", size)
    auditor.die()


def agree_to_rotate(auditor: Auditor) -> None:
    """Both roles."""
    gateway = auditor.connect("gateway")
    ada, rudi = (ReadBy("console", name, "default", "jti", "10.0.0.9", 1) for name in ("ada", "rudi"))
    auditor.tell(gateway, ProposeChange(1, ada, "auditor", "rotation", "a new year", None, "", "", "", ""))
    proposed = gateway.last(RulesNow)
    auditor.tell(gateway, DecideChange(2, rudi, "admin", proposed.changed_id, True))
    auditor.service.link_ended(gateway)


def test_notices_of_rotations_and_exports_become_records() -> None:
    """Permitted for the supervisor, with what was before and after."""
    for kind, facts in (
        ("key_rotated", {"previous": "01", "stage": "staged"}),
        ("log_exported", {"start": 0, "end": 5}),
    ):
        notice = Notice(kind, "log.example/x", "02", "os:root", 5, facts)  # type: ignore[arg-type]
        event = parse_canonical(encode_notice(notice) or b"")
        assert verify_permitted("supervisor", "event", event).name == kind
