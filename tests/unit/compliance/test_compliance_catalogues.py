"""The catalogues of controls: complete, strict, and with evidence for every claim."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.catalogue import Catalogue
from compliance.errors import CatalogueRejected, ComplianceFault
from compliance.loading import NAMES, load_catalogues, parse_catalogue

REQUIREMENTS = {1: 22, 2: 3, 3: 9, 4: 9, 5: 11, 6: 3, 7: 6, 8: 9, 9: 2, 10: 6, 11: 3, 12: 4, 13: 16, 14: 7}
"""How many requirements SP 800-171 has in each family."""
OBJECTIVES = {
    1: (6, 2, 5, 3, 4, 2, 4, 2, 2, 3, 2, 4, 2, 2, 4, 2, 2, 3, 2, 6, 3, 5),
    2: (4, 3, 2),
    3: (6, 2, 3, 3, 2, 2, 3, 6, 2),
    4: (6, 2, 4, 1, 8, 2, 15, 3, 3),
    5: (3, 3, 4, 1, 2, 2, 4, 2, 1, 2, 1),
    6: (7, 6, 1),
    7: (1, 4, 1, 1, 2, 1),
    8: (4, 1, 2, 2, 2, 1, 1, 1, 1),
    9: (1, 3),
    10: (4, 4, 2, 1, 3, 2),
    11: (2, 5, 2),
    12: (2, 3, 1, 8),
    13: (8, 6, 3, 1, 2, 2, 1, 3, 3, 2, 1, 3, 2, 2, 1, 1),
    14: (6, 2, 3, 1, 3, 3, 2),
}
"""How many determinations SP 800-171A has for each requirement, in order."""
OF_FIVE = """
3.1.1 3.1.2 3.1.12 3.1.13 3.1.16 3.1.17 3.1.18 3.2.1 3.2.2 3.3.1 3.3.5 3.4.1 3.4.2 3.4.5 3.4.6 3.4.7 3.4.8 3.5.1 3.5.2 3.5.3 3.5.10
3.6.1 3.6.2 3.7.2 3.7.5 3.8.3 3.8.7 3.9.2 3.10.1 3.10.2 3.11.2 3.12.1 3.12.3 3.13.1 3.13.2 3.13.5 3.13.6 3.13.11 3.13.15 3.14.1
3.14.2 3.14.3 3.14.4 3.14.6
"""
OF_THREE = "3.1.5 3.1.19 3.3.2 3.7.1 3.7.4 3.8.1 3.8.2 3.8.8 3.9.1 3.11.1 3.12.2 3.13.8 3.14.5 3.14.7"
"""Weights by 32 CFR 170.24; the two with partial credit (3.5.3, 3.13.11) at their whole weight."""
MINIMAL = """
title = "T"
href = "https://example.org"
[families]
"3.1" = "F"
[controls."3.1.1"]
title = "C"
status = "shared"
product = "P."
customer = "Q."
points = 5
objectives = 2
tests = ["tests/unit/a/test_b.py::test_c"]
facts = ["witness"]
records = ["role_granted"]
"""


@pytest.fixture(scope="module")
def requirements() -> Catalogue:
    """SP 800-171."""
    return load_catalogues()["nist-800-171"]


def test_all_110_requirements_are_there_in_order(requirements: Catalogue) -> None:
    """And no other."""
    expected = [f"3.{family}.{number}" for family, count in REQUIREMENTS.items() for number in range(1, count + 1)]
    assert len(expected) == 110
    assert list(requirements.controls) == expected


def test_all_320_objectives_are_there_once(requirements: Catalogue) -> None:
    """With the letters of SP 800-171A; a requirement with a single determination has none."""
    expected = []
    for family, counts in OBJECTIVES.items():
        for number, count in enumerate(counts, start=1):
            letters = [""] if count == 1 else [f"[{chr(97 + letter)}]" for letter in range(count)]
            expected += [f"3.{family}.{number}{letter}" for letter in letters]
    found = [objective.id for control in requirements.controls.values() for objective in control.objectives]
    assert len(expected) == 320
    assert found == expected


def test_weights_are_those_of_the_methodology(requirements: Catalogue) -> None:
    """110 points with all met, 203 below zero with none; the plan itself has no weight."""
    points = {control.id: control.points for control in requirements.controls.values()}
    assert sum(points.values()) == 313
    assert {id for id, weight in points.items() if weight == 5} == set(OF_FIVE.split())
    assert {id for id, weight in points.items() if weight == 3} == set(OF_THREE.split())
    assert [id for id, weight in points.items() if weight == 0] == ["3.12.4"]
    assert sum(weight == 1 for weight in points.values()) == 51


def test_controls_of_800_53_are_those_of_the_baselines() -> None:
    """Every control and enhancement of our families in NIST's own moderate and high baselines, by identifier and title."""
    folder = Path(os.environ.get("CASEMATE_TEST_DATA", "")) / "vectors" / "oscal"
    if not os.environ.get("CASEMATE_TEST_DATA") or not folder.is_dir():
        pytest.skip("CASEMATE_TEST_DATA does not name a folder with vectors/oscal")
    catalogue = load_catalogues()["nist-800-53"]
    for baseline in ("moderate", "high"):
        document = json.loads((folder / f"NIST_SP-800-53_rev5_{baseline.upper()}-baseline.json").read_text())
        expected = {
            label_of(control["id"]): control["title"]
            for group in document["catalog"]["groups"]
            if group["id"].upper() in catalogue.families
            for top in group["controls"]
            for control in [top, *top.get("controls", [])]
        }
        ours = {control.id: control.title for control in catalogue.controls.values() if baseline in control.baselines}
        assert ours == expected


def label_of(id: str) -> str:
    """`AU-9(3)` of `au-9.3`."""
    control, _, enhancement = id.upper().partition(".")
    return f"{control}({enhancement})" if enhancement else control


def test_no_claim_is_without_evidence() -> None:
    """Of every catalogue: what is said of the product has words and tests, what is left to the customer is said."""
    for catalogue in load_catalogues().values():
        for control in catalogue.controls.values():
            if control.is_claimed:
                assert control.product, control.id
                assert control.tests, control.id
            if control.status in ("shared", "customer"):
                assert control.customer, control.id


@pytest.mark.parametrize(("name", "id"), [("nist-800-53", "SC-13"), ("nist-800-171", "3.13.11")])
def test_validated_cryptography_is_not_claimed(name: str, id: str) -> None:
    """There is no certificate number."""
    assert load_catalogues()[name].controls[id].status == "not-met"


def test_a_catalogue_comes_out_as_it_was_written() -> None:
    """Objectives by letter, evidence by name."""
    control = parse_catalogue(MINIMAL.encode(), "nist-800-171").controls["3.1.1"]
    assert [one.id for one in control.objectives] == ["3.1.1[a]", "3.1.1[b]"]
    assert (control.family, control.points, control.facts) == ("3.1", 5, ("witness",))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "C"', 'title = "C"\nextra = 1', "extra"),
        ('status = "shared"', 'status = "done"', "done"),
        ('"3.1.1"', '"3.1.23"', "not an identifier"),
        ('"3.1" = "F"', "", "family 3.1 has no title"),
        ('["tests/unit/a/test_b.py::test_c"]', "[]", "no test shows it"),
        ("test_b.py::test_c", "b.py::c", "no test's id"),
        ('["witness"]', '["magic"]', "'magic' is no fact"),
        ('["role_granted"]', '["role_eaten"]', "no kind of record"),
        ('product = "P."', "", "does not say what the product does"),
        ('customer = "Q."', "", "does not say what the customer must do"),
        ('status = "shared"', 'status = "customer"', "has tests of ours"),
        ("objectives = 2", 'objectives = 2\nby_objective = { c = "met" }', "has no objective 'c'"),
        ('status = "shared"', 'status = "met"\nby_objective = { a = "shared" }', "an objective of it is not"),
        ('status = "shared"', 'status = "shared"\nlike = "3.1.2"', "is like 3.1.2, which is not there"),
        ("points = 5", "points = 5.5", "float"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(old: str, new: str, words: str) -> None:
    """One change each to a catalogue that is good."""
    assert old in MINIMAL
    with pytest.raises(CatalogueRejected, match=words):
        parse_catalogue(MINIMAL.replace(old, new).encode(), "nist-800-171")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda text: (MINIMAL + text).encode())))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Whatever the bytes."""
    for name in NAMES:
        try:
            parse_catalogue(data, name)
        except ComplianceFault:
            pass
