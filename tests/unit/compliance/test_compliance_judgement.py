"""Verdicts: what the evidence shows and no more, whatever is claimed or stated."""

import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.catalogue import Control, Objective, Status
from compliance.facts import Answer
from compliance.judgement import VERDICTS, Judgement, judge
from compliance.loading import load_catalogues
from compliance.results import FORMAT, NO_RESULTS, ControlResults, MarkedTest, parse_results
from compliance.statements import Statement
from tests.support.evidence import make_answers, make_results

TEST = "tests/unit/a/test_a.py::test_a"
CONTROL = Control(
    id="3.3.8",
    title="T",
    status="shared",
    product="P.",
    customer="C.",
    tests=(TEST,),
    facts=("witness",),
    kinds=("role_granted",),
    baselines=(),
    objectives=(Objective(id="3.3.8[a]", status="met"), Objective(id="3.3.8[b]", status="customer")),
    points=1,
)
HOLDS, BROKEN, UNKNOWN = Answer(True, "w"), Answer(False, "w"), Answer(None, "w")
ELSEWHERE = Answer(None, "w", is_elsewhere=True)


def results(outcome: str) -> ControlResults:
    """A run in which the test ended so."""
    return ControlResults(FORMAT, "s", {TEST: MarkedTest(("3.3.8",), outcome)})  # type: ignore[arg-type]


def said(status: str) -> Statement:
    """The customer's word."""
    return Statement(status, "us", datetime.date(2026, 1, 1), "A file.")  # type: ignore[arg-type]


def verdict_on(
    status: Status, fact: Answer, ran: ControlResults, statements: dict[str, Statement] | None = None
) -> Judgement:
    """The judgement on a control of this status, without objectives."""
    control = replace(CONTROL, status=status, objectives=())
    (judgement,) = judge([control], {"witness": fact}, ran, statements or {}, {"role_granted": 3})
    return judgement


@pytest.mark.parametrize(
    ("status", "fact", "outcome", "word", "verdict"),
    [
        ("met", HOLDS, "passed", None, "met"),
        ("met", BROKEN, "passed", None, "not-met"),
        ("met", UNKNOWN, "passed", None, "not-evidenced"),
        ("met", HOLDS, "failed", None, "not-met"),
        ("met", HOLDS, "skipped", None, "not-evidenced"),
        ("shared", HOLDS, "passed", None, "shared"),
        ("shared", HOLDS, "passed", "met", "met"),
        ("shared", HOLDS, "passed", "not-met", "not-met"),
        ("shared", BROKEN, "passed", "met", "not-met"),
        ("shared", HOLDS, "skipped", "met", "not-evidenced"),
        ("customer", HOLDS, "passed", None, "customer"),
        ("customer", HOLDS, "passed", "met", "met"),
        ("customer", HOLDS, "passed", "not-applicable", "not-applicable"),
        ("not-met", HOLDS, "passed", None, "not-met"),
        ("not-met", BROKEN, "passed", "met", "not-met"),
        ("not-met", HOLDS, "passed", "met", "met"),
        ("not-met", HOLDS, "failed", "met", "not-met"),
        ("not-met", HOLDS, "skipped", "met", "met"),
        ("not-applicable", BROKEN, "failed", None, "not-applicable"),
        ("not-applicable", HOLDS, "passed", "not-met", "not-met"),
        ("not-applicable", HOLDS, "passed", "met", "met"),
        ("met", ELSEWHERE, "passed", None, "shared"),
        ("met", ELSEWHERE, "passed", "met", "met"),
        ("met", ELSEWHERE, "failed", "met", "not-met"),
        ("met", ELSEWHERE, "skipped", "met", "not-evidenced"),
        ("shared", ELSEWHERE, "passed", "met", "met"),
        ("not-met", ELSEWHERE, "passed", "met", "not-met"),
    ],
)
def test_a_verdict_needs_its_evidence(
    status: Status, fact: Answer, outcome: str, word: str | None, verdict: str
) -> None:
    """The customer's word counts for their part, and never in place of ours."""
    statements = {} if word is None else {"3.3.8": said(word)}
    judged = verdict_on(status, fact, results(outcome), statements)
    assert judged.verdict == verdict
    assert judged.is_satisfied == (verdict in ("met", "not-applicable"))
    if verdict in ("not-met", "not-evidenced"):
        assert judged.own.reasons, "a verdict says why"


def test_what_lies_with_the_customer_says_so() -> None:
    """An open verdict tells what is to be looked at elsewhere."""
    (reason,) = verdict_on("met", ELSEWHERE, results("passed")).own.reasons
    assert reason.startswith("Yours to state: ")


def test_without_results_nothing_that_rests_on_tests_is_met() -> None:
    """Of all catalogues, every fact holding: no result, no verdict for the better."""
    for catalogue in load_catalogues().values():
        for one in judge(catalogue.controls.values(), make_answers(fips_modules=True), NO_RESULTS, {}, {}):
            assert one.verdict not in ("met", "shared"), one.control.id


def test_each_fact_that_a_control_asks_for_decides_over_it() -> None:
    """One fact at a time that does not hold: every control that names it is not met, and says which."""
    ran = parse_results(make_results())
    for catalogue in load_catalogues().values():
        controls = [control for control in catalogue.controls.values() if control.is_claimed]
        for fact in sorted({fact for control in controls for fact in control.facts}):
            for one in judge(controls, make_answers(fips_modules=True, **{fact: False}), ran, {}, {}):
                assert (one.verdict == "not-met") == (fact in one.control.facts), (one.control.id, fact)


@pytest.mark.parametrize(("outcome", "verdict"), [("failed", "not-met"), ("skipped", "not-evidenced")])
def test_every_test_that_did_not_pass_decides_over_its_controls(outcome: str, verdict: str) -> None:
    """However many others passed; and over no others."""
    requirements = load_catalogues()["nist-800-171"].controls
    for test in requirements["3.3.8"].tests:
        ran = parse_results(make_results(**{outcome: (test,)}))
        for one in judge(requirements.values(), make_answers(), ran, {}, {}):
            if one.control.is_claimed:
                assert (one.verdict == verdict) == (test in one.control.tests)


def test_a_run_that_left_named_tests_out_shows_nothing() -> None:
    """Or whoever makes the results would choose which of the tests are evidence."""
    other = "tests/unit/a/test_b.py::test_b"
    found = {other: MarkedTest(("3.3.8",), "passed")}
    judged = verdict_on("met", HOLDS, ControlResults(FORMAT, "s", found))
    assert judged.tests == ((TEST, "missing"), (other, "passed"))
    assert (judged.verdict, judged.own.reasons) == (
        "not-evidenced",
        ("No result of 1 of this build's tests for it is at hand.",),
    )
    assert judged.lacking_tests == ((TEST, "missing"),)


def test_tests_that_a_control_does_not_name_count_against_it() -> None:
    """Whoever writes a test marks it; the catalogue names what must be there, and no other stands in for one of these."""
    other = "tests/unit/a/test_b.py::test_b"
    found = {TEST: MarkedTest(("3.3.8",), "skipped"), other: MarkedTest(("3.3.8",), "passed")}
    judged = verdict_on("met", HOLDS, ControlResults(FORMAT, "s", found))
    assert judged.tests == ((TEST, "skipped"), (other, "passed"))
    assert judged.verdict == "not-evidenced"
    assert judged.own.reasons == (
        f"The test {TEST} was skipped where this build was tested: what it would have shown is not shown.",
    )
    found = {TEST: MarkedTest(("3.3.8",), "passed"), other: MarkedTest(("3.3.8",), "skipped")}
    assert verdict_on("met", HOLDS, ControlResults(FORMAT, "s", found)).verdict == "met"
    found[other] = MarkedTest(("3.3.8",), "failed")
    judged = verdict_on("met", HOLDS, ControlResults(FORMAT, "s", found))
    assert (judged.verdict, judged.lacking_tests) == ("not-met", ((other, "failed"),))


def test_objectives_are_judged_by_their_own_status() -> None:
    """What the product meets is met, what is left to the customer is open; a word on one objective is about that one."""
    (judged,) = judge([CONTROL], {"witness": HOLDS}, results("passed"), {}, {})
    assert [one.verdict for one in judged.objectives] == ["met", "customer"]
    assert not judged.is_satisfied
    (judged,) = judge([CONTROL], {"witness": HOLDS}, results("passed"), {"3.3.8[b]": said("met")}, {})
    assert [one.verdict for one in judged.objectives] == ["met", "met"]
    assert judged.verdict == "met", "each of its objectives is"
    (judged,) = judge([CONTROL], {"witness": BROKEN}, results("passed"), {"3.3.8[b]": said("met")}, {})
    assert judged.verdict == "not-met"


statuses = st.sampled_from(["met", "shared", "customer", "not-met", "not-applicable"])
answers = st.sampled_from([HOLDS, BROKEN, UNKNOWN, ELSEWHERE])


@given(statuses, answers, st.sampled_from(["passed", "failed", "skipped"]), st.sampled_from([None, "met", "not-met"]))
def test_better_evidence_is_never_worse(status: Status, fact: Answer, outcome: str, word: str | None) -> None:
    """Whatever else is known, a fact that holds and a test that passed leave the verdict as it is, or make it better."""
    statements = {} if word is None else {"3.3.8": said(word)}
    before = verdict_on(status, fact, results(outcome), statements).verdict
    after = verdict_on(status, HOLDS, results("passed"), statements).verdict
    order = {verdict: rank for rank, verdict in enumerate(VERDICTS)} | {"not-applicable": -1}
    assert order[after] <= order[before]
