"""What of the clock's time nothing vouches for, by the records alone."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from appliance.auditor.ledger import Clock
from appliance.auditor.vouching import LET_PASS_MS, SILENCE_MS, TimeVoucher, recover_unvouched

NOW = 1_795_411_388_000


def record(time: int, kind: str = "policy_loaded", reporter: str = "policy/0", **own: Any) -> bytes:
    event = {"metadata": {"reporter": {"name": reporter}}, "time": time, "unmapped": {"casemate": {"kind": kind} | own}}
    return json.dumps(event).encode()


def recover(*entries: bytes, now_ms: int = NOW) -> int:
    return recover_unvouched([list(entries)] if entries else [], now_ms, lambda: None)


def test_a_first_start_has_nothing_unvouched() -> None:
    """Whoever installs says what time it is."""
    assert recover() == 0


def test_silence_is_unvouched_and_what_lies_close_together_is_not() -> None:
    """Each minute of a life leaves a record."""
    first = record(NOW - 10 * SILENCE_MS, "log_started", "auditor/0", unvouched_ms=7)
    busy = [record(NOW - number * SILENCE_MS) for number in range(9, -1, -1)]
    assert recover(first, *busy) == 7
    assert recover(first) == 7 + 10 * SILENCE_MS


def test_a_leap_within_a_life_counts_though_it_was_killed() -> None:
    """Before it could tell its jump, and whatever came first afterwards."""
    first = record(NOW - 86_400_000, "log_reconciled", "auditor/0", unvouched_ms=0)
    assert recover(first, record(NOW - 2), record(NOW - 1)) == 86_400_000 - 2


def test_only_the_auditor_says_what_is_vouched_for() -> None:
    """Another peer's record of that kind would be none that the log takes; and rubbish is passed over."""
    first = record(NOW - 1_000_000_000, "log_started", "auditor/0", unvouched_ms=0)
    forged = record(NOW - 500, "log_time_vouched", "policy/0", unvouched_ms=0)
    assert recover(first, forged, b"{}", b"\xff") == 1_000_000_000 - 500


@given(st.lists(st.integers(-(10**12), 10**12), max_size=8), st.integers(0, 10**12))
def test_what_may_be_done_is_never_ahead_of_what_is_vouched_for(jumps: list[int], start_ms: int) -> None:
    """However the clock is set: by less than a day at most."""
    clock_ms = NOW + start_ms
    voucher = TimeVoucher(Clock(lambda: 0.0, lambda: clock_ms), start_ms)
    for jump in jumps:
        clock_ms += jump
        assert voucher.vouched_ms < NOW + LET_PASS_MS
    voucher.vouch()
    assert voucher.vouched_ms == clock_ms
