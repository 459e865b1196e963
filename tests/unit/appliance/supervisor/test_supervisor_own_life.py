"""The supervisor's own start and end, and how the others ended while everything stopped."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.supervisor.own_life import NO_WORD, OwnLife, ending_of
from audit.entry import Json, encode_event, parse_canonical
from audit.permissions import verify_permitted
from tests.support.controls import control


class Recorder:
    """Keeps what is recorded, and makes it durable when told."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self._waiting: list[Callable[[], None]] = []

    def record(self, event: Json, on_recorded: Callable[[], None] | None = None) -> None:
        taken = parse_canonical(encode_event(event))
        verify_permitted("supervisor", "event", taken)
        self.events.append(taken)
        if on_recorded is not None:
            self._waiting.append(on_recorded)

    def make_durable(self) -> None:
        for told in self._waiting:
            told()

    @property
    def kinds(self) -> list[str]:
        return [event["unmapped"]["casemate"]["kind"] for event in self.events]


def begin(state: Path) -> tuple[OwnLife, Recorder]:
    life, recorder = OwnLife(state), Recorder()
    life.begin(recorder.record)
    return life, recorder


@control("AU-12", "3.3.1")
def test_a_supervisor_that_was_killed_is_told_by_the_next_start(tmp_path: Path) -> None:
    """Once, with its process id; one that ended in order is not."""
    first, recorder = begin(tmp_path)
    assert recorder.kinds == ["process_started"]
    recorder.record(first.stopping())
    assert recorder.kinds[-1] == "process_stopped"
    first.end()
    _, recorder = begin(tmp_path)  # Killed.
    assert recorder.kinds == ["process_started"]
    (tmp_path / "run" / "supervisor").write_text("4711\n")
    third, recorder = begin(tmp_path)
    recorder.make_durable()
    assert recorder.kinds == ["process_crashed", "process_started"]
    lost, started = recorder.events
    assert (lost["unmapped"]["casemate"]["pid"], lost["status_detail"]) == (4711, NO_WORD)
    assert started["unmapped"]["casemate"]["pid"] == os.getpid()
    third.end()
    assert begin(tmp_path)[1].kinds == ["process_started"]


def test_what_a_refused_start_could_not_record_is_told_by_the_next(tmp_path: Path) -> None:
    """It ended in order, and the one before it did not; a file that cannot be read is a lost one, too."""
    begin(tmp_path)
    refused, _ = begin(tmp_path)
    refused.end()
    assert (tmp_path / "run" / "supervisor").exists()
    (tmp_path / "run" / "supervisor").write_bytes(b"\xff")
    life, recorder = begin(tmp_path)
    assert recorder.kinds == ["process_crashed", "process_started"]
    recorder.make_durable()
    life.end()
    assert not (tmp_path / "run" / "supervisor").exists()


@pytest.mark.parametrize(
    ("status", "dismissal", "overdue", "expected"),
    [
        (0, "", "", ("process_stopped", "")),
        (-9, "starting", "", ("process_stopped", "starting")),
        (-9, "", "too slow", ("process_crashed", "too slow")),
        (-11, "", "", ("process_crashed", "what its status says")),
        (1, "", "", ("process_crashed", "what its status says")),
    ],
)
def test_who_did_not_end_in_order_is_no_orderly_end(
    status: int, dismissal: str, overdue: str, expected: tuple[str, str]
) -> None:
    """Though everything stops."""
    assert ending_of(status, "what its status says", dismissal, overdue) == expected
