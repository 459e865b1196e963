"""The customer's statements: read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import StatementsRejected
from compliance.frameworks import FRAMEWORKS
from compliance.statements import parse_statements

CONTROLS = FRAMEWORKS["cmmc-l2"].controls
NOW_MS = 1_793_577_600_000
"""2026-11-02, midnight in UTC."""
GOOD = '[statements."3.10.1"]\nstatus = "met"\nby = "facility security"\non = 2026-11-01\nevidence = "Badges."\n'


def test_a_statement_is_about_a_control_or_an_objective() -> None:
    """By identifier."""
    found = parse_statements((GOOD + GOOD.replace("3.10.1", "3.10.1[c]")).encode(), CONTROLS, NOW_MS)
    assert list(found) == ["3.10.1", "3.10.1[c]"]
    assert (found["3.10.1"].status, found["3.10.1"].by) == ("met", "facility security")


def test_one_file_is_for_every_framework() -> None:
    """Each takes what is about its own controls."""
    both = (GOOD + GOOD.replace("3.10.1", "AC-2(1)")).encode()
    assert list(parse_statements(both, CONTROLS, NOW_MS)) == ["3.10.1"]
    assert list(parse_statements(both, FRAMEWORKS["800-53-high"].controls, NOW_MS)) == ["AC-2(1)"]


def test_a_day_begins_elsewhere_before_it_does_in_utc() -> None:
    """Somebody there may have looked at it on the third."""
    assert parse_statements(GOOD.replace("2026-11-01", "2026-11-03").encode(), CONTROLS, NOW_MS)


def test_no_file_is_no_statement() -> None:
    """An empty one too."""
    assert parse_statements(b"", CONTROLS, NOW_MS) == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("3.10.1", "3.10.9", "no control or objective"),
        ("3.10.1", "3.10.1[e]", "no control or objective"),
        ('"met"', '"done"', "done"),
        ('"facility security"', '" "', "must say something"),
        ('"Badges."', '""', "must say something"),
        ("2026-11-01", '"soon"', "date"),
        ("2026-11-01", "2026-11-04", "2026-11-04 has not come"),
        ("on = 2026-11-01\n", "", "on"),
        ("on =", "certificate = 1\non =", "certificate"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(old: str, new: str, words: str) -> None:
    """A slip of the pen is not a statement."""
    with pytest.raises(StatementsRejected, match=words):
        parse_statements(GOOD.replace(old, new).encode(), CONTROLS, NOW_MS)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda text: (GOOD + text).encode())))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Whatever the bytes."""
    try:
        parse_statements(data, CONTROLS, NOW_MS)
    except StatementsRejected:
        pass
