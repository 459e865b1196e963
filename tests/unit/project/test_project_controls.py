"""Controls that are claimed and tests that show them agree: looked at in the sources, whichever part of the suite runs.

A test that carries @control and is renamed or split wants its new name in `compliance/controls/*.toml`.
"""

import ast
from pathlib import Path

import pytest

from compliance.loading import load_catalogues
from tests.support.controls import control
from tests.support.sources import Definition, read_source

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def marked() -> dict[str, set[str]]:
    """Every test function of the repository with the controls that it says it shows."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for definition in read_source(path).definitions:
            if not definition.is_class and definition.name.startswith("test_"):
                found[f"{path.relative_to(ROOT).as_posix()}::{definition.name}"] = ids_of(definition)
    return found


def ids_of(function: Definition) -> set[str]:
    """What its `@control(…)` names."""
    return {
        ast.literal_eval(argument)
        for decorator in function.decorators
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("control", "pytest.mark.control")
        for argument in decorator.args
    }


def claims() -> set[tuple[str, str]]:
    """Every control with each test that is said to show it."""
    return {
        (test, control.id)
        for catalogue in load_catalogues().values()
        for control in catalogue.controls.values()
        for test in control.tests
    }


def test_every_claimed_control_is_shown_by_tests_that_exist_and_say_so(marked: dict[str, set[str]]) -> None:
    """A test that was renamed, removed or lost its marker is evidence no more."""
    lost = sorted({claim for claim in claims() if claim[1] not in marked.get(claim[0], set())})
    assert not lost, "compliance/controls/*.toml name these tests, which are gone or do not carry the control"


def test_every_marker_is_of_a_control_that_something_is_said_of(marked: dict[str, set[str]]) -> None:
    """One that does not exist is a slip of the pen; one that is the customer's has no tests of ours."""
    ours = {id for _, id in claims()}
    strange = {(test, id) for test, ids in marked.items() for id in ids - ours}
    assert not strange, "compliance/controls/*.toml say nothing of ours about these controls"


def test_the_decorator_is_the_marker_that_pytest_knows() -> None:
    """Its arguments are what the run's results name."""
    assert control("AU-9(3)", "3.3.8").mark.args == ("AU-9(3)", "3.3.8")
    assert control("x").mark.name == "control"
