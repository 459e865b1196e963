"""The SPRS score: 110, less the weight of each requirement that is not met (DoD assessment methodology 1.2.1, section 5).

A requirement is met when each of its objectives is. Two requirements have partial credit: 3.5.3 takes 3 in place of 5 where people
with privileged roles have a second factor and others have not; 3.13.11 takes 3 in place of 5 where what encrypts is not
validated. No score can be submitted without a system security plan (3.12.4), which has no weight. What does not apply counts
as met.

Two numbers are given, as the product cannot know what the customer does: for `now` whatever nobody has stated counts as not
met, so that it can be far below zero; `attainable` is what is left when the customer's parts are done.

What may wait in a plan of action under CMMC's conditional status: weight 1 alone, or 3.13.11 with encryption that is only
not validated, none of six named requirements, and a score of 88 or more; for 180 days. Source: 32 CFR 170.21, 170.24.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compliance.facts import Answer
from compliance.judgement import Judgement

FULL = 110
CONDITIONAL = 88
CLOSED_WITHIN_DAYS = 180
"""By which a plan of action under the conditional status must be closed, from the day of that status on."""
_PRIVILEGED_ONLY = (
    "people with privileged roles have a second factor; 5 where others without one come from outside your networks"
)
_NEVER_WAITS = frozenset(("3.1.20", "3.1.22", "3.12.4", "3.10.3", "3.10.4", "3.10.5"))


@dataclass(frozen=True, slots=True)
class Deduction:
    """What a requirement costs; `rule` says why it is less than its whole weight."""

    id: str
    points: int
    rule: str
    is_ours: bool
    """Also when the customer has done their part."""

    @property
    def may_wait(self) -> bool:
        """Under CMMC's conditional status."""
        return self.id not in _NEVER_WAITS and (self.points <= 1 or (self.id == "3.13.11" and self.points <= 3))


@dataclass(frozen=True, slots=True)
class Score:
    """The score with all that it is made of."""

    now: int
    has_plan: bool
    """There is a system security plan (3.12.4): without one there is no score to submit, whatever the number."""
    attainable: int
    deductions: tuple[Deduction, ...]
    objectives_satisfied: int
    objectives_total: int


def compute_score(judgements: Iterable[Judgement], answers: Mapping[str, Answer]) -> Score:
    """Score the requirements of SP 800-171."""
    judged = tuple(judgements)
    deductions = tuple(_deduct(one, answers) for one in judged if not one.is_satisfied)
    objectives = [part.is_satisfied for one in judged for part in one.objectives]
    return Score(
        now=FULL - sum(one.points for one in deductions),
        has_plan=all(one.is_satisfied for one in judged if one.control.id == "3.12.4"),
        attainable=FULL - sum(one.points for one in deductions if one.is_ours),
        deductions=deductions,
        objectives_satisfied=sum(objectives),
        objectives_total=len(objectives),
    )


def _deduct(judgement: Judgement, answers: Mapping[str, Answer]) -> Deduction:
    control = judgement.control
    words = (one.statement for one in (judgement.own, *judgement.objectives))
    is_ours = (
        judgement.verdict in ("not-met", "not-evidenced")
        and control.status != "customer"
        and all(said is None or said.status != "not-met" for said in words)
    )
    if control.id == "3.5.3" and _holds(answers, "privileged_mfa"):
        return Deduction(control.id, 3, _PRIVILEGED_ONLY, is_ours)
    if control.id == "3.13.11":
        return Deduction(control.id, 3, "encryption is employed, and not validated", is_ours)
    return Deduction(control.id, control.points, "", is_ours)


def _holds(answers: Mapping[str, Answer], name: str) -> bool:
    return name in answers and answers[name].holds is True
