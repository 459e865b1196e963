"""The SPRS score by the methodology's own numbers."""

import datetime

import pytest

from compliance.frameworks import FRAMEWORKS
from compliance.judgement import judge
from compliance.results import NO_RESULTS, parse_results
from compliance.scoring import Score, compute_score
from compliance.statements import Statement
from tests.support.evidence import make_answers, make_results

CONTROLS = FRAMEWORKS["cmmc-l2"].controls
WORD = Statement("met", "us", datetime.date(2026, 1, 1), "A file.")
ALL_MET = {control.id: WORD for control in CONTROLS}


def score(*, without: tuple[str, ...] = (), has_results: bool = True, **facts: bool | None) -> Score:
    """With everything met by facts, tests and statements, but for these."""
    answers = make_answers(**{"fips_modules": True, **facts})
    statements = {id: word for id, word in ALL_MET.items() if id not in without}
    ran = parse_results(make_results()) if has_results else NO_RESULTS
    return compute_score(judge(CONTROLS, answers, ran, statements, {}), answers)


def test_with_all_met_it_is_110() -> None:
    """And every objective is satisfied."""
    found = score()
    assert (found.now, found.attainable, found.deductions) == (110, 110, ())
    assert (found.objectives_satisfied, found.objectives_total) == (320, 320)


def test_with_nothing_met_it_is_as_low_as_it_can_be() -> None:
    """-203 by the methodology, less two for encryption that is employed, and the weights of what does not apply."""
    answers = make_answers(privileged_mfa=False) | {}
    judged = judge(CONTROLS, answers, NO_RESULTS, {}, {})
    found = compute_score(judged, answers)
    not_applicable = sum(one.control.points for one in judged if one.control.status == "not-applicable")
    assert found.now == -203 + 2 + not_applicable


@pytest.mark.parametrize(("id", "points"), [("3.1.1", 5), ("3.10.1", 5), ("3.9.1", 3), ("3.10.3", 1), ("3.12.4", 0)])
def test_each_requirement_takes_its_weight(id: str, points: int) -> None:
    """One that nobody stated as met, shared or the customer's: once their part is done it takes nothing."""
    found = score(without=(id,))
    assert (found.now, found.attainable) == (110 - points, 110)
    assert [cost.id for cost in found.deductions] == [id]


def test_an_objective_counts_by_itself_and_its_requirement_as_a_whole() -> None:
    """Of a requirement with one objective stated the others are open, and its points are lost."""
    answers, ran = make_answers(fips_modules=True), parse_results(make_results())
    words = {id: word for id, word in ALL_MET.items() if id != "3.10.1"} | {"3.10.1[a]": WORD}
    found = compute_score(judge(CONTROLS, answers, ran, words, {}), answers)
    (requirement,) = (control for control in CONTROLS if control.id == "3.10.1")
    assert found.objectives_satisfied == 320 - len(requirement.objectives) + 1
    assert (len(requirement.objectives) > 1, found.now) == (True, 105)


@pytest.mark.parametrize("id", ["3.2.1", "3.1.8", "3.10.1"])
def test_an_objective_that_is_not_met_takes_the_points_of_its_requirement(id: str) -> None:
    """SP 800-171A: met is what has all its objectives met, whatever is stated of the whole."""
    answers, ran = make_answers(fips_modules=True), parse_results(make_results())
    word = Statement("not-met", "us", datetime.date(2026, 1, 1), "Nobody did.")
    judged = judge(CONTROLS, answers, ran, ALL_MET | {f"{id}[a]": word}, {})
    found = compute_score(judged, answers)
    (requirement,) = (control for control in CONTROLS if control.id == id)
    assert (found.now, found.objectives_satisfied) == (110 - requirement.points, 319)
    (cost,) = found.deductions
    assert (cost.id, cost.is_ours) == (id, False)
    (judgement,) = (one for one in judged if one.control.id == id)
    assert judgement.verdict == "not-met"
    assert judgement.own.reasons[0].startswith(f"Objective {id}[a] is not-met. ")


def test_a_plan_of_which_an_objective_is_not_met_is_none() -> None:
    """3.12.4[a]: there is one."""
    answers, ran = make_answers(fips_modules=True), parse_results(make_results())
    word = Statement("not-met", "us", datetime.date(2026, 1, 1), "None yet.")
    assert not compute_score(judge(CONTROLS, answers, ran, ALL_MET | {"3.12.4[a]": word}, {}), answers).has_plan


def test_without_a_plan_there_is_no_score_to_submit() -> None:
    """However high the number is: 3.12.4 has no weight."""
    assert score().has_plan
    assert score(without=("3.10.1",)).has_plan
    assert not score(without=("3.12.4",)).has_plan
    assert score(without=("3.12.4",)).now == 110


def test_a_wireless_link_of_the_customers_is_not_hidden_by_what_the_product_has_not() -> None:
    """Their word that 3.1.16 is not met counts, though nothing of ours is about it."""
    answers = make_answers(fips_modules=True)
    word = Statement("not-met", "us", datetime.date(2026, 1, 1), "Access points without authorization.")
    judged = judge(CONTROLS, answers, parse_results(make_results()), ALL_MET | {"3.1.16": word}, {})
    assert compute_score(judged, answers).now == 105


def test_encryption_that_is_not_validated_takes_three() -> None:
    """Partial credit; whatever the customer states, as the fact does not hold."""
    found = score(fips_modules=False)
    (cost,) = found.deductions
    assert (cost.id, cost.points, cost.may_wait, cost.is_ours) == ("3.13.11", 3, True, True)
    assert (found.now, found.attainable) == (107, 107)


def test_a_second_factor_for_the_privileged_takes_three_for_the_rest() -> None:
    """And five where they have none either."""
    assert score(all_mfa=False, privileged_mfa=True).now == 107
    assert score(all_mfa=False, privileged_mfa=False).now == 105


@pytest.mark.parametrize(
    ("id", "may_wait"),
    [("3.10.3", False), ("3.1.20", False), ("3.12.4", False), ("3.6.3", True), ("3.10.1", False), ("3.9.1", False)],
)
def test_what_may_wait_is_what_the_rule_names(id: str, may_wait: bool) -> None:
    """Weight one, and not one of six."""
    (cost,) = score(without=(id,)).deductions
    assert cost.may_wait == may_wait


def test_what_is_the_customers_is_not_counted_against_what_is_attainable() -> None:
    """A customer who states that their part is not done has the same to attain."""
    answers = make_answers(fips_modules=True)
    ran = parse_results(make_results())
    word = Statement("not-met", "us", datetime.date(2026, 1, 1), "Not yet.")
    found = compute_score(judge(CONTROLS, answers, ran, ALL_MET | {"3.1.1": word}, {}), answers)
    assert (found.now, found.attainable) == (105, 110)
