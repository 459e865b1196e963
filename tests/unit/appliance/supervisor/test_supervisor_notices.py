"""Notices of commands become records, each removed when its record is durable."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        self.taken: list[tuple[bytes, Callable[[], None] | None]] = []

    def record(self, event: bytes, on_recorded: Callable[[], None] | None = None) -> None:
        self.taken.append((event, on_recorded))

    def make_durable(self, *positions: int) -> None:
        """Of what was taken these, in this order; all without."""
        for position in positions or range(len(self.taken)):
            done = self.taken[position][1]
            assert done is not None
            done()

    @property
    def told(self) -> list[tuple[str, Any]]:
        """Kinds, with the notice's number or the range that is missing."""
        own = [parse_canonical(event)["unmapped"]["casemate"] for event, _ in self.taken]
        return [(one["kind"], one.get("notice") or (one["facts"]["first"], one["facts"]["last"])) for one in own]


class Host:
    """An outbox, and the supervisor's side of it."""

    def __init__(self, path: Path) -> None:
        self.outbox = Outbox(path)
        self.start()

    def start(self) -> None:
        self.recorder = Recorder()
        self.carrier = NoticeCarrier(self.outbox, self.recorder)

    def put(self, name: str = "a") -> Path:
        before = set(self.files)
        self.outbox.put("model_promoted", name=name, digest="sha256:00", actor="os:ops", facts={"by": "ada"})
        (path,) = set(self.files) - before
        return path

    @property
    def files(self) -> list[Path]:
        return sorted(self.outbox.path.glob("*.json"))

    def carry(self) -> list[tuple[str, Any]]:
        """What is new of a look."""
        before = len(self.recorder.told)
        self.carrier.carry()
        return self.recorder.told[before:]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "outbox")


def test_notice_is_recorded_once_and_kept_until_it_is_durable(host: Host) -> None:
    """A second look does not send it again; a carrier of a later life does."""
    host.put()
    assert host.carry() == [("model_promoted", 1)]
    assert host.carry() == []
    event = parse_canonical(host.recorder.taken[0][0])
    assert event["actor"]["user"]["name"] == "os:ops"
    assert len(host.files) == 1
    host.start()
    assert host.carry() == [("model_promoted", 1)]
    host.recorder.make_durable()
    assert host.files == []
    host.start()
    assert host.carry() == []


@control("AU-9", "3.3.8", "SI-4")
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("how", ["removed", "emptied", "altered"])
def test_a_notice_that_was_taken_away_is_missed(host: Host, position: int, how: str) -> None:
    """While nobody looked: the first, one between, or the last; or there is something in its place that the log does not take."""
    path = [host.put(name) for name in "abc"][position]
    match how:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case _:
            path.write_bytes(path.read_bytes().replace(b"model_promoted", b"token_issued"))
    told = host.carry()
    missing = ("notices_missing", (position + 1, position + 1))
    assert [one for one in told if one[0] == "notices_missing"] == [missing]
    assert len(told) == 3
    assert host.carry() == []
    host.recorder.make_durable()
    host.start()
    assert [one for one in host.carry() if one[0] == "notices_missing"] == []
    assert host.outbox.carried == 3


def test_all_that_is_missing_is_one_record(host: Host) -> None:
    """However many: by the first and the last."""
    for path in [host.put() for _ in range(5)][1:4]:
        path.unlink()
    assert host.carry() == [("model_promoted", 1), ("notices_missing", (2, 4)), ("model_promoted", 5)]
    (host.outbox.path / "last").write_text("999999999999999")
    assert host.carry() == [("notices_missing", (6, 999999999999999))]


@given(st.permutations(range(4)), st.integers(0, 4))
def test_what_is_durable_in_any_order_is_never_missed(order: list[int], num_done: int) -> None:
    """Whenever the supervisor is killed: what the log has is not told as missing, and what it has not is sent again."""
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder) / "outbox")
        for name in "abcd":
            host.put(name)
        host.carry()
        host.recorder.make_durable(*order[:num_done]) if num_done else None
        host.start()
        again = host.carry()
        assert {number for kind, number in again if kind == "model_promoted"} >= {one + 1 for one in order[num_done:]}
        assert all(kind == "model_promoted" for kind, _ in again)
        host.recorder.make_durable() if again else None
        assert (host.files, host.outbox.carried) == ([], 4)


def test_a_command_that_was_killed_behind_its_notice_leaves_no_gap(host: Host) -> None:
    """Before it could count it: the notice is carried, and the next one has the next number."""
    host.put()
    (host.outbox.path / "last").unlink()
    assert host.carry() == [("model_promoted", 1)]
    host.put()
    assert host.carry() == [("model_promoted", 2)]


def test_a_folder_that_was_read_while_notices_were_left_misses_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may have the later of two new files and not the earlier."""
    host.put()
    host.carry()
    last = host.outbox.last
    early = host.put()
    host.put()
    hidden = early.rename(early.with_suffix(".hidden"))
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "last", last)
        assert host.carry() == []
    hidden.rename(early)
    assert host.carry() == [("model_promoted", 2), ("model_promoted", 3)]


def test_notices_of_an_earlier_release_are_carried_without_a_number(host: Host) -> None:
    """They had none, and nothing is missed for it."""
    path = host.put()
    document = json.loads(path.read_bytes())
    del document["number"]
    path.write_text(json.dumps(document))
    (host.outbox.path / "last").unlink()
    host.carrier.carry()
    assert "notice" not in parse_canonical(host.recorder.taken[0][0])["unmapped"]["casemate"]
    host.recorder.make_durable()
    assert host.files == []


@control("AU-3", "AU-10", "3.3.2")
@pytest.mark.parametrize(
    "kind",
    [
        "model_promoted",
        "segments_applied",
        "log_exported",
        "key_rotated",
        "hash_looked_up",
        "state_backed_up",
        "start_refused",
    ],
)
def test_who_ran_a_command_is_found_by_one_name(kind: str) -> None:
    """In the place where searches, exports and reports look, whatever the command."""
    event = encode_notice(Notice(kind, "n", "sha256:00", "os:root", 5, {"facts": "f"}))
    assert event is not None
    record = parse_canonical(event)
    verify_permitted("supervisor", "event", record)
    assert flatten(record)["actor"] == "os:root"


@pytest.mark.parametrize("kind", ["inference_intent", "egress_tested", "notices_missing"])
def test_notice_of_another_kind_is_not_sent(host: Host, kind: str) -> None:
    """Whoever can write there can invent neither that somebody asked a model, nor what the supervisor finds by itself."""
    host.outbox.put(kind, name="tiny", digest="d", actor="x", facts={})
    assert host.carry() == [("notices_missing", (1, 1))]
    ((_, notice),) = host.outbox.waiting()
    assert encode_notice(notice) is None
