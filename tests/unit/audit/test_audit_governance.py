"""What two people decide: never one, never twice, never too late; a hold is stronger than any retention."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import GovernanceRefused, StateMismatch
from audit.governance import (
    MAX_FILE_BYTES,
    MAX_HOLDS,
    MAX_PROPOSALS,
    PROPOSAL_LIFETIME_MS,
    RULES,
    Decider,
    Hold,
    Proposal,
    Rules,
    build_proposal,
    decide,
    find_proposal,
    forget_rotation,
    load_rules,
    propose,
    save_rules,
)
from audit.storage import Disk
from tests.support.controls import control

ADA, EVE = Decider("ada", "auditor"), Decider("eve", "auditor")
ROOT = Decider("rudi", "admin")
NOW = 1_795_411_388_000
KINDS: list[tuple[Any, dict[str, Any]]] = [
    ("retention", {"retention_days": 7}),
    ("hold", {"from_day": "2026-11-01", "to_day": "2026-11-30", "tenant": "acme"}),
    ("lift", {"hold_id": "hold-1"}),
    ("rotation", {}),
]
HELD = Rules(30, (Hold("hold-1", "", "2026-01-01", "2026-01-31", "a case"),))


def proposed(rules: Rules, kind: Any, by: Decider = ADA, **given: Any) -> tuple[Rules, str]:
    proposal = build_proposal(rules, kind, by, NOW, reason="because", **given)
    return propose(rules, proposal), proposal.proposal_id


@control("AU-9(4)")
@pytest.mark.parametrize(("kind", "given"), KINDS)
@pytest.mark.parametrize(("first", "second"), [(ADA, ROOT), (ROOT, ADA)])
def test_the_other_role_confirms(kind: Any, given: dict[str, Any], first: Decider, second: Decider) -> None:
    """Only then is it in force; once."""
    rules, proposal_id = proposed(HELD, kind, first, **given)
    assert (rules.retention_days, rules.holds, rules.rotation_index) == (30, HELD.holds, -1)
    found = find_proposal(rules, proposal_id, second, NOW + 1, confirms=True)
    after = decide(rules, found, confirms=True, index=99)
    assert after.proposals == ()
    assert (after.retention_days, len(after.holds), after.rotation_index) == {
        "retention": (7, 1, -1),
        "hold": (30, 2, -1),
        "lift": (30, 0, -1),
        "rotation": (30, 1, 99),
    }[kind]
    with pytest.raises(GovernanceRefused):
        find_proposal(after, proposal_id, second, NOW + 2, confirms=True)


def test_a_proposal_is_decided_by_its_own_id() -> None:
    """Of several that wait the one that is named, and of another name none."""
    rules, first = proposed(HELD, "retention", retention_days=1)
    rules, second = proposed(rules, "rotation")
    assert [find_proposal(rules, one, ROOT, NOW, confirms=True).kind for one in (second, first)] == [
        "rotation",
        "retention",
    ]
    with pytest.raises(GovernanceRefused, match="no such proposal"):
        find_proposal(rules, "change-0", ROOT, NOW, confirms=True)


@pytest.mark.parametrize(("by", "other"), [(ADA, "an administrator"), (ROOT, "an auditor")])
def test_who_may_confirm_is_said(by: Decider, other: str) -> None:
    """By the role that did not propose."""
    rules, proposal_id = proposed(HELD, "rotation", by)
    with pytest.raises(GovernanceRefused, match=f"confirmed by {other}, and by another person"):
        find_proposal(rules, proposal_id, by, NOW, confirms=True)


def test_an_agreed_rotation_is_of_one_log(tmp_path: Path) -> None:
    """What was agreed for a closed log does not close the next; retention and holds go on. Without a file none is made."""
    path = tmp_path / RULES
    forget_rotation(path, Disk())
    assert not path.exists()
    save_rules(path, msgspec.structs.replace(HELD, retention_days=90, rotation_index=17), Disk())
    forget_rotation(path, Disk())
    assert load_rules(path, 1) == msgspec.structs.replace(HELD, retention_days=90)


@pytest.mark.parametrize("second", [ADA, EVE, Decider("ada", "admin")], ids=["oneself", "same role", "same person"])
def test_nobody_else_confirms(second: Decider) -> None:
    """Not who proposed, not a colleague of the role, not the same person in another role."""
    rules, proposal_id = proposed(HELD, "retention", retention_days=1)
    with pytest.raises(GovernanceRefused):
        find_proposal(rules, proposal_id, second, NOW, confirms=True)


@pytest.mark.parametrize("who", [ADA, EVE, ROOT])
def test_anybody_of_both_roles_refuses(who: Decider) -> None:
    """And one takes one's own back."""
    rules, proposal_id = proposed(HELD, "rotation")
    found = find_proposal(rules, proposal_id, who, NOW, confirms=False)
    assert decide(rules, found, confirms=False, index=5) == HELD


def test_a_proposal_lapses() -> None:
    """After a week it is confirmed no more, and the next proposal forgets it."""
    rules, proposal_id = proposed(HELD, "rotation")
    with pytest.raises(GovernanceRefused):
        find_proposal(rules, proposal_id, ROOT, NOW + PROPOSAL_LIFETIME_MS, confirms=True)
    later = build_proposal(rules, "rotation", ADA, NOW + PROPOSAL_LIFETIME_MS, reason="again")
    assert propose(rules, later).proposals == (later,)


def test_proposals_are_bounded() -> None:
    """One person cannot fill the file."""
    rules = HELD
    for _ in range(MAX_PROPOSALS):
        rules, _ = proposed(rules, "rotation")
    with pytest.raises(GovernanceRefused):
        proposed(rules, "rotation")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("retention", {}),
        ("retention", {"retention_days": 0}),
        ("hold", {"from_day": "2026-11-30", "to_day": "2026-11-01"}),
        ("hold", {"from_day": "yesterday", "to_day": "2026-11-01"}),
        ("lift", {"hold_id": "hold-2"}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, given: dict[str, Any]) -> None:
    """Before anybody is asked to confirm it."""
    with pytest.raises(GovernanceRefused):
        build_proposal(HELD, kind, ADA, NOW, reason="because", **given)
    with pytest.raises(GovernanceRefused):
        build_proposal(HELD, "rotation", ADA, NOW, reason="")


@given(st.sampled_from(["", "acme", "other"]), st.dates(), st.dates(), st.dates())
def test_a_hold_covers_its_tenant_and_days(tenant: str, first: Any, last: Any, day: Any) -> None:
    """Both ends included; without a tenant everybody's."""
    hold = Hold("h", tenant, first.isoformat(), last.isoformat(), "r")
    expected = tenant in ("", "acme") and first <= day <= last
    assert Rules(30, (hold,)).is_held("acme", day.isoformat()) is expected


def test_the_first_day_that_is_kept() -> None:
    """With a retention of one day yesterday can still be opened."""
    assert Rules(1).first_kept_day(NOW) == "2026-11-22"
    assert Rules(30).first_kept_day(NOW) == "2026-10-24"


def test_rules_survive_their_file_and_a_damaged_one_is_no_rules(tmp_path: Any) -> None:
    """What is held must not be guessed."""
    path = tmp_path / "rules.json"
    assert load_rules(path, 30) == Rules(30)
    rules, _ = proposed(HELD, "hold", from_day="2026-11-01", to_day="2026-11-30")
    save_rules(path, rules, Disk())
    assert load_rules(path, 5) == rules
    for data in (b"", path.read_bytes()[:-3], b'{"retention_days": 1, "x": 1}'):
        path.write_bytes(data)
        with pytest.raises(StateMismatch):
            load_rules(path, 30)


def test_as_many_holds_as_there_may_be_can_be_read_again_and_lifted(tmp_path: Any) -> None:
    """With texts as long as a message may carry them, all of characters that JSON escapes."""
    text = "\x01" * 256
    holds = tuple(Hold(f"hold-{number:016x}", text, "2026-01-01", "2026-01-31", text) for number in range(MAX_HOLDS))
    by = Decider(text, "auditor")
    waiting = tuple(
        Proposal(f"change-{number:016x}", "hold", by, NOW, text, None, holds[number]) for number in range(MAX_PROPOSALS)
    )
    path = tmp_path / "rules.json"
    save_rules(path, Rules(30, holds, waiting), Disk())
    assert path.stat().st_size <= MAX_FILE_BYTES
    assert load_rules(path, 30).holds == holds
    full = Rules(30, holds)
    with pytest.raises(GovernanceRefused, match="too many"):
        proposed(full, "hold", from_day="2026-11-01", to_day="2026-11-30", tenant="acme")
    rules, proposal_id = proposed(full, "lift", hold_id=holds[0].hold_id)
    found = find_proposal(rules, proposal_id, ROOT, NOW + 1, confirms=True)
    assert decide(rules, found, confirms=True, index=1).holds == holds[1:]
