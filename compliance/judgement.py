"""Claims, facts, test results and the customer's statements together: a verdict on each control and objective, with its reasons.

(1) What the product claims counts only as far as it is evidenced: a fact that does not hold, or a test that failed, makes it
    "not-met"; a fact that is not known, or a test that the control names and that was skipped or did not run at all, make it
    "not-evidenced": the others do not show what that one would have. Other tests of the run that say that they show it count
    where they failed.
(2) What is left to the customer is open until they state something; that something is not met is believed without evidence.
    So is a fact that lies with something of theirs (people sign in at their provider): until they state it, their part is open.
(3) What the product says it does not meet stays "not-met", unless its facts hold, no test failed and the customer states that it
    is met: so validated cryptography wants modules in approved mode, and the customer's word on the certificates.
(4) An objective is judged like its control, by its own status; what is left to the customer is met when each objective is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from compliance.catalogue import Control, Status
from compliance.facts import QUESTIONS, UNKNOWN, Answer
from compliance.results import ControlResults, Outcome
from compliance.statements import Statement, Statements

Verdict = Literal["met", "shared", "customer", "not-met", "not-applicable", "not-evidenced"]
VERDICTS: tuple[Verdict, ...] = ("met", "shared", "customer", "not-evidenced", "not-met", "not-applicable")
SATISFIED: tuple[Verdict, ...] = ("met", "not-applicable")


@dataclass(frozen=True, slots=True)
class Judged:
    """One control or objective.

    Attributes:
        reasons: why it is not better, one sentence each.
        statement: the customer's, where there is one.
    """

    id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    statement: Statement | None = None

    @property
    def is_satisfied(self) -> bool:
        """Nothing is left to do about it."""
        return self.verdict in SATISFIED


@dataclass(frozen=True, slots=True)
class Judgement:
    """A control with all that was looked at."""

    control: Control
    own: Judged
    objectives: tuple[Judged, ...]
    tests: tuple[tuple[str, Outcome], ...]
    facts: tuple[tuple[str, Answer], ...]
    kinds: tuple[tuple[str, int], ...]
    """Kinds of records with how many there were in the period."""

    @property
    def verdict(self) -> Verdict:
        """Of the control as a whole."""
        return self.own.verdict

    @property
    def tests_in_words(self) -> str:
        """How many of its tests passed; that nobody knows where no result of this build is at hand."""
        if all(outcome == "missing" for _, outcome in self.tests):
            return f"no result of its {len(self.tests)} tests"
        return f"{sum(outcome == 'passed' for _, outcome in self.tests)} of {len(self.tests)} tests passed"

    @property
    def lacking_tests(self) -> tuple[tuple[str, Outcome], ...]:
        """Tests for want of which it is not evidenced: those that it names and that did not pass, and others that failed."""
        return _find_lacking(self.control, self.tests)

    @property
    def is_satisfied(self) -> bool:
        """Nothing is left to do about the whole of it."""
        return self.own.is_satisfied


def judge(
    controls: Iterable[Control],
    answers: Mapping[str, Answer],
    results: ControlResults,
    statements: Statements,
    counts: Mapping[str, int],
) -> tuple[Judgement, ...]:
    """Judge every control.

    Args:
        answers: what was found about the installation, by the names of QUESTIONS.
        results: of the tests of the very software that runs; NO_RESULTS where there are none of it.
        counts: records in the period, by kind.
    """
    return tuple(_judge_control(control, answers, results, statements, counts) for control in controls)


def _judge_control(
    control: Control,
    answers: Mapping[str, Answer],
    results: ControlResults,
    statements: Statements,
    counts: Mapping[str, int],
) -> Judgement:
    named = [*control.tests, *(test for test in results.tests_of(control.id) if test not in control.tests)]
    tests = tuple((test, results.outcome_of(test, control.id)) for test in named if control.tests)
    facts = tuple((name, answers.get(name, UNKNOWN)) for name in control.facts)
    lacking = _find_lacking(control, tests)
    own = statements.get(control.id)
    objectives = tuple(
        Judged(one.id, *_weigh(one.status, lacking, facts, statements.get(one.id, own)), statements.get(one.id, own))
        for one in control.objectives
    )
    whole = Judged(control.id, *_weigh(control.status, lacking, facts, own), own)
    if whole.verdict in ("shared", "customer") and objectives and all(one.is_satisfied for one in objectives):
        whole = Judged(control.id, "met", ("Each of its objectives is satisfied.",), own)
    if whole.is_satisfied:
        whole = _lowered(whole, objectives)
    kinds = tuple((kind, counts.get(kind, 0)) for kind in control.kinds)
    return Judgement(control, whole, objectives, tests, facts, kinds)


def _lowered(whole: Judged, objectives: tuple[Judged, ...]) -> Judged:
    """A requirement is met when each of its objectives is (SP 800-171A), whatever is said of it as a whole."""
    amiss = [one for one in objectives if one.verdict in ("not-met", "not-evidenced")]
    if not amiss:
        return whole
    verdict: Verdict = "not-met" if any(one.verdict == "not-met" for one in amiss) else "not-evidenced"
    reasons = tuple(" ".join((f"Objective {one.id} is {one.verdict}.", *one.reasons)) for one in amiss)
    return Judged(whole.id, verdict, reasons, whole.statement)


def _find_lacking(control: Control, tests: tuple[tuple[str, Outcome], ...]) -> tuple[tuple[str, Outcome], ...]:
    return tuple(
        (test, outcome)
        for test, outcome in tests
        if outcome == "failed" or (outcome != "passed" and test in control.tests)
    )


def _weigh(
    status: Status,
    lacking: tuple[tuple[str, Outcome], ...],
    facts: tuple[tuple[str, Answer], ...],
    statement: Statement | None,
) -> tuple[Verdict, tuple[str, ...]]:
    said: Verdict | None = None if statement is None else statement.status
    if status in ("customer", "not-applicable"):
        return said or status, _word_statement(statement)
    if said == "not-met":
        return "not-met", _word_statement(statement)
    missing, unknown, elsewhere = _weigh_facts(facts)
    failed = tuple(f"The test {test} failed." for test, outcome in lacking if outcome == "failed")
    if status == "not-met":  # (3)
        if said == "met" and not missing and not unknown and not elsewhere and not failed:
            return "met", _word_statement(statement)
        return "not-met", ("The product does not meet this by itself.", *missing, *failed)
    if missing or failed:  # (1)
        return "not-met", missing + failed
    untested = _word_untested(lacking)
    if unknown or untested:
        return "not-evidenced", (*unknown, *untested)
    if (status == "shared" or elsewhere) and said != "met":  # (2)
        return said or "shared", (*elsewhere, *_word_statement(statement))
    return "met", _word_statement(statement)


def _weigh_facts(
    facts: tuple[tuple[str, Answer], ...],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Sentences for facts that do not hold, for those that are not known, and for those that lie with the customer."""
    missing = tuple(f"{QUESTIONS[name].missing} ({answer.words})" for name, answer in facts if answer.holds is False)
    unknown = tuple(
        f"Not known: {QUESTIONS[name].title} ({answer.words})."
        for name, answer in facts
        if answer.holds is None and not answer.is_elsewhere
    )
    elsewhere = tuple(
        f"Yours to state: {QUESTIONS[name].title}, or the same holds elsewhere ({answer.words})."
        for name, answer in facts
        if answer.holds is None and answer.is_elsewhere
    )
    return missing, unknown, elsewhere


def _word_untested(lacking: tuple[tuple[str, Outcome], ...]) -> tuple[str, ...]:
    num_missing = sum(outcome == "missing" for _, outcome in lacking)
    missing = (f"No result of {num_missing} of this build's tests for it is at hand.",) if num_missing else ()
    skipped = (
        f"The test {test} was skipped where this build was tested: what it would have shown is not shown."
        for test, outcome in lacking
        if outcome == "skipped"
    )
    return (*missing, *skipped)


def _word_statement(statement: Statement | None) -> tuple[str, ...]:
    if statement is None:
        return ()
    return (f"Stated by {statement.by} on {statement.on:%Y-%m-%d}: {statement.evidence}",)
