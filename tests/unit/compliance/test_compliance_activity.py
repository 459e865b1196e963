"""Periods and counts: compared with slow ones; a record that is not in the signed tree is found on the way."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.entry import encode_canonical
from audit.errors import AuditRejected
from audit.note import VerifierKey
from audit.reader import LogReader
from compliance.activity import DAY_MS, FAULTS, HOUR_MS, Activity, count_entries, measure_activity
from compliance.errors import PeriodRejected
from compliance.extracts import choose_kinds, extract_records, list_happenings
from compliance.period import find_records, make_period, parse_time, time_of, verify_edges
from compliance.report.pictures import MINUTE_MS, choose_bucket
from tests.support.controls import control
from tests.support.evidence import FIRST_MS, MONTH_MS
from tests.unit.compliance.conftest import NUM_RECORDS


@pytest.fixture(scope="module")
def checkpoint(month: Path, log_key: VerifierKey) -> Checkpoint:
    """The signed tree of the month's log."""
    return verify_checkpoint((month / "log" / "checkpoint").read_bytes(), [log_key], log_key.name)


@pytest.fixture(scope="module")
def entries(month: Path) -> list[bytes]:
    """All records."""
    reader = LogReader(month / "log")
    return [reader.read_entry(index, NUM_RECORDS) for index in range(NUM_RECORDS)]


@given(st.integers(-2 * DAY_MS, MONTH_MS + 2 * DAY_MS), st.integers(1, MONTH_MS))
def test_a_period_has_the_records_that_a_slow_look_finds(
    month: Path, entries: list[bytes], offset_ms: int, length_ms: int
) -> None:
    """Wherever it begins and ends, on a record's very moment too."""
    period = make_period(FIRST_MS + offset_ms, FIRST_MS + offset_ms + length_ms)
    inside = [index for index, entry in enumerate(entries) if period.start_ms <= time_of(entry) < period.end_ms]
    reader = LogReader(month / "log")
    if not inside:
        with pytest.raises(PeriodRejected):
            find_records(reader, NUM_RECORDS, period)
        return
    assert find_records(reader, NUM_RECORDS, period) == (inside[0], inside[-1] + 1)


def test_a_period_begins_and_ends_on_records_moments(month: Path, entries: list[bytes]) -> None:
    """The first moment is in it, the last is not."""
    first, last = time_of(entries[300]), time_of(entries[700])
    assert find_records(LogReader(month / "log"), NUM_RECORDS, make_period(first, last)) == (300, 700)


@pytest.mark.parametrize("ahead", [(250, 270), (256, 512), (200, 600), (740, 1000)])
def test_a_clock_that_was_set_takes_no_record_out_of_its_period(tmp_path: Path, ahead: tuple[int, int]) -> None:
    """Some claim a day later than it was; they, and what came after the clock was set back, are in the evidence of their day."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/set")
    times = [index * 60_000 + (DAY_MS if ahead[0] <= index < ahead[1] else 0) for index in range(1000)]
    writer.append([b'{"metadata":{"sequence":%d},"time":%d}' % pair for pair in enumerate(times)])
    writer.commit()
    writer.publish()
    writer.close()
    reader = LogReader(tmp_path / "log")
    behind = 1000 if ahead[1] < 1000 else ahead[0]
    assert find_records(reader, 1000, make_period(0, DAY_MS)) == (0, behind)
    assert find_records(reader, 1000, make_period(DAY_MS, 2 * DAY_MS)) == ahead
    assert find_records(reader, 1000, make_period(0, 2 * DAY_MS)) == (0, 1000)


@pytest.mark.parametrize(
    ("turn", "forged", "period", "expected"),
    [
        (900, (768, 770), (0, DAY_MS), (0, 900)),
        (400, (512, 514), (DAY_MS, 2 * DAY_MS), (400, 1000)),
    ],
    ids=["at its end", "at its beginning"],
)
def test_a_bundle_that_begins_with_another_time_hides_no_record(
    tmp_path: Path, turn: int, forged: tuple[int, int], period: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The clock was set just where a bundle begins, and set right again within it."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/set")
    days = [(index >= turn) != (forged[0] <= index < forged[1]) for index in range(1000)]
    writer.append([b'{"metadata":{"sequence":%d},"time":%d}' % (index, day * DAY_MS) for index, day in enumerate(days)])
    writer.commit()
    writer.publish()
    writer.close()
    assert find_records(LogReader(tmp_path / "log"), 1000, make_period(*period)) == expected


def test_records_beside_a_period_are_verified_too(month: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Whoever changes the time of a record on the disk, so that it seems to be of another period, is found out."""
    shutil.copytree(month / "log", tmp_path / "log")
    reader = LogReader(tmp_path / "log")
    bundle = tmp_path / "log" / "tile" / "entries" / "001"
    first, last = (time_of(reader.read_entry(index, NUM_RECORDS)) for index in (10, 300))
    bundle.write_bytes(bundle.read_bytes().replace(b'"time":%d,' % last, b'"time":%d,' % (last + DAY_MS), 1))
    start, end = find_records(reader, NUM_RECORDS, make_period(first, last + 1))
    assert (start, end) == (10, 300)
    with pytest.raises(AuditRejected):
        verify_edges(reader, checkpoint, start, end)
    verify_edges(reader, checkpoint, 0, NUM_RECORDS)


def test_counts_are_those_of_a_slow_count(month: Path, checkpoint: Checkpoint, entries: list[bytes]) -> None:
    """Of a range that begins and ends within bundles."""
    activity = measure_activity(LogReader(month / "log"), checkpoint, 37, 901)
    events = [json.loads(entry) for entry in entries[37:901]]
    kinds = Counter(event["unmapped"]["casemate"]["kind"] for event in events)
    outcomes = [event for event in events if event["unmapped"]["casemate"]["kind"] == "inference_outcome"]
    assert activity.kinds == kinds
    assert activity.outcomes == Counter(event["status_code"] for event in outcomes)
    assert activity.models == Counter(event["ai_model"]["name"] for event in outcomes)
    assert activity.prompt_tokens == sum(event["message_context"]["prompt_tokens"] for event in outcomes)
    assert sum(bucket.requests for _, bucket in activity.timeline()) == len(outcomes)
    assert sum(bucket.failed for _, bucket in activity.timeline()) == sum(event["status_id"] != 1 for event in outcomes)
    last = [index for index, event in enumerate(events, 37) if event["unmapped"]["casemate"]["kind"] == "token_issued"]
    assert list(activity.newest["token_issued"]) == last[-25:]
    assert (activity.first_ms, activity.last_ms) == (time_of(entries[37]), time_of(entries[900]))


def test_a_record_that_was_changed_is_not_counted(month: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """One byte of one record of a copy: the walk ends, whatever the tiles say."""
    shutil.copytree(month / "log", tmp_path / "log")
    bundle = tmp_path / "log" / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"house-8b", b"house-9b", 1))
    with pytest.raises(AuditRejected):
        measure_activity(LogReader(tmp_path / "log"), checkpoint, 0, NUM_RECORDS)


def test_days_without_records_are_columns_too(month: Path, checkpoint: Checkpoint) -> None:
    """A chart must not hide a day on which nothing happened."""
    activity = measure_activity(LogReader(month / "log"), checkpoint, 0, NUM_RECORDS, bucket_ms=HOUR_MS)
    starts = [start for start, _ in activity.timeline()]
    assert starts == list(range(FIRST_MS, FIRST_MS + MONTH_MS, HOUR_MS))


@pytest.mark.parametrize(
    ("span_ms", "bucket_ms"),
    [
        (0, MINUTE_MS),
        (HOUR_MS, MINUTE_MS),
        (2 * HOUR_MS, 10 * MINUTE_MS),
        (DAY_MS, HOUR_MS),
        (30 * DAY_MS, DAY_MS),
        (62 * DAY_MS, DAY_MS),
        (365 * DAY_MS, 7 * DAY_MS),
        (3650 * DAY_MS, 7 * DAY_MS),
    ],
)
def test_a_column_fits_the_time_from_the_first_record_to_the_last(span_ms: int, bucket_ms: int) -> None:
    """An hour of use in a period of years is drawn by the minute."""
    assert choose_bucket(FIRST_MS, FIRST_MS + span_ms) == bucket_ms


def test_times_are_dates_or_moments_in_utc() -> None:
    """An offset is heeded; no offset is UTC."""
    assert (
        parse_time("2026-01-01")
        == parse_time("2026-01-01T00:00:00Z")
        == parse_time("2026-01-01T01:00:00+01:00")
        == FIRST_MS
    )


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1767225600", "2026-01-01T25:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With an example of what is one."""
    with pytest.raises(PeriodRejected, match="2026-11-01"):
        parse_time(text)


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    """And an empty one."""
    for end_ms in (FIRST_MS, FIRST_MS - 1):
        with pytest.raises(PeriodRejected, match="no period"):
            make_period(FIRST_MS, end_ms)


@control("3.3.5")
def test_refusals_beyond_the_ration_are_counted_too(tmp_path: Path) -> None:
    """A flood of strangers is not told as the few of it that have a record each."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/flood")
    for own in (
        {"kind": "token_rejected", "num_times": 3},
        {"kind": "log_rationed", "token_rejected": 9_000, "user_sign_in_failed": 5},
    ):
        writer.append([json.dumps({"time": FIRST_MS, "unmapped": {"casemate": own}}).encode()])
    writer.commit()
    writer.publish()
    writer.close()
    activity = measure_activity(LogReader(tmp_path / "log"), writer.checkpoint, 0, 2)
    assert activity.refusals == {
        "token_rejected": 3,
        "token_rejected: beyond the ration": 9_000,
        "user_sign_in_failed: beyond the ration": 5,
    }
    assert sum(bucket.refused for bucket in activity.buckets.values()) == 9_008


@control("AU-12", "AU-5")
def test_times_without_a_record_are_told() -> None:
    """While it runs each minute leaves one; a clock that was set back is no silence. The longest is told with its ends."""
    minutes = [0, 1, 3, 10, 9, 11, 4331, 4332]
    activity = Activity(0, len(minutes))
    count_entries(activity, [b'{"time":%d}' % (FIRST_MS + 60_000 * minute) for minute in minutes], 0)
    assert (activity.silences, activity.silent_ms) == (2, 60_000 * (7 + 4320))
    assert activity.longest_silence == (FIRST_MS + 60_000 * 11, FIRST_MS + 60_000 * 4331)


@control("3.3.5")
def test_minutes_whose_counts_differed_are_faults_with_their_records(tmp_path: Path) -> None:
    """However many came after them that agree: one each minute pushes them out of the newest within half an hour."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/differ")
    for index in range(60):
        own = {"kind": "log_reconciled", "result": "differ" if index == 7 else "agree"}
        record = {"metadata": {"sequence": index}, "time": FIRST_MS + 60_000 * index, "unmapped": {"casemate": own}}
        writer.append([encode_canonical(record)])
    writer.commit()
    writer.publish()
    reader, checkpoint = LogReader(tmp_path / "log"), writer.checkpoint
    writer.close()
    activity = measure_activity(reader, checkpoint, 0, 60)
    faults = list_happenings(reader, 60, activity, FAULTS, 50, activity.differing)
    assert [(fault.index, fault.kind) for fault in faults] == [(7, "log_reconciled")]
    note = reader.checkpoint_note()
    files = dict(extract_records(reader, checkpoint, note, activity, choose_kinds(activity)))
    assert "log/proofs/7.tlog-proof" in files
    assert files["log/extracts/log_reconciled.jsonl"].count(b'"differ"') == 1
    assert files["log/extracts/log_reconciled.jsonl"].count(b"\n") == 26


def test_records_of_every_kind_are_in_a_pack_and_of_none_by_a_made_up_name(tmp_path: Path) -> None:
    """Also of kinds that no control names; what a record calls itself is no path."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/kinds")
    for index, kind in enumerate(("process_started", "process_stopped", "../../outside", "log_started")):
        record = {"metadata": {"sequence": index}, "time": FIRST_MS, "unmapped": {"casemate": {"kind": kind}}}
        writer.append([encode_canonical(record)])
    writer.commit()
    writer.publish()
    reader, checkpoint = LogReader(tmp_path / "log"), writer.checkpoint
    writer.close()
    activity = measure_activity(reader, checkpoint, 0, 4)
    files = dict(extract_records(reader, checkpoint, reader.checkpoint_note(), activity, choose_kinds(activity)))
    assert set(files) == {
        *(f"log/extracts/{kind}.jsonl" for kind in ("process_started", "process_stopped", "log_started")),
        *(f"log/proofs/{index}.tlog-proof" for index in (0, 1, 3)),
    }
