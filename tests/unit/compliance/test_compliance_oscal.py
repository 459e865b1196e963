"""The OSCAL documents: what each model requires, references that lead somewhere, no identifier twice.

That they are valid by others' models is tested with compliance-trestle (`make test-interop`).
"""

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compliance.frameworks import FRAMEWORKS
from compliance.oscal.document import NAMESPACE, control_id
from compliance.pack import WrittenPack
from tests.support.evidence import make_installation, order_pack, write_made_up_pack

REQUIRED = {
    "profile": {"uuid", "metadata", "imports", "merge"},
    "catalog": {"uuid", "metadata", "groups"},
    "component-definition": {"uuid", "metadata", "components"},
    "system-security-plan": {
        "uuid", "metadata", "import-profile", "system-characteristics", "system-implementation", "control-implementation",
    },
    "assessment-plan": {"uuid", "metadata", "import-ssp", "reviewed-controls"},
    "assessment-results": {"uuid", "metadata", "import-ap", "results"},
    "plan-of-action-and-milestones": {
        "uuid", "metadata", "import-ssp", "local-definitions", "risks", "findings", "poam-items",
    },
}  # fmt: skip
TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


@pytest.fixture(scope="module")
def documents(month: Path, made: WrittenPack) -> dict[str, Any]:
    """Every document by its kind."""
    folder = month / "shared" / "oscal"
    return {path.stem: json.loads(path.read_bytes())[path.stem] for path in sorted(folder.iterdir())}


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name, member
            yield from walk(member)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def test_each_document_has_what_its_model_requires(documents: dict[str, Any]) -> None:
    """And the same version and time."""
    assert set(documents) == set(REQUIRED)
    for kind, members in REQUIRED.items():
        assert set(documents[kind]) == members
        assert documents[kind]["metadata"]["oscal-version"] == "1.1.3"
        assert documents[kind]["metadata"]["last-modified"].endswith("Z")


def test_identifiers_are_version_5_and_each_names_one_thing(documents: dict[str, Any]) -> None:
    """Within a document; the component is the same one in all."""
    for document in documents.values():
        found = [value for name, value in walk(document) if name == "uuid"]
        assert len(found) == len(set(found))
        assert all(uuid.UUID(value).version == 5 for value in found)


def test_references_lead_to_what_is_there(documents: dict[str, Any]) -> None:
    """Each within its own document: observations of findings, findings of the plan's items, components of the plan."""
    for document in documents.values():
        declared = {value for name, value in walk(document) if name == "uuid"}
        assert {value for name, value in walk(document) if name.endswith("-uuid")} <= declared
    components = {one["uuid"] for one in documents["system-security-plan"]["system-implementation"]["components"]}
    assert {value for name, value in walk(documents["system-security-plan"]) if name == "component-uuid"} == components
    (result,) = documents["assessment-results"]["results"]
    told = {one["uuid"]: one["target"] for one in result["findings"]}
    again = documents["plan-of-action-and-milestones"]["findings"]
    assert again
    assert all(told[one["uuid"]] == one["target"] for one in again), "the same findings by the same names"


def test_every_identifier_of_a_control_is_in_the_catalog(documents: dict[str, Any]) -> None:
    """Which the profile imports whole: controls, their statements and their objectives."""
    assert documents["profile"]["imports"] == [{"href": "catalog.json", "include-all": {}}]
    known = {value for name, value in walk(documents["catalog"]) if name == "id"}
    assert len(known) == 14 + 110 + 110 + 320
    (result,) = documents["assessment-results"]["results"]
    assert {one["target"]["target-id"] for one in result["findings"]} <= known
    for document in documents.values():
        assert {value for name, value in walk(document) if name == "control-id"} <= known


OWN_PROPERTIES = {
    ("catalog", "controls"): {"label"},
    ("catalog", "parts"): {"label"},
    ("system-security-plan", "components"): {"version"},
    ("assessment-results", "components"): {"version"},
    ("plan-of-action-and-milestones", "components"): {"version"},
    ("system-security-plan", "users"): {"type"},
    ("system-security-plan", "inventory-items"): {"asset-id"},
}
"""What we write into OSCAL's own namespace, by the list whose items have it: names that its constraints (`allowed-values` of the
metaschemas of 1.1.3) take there. Schemas, and what reads by them, do not look at these."""


def find_properties(value: Any, holder: str = "") -> Iterator[tuple[str, Any]]:
    """Every property with the name of the list that its object stands in."""
    if isinstance(value, dict):
        yield from ((holder, one) for one in value.get("props", ()))
        for name, member in value.items():
            yield from find_properties(member, name)
    elif isinstance(value, list):
        for item in value:
            yield from find_properties(item, holder)


def test_a_property_is_ours_or_one_that_oscal_takes_there(documents: dict[str, Any]) -> None:
    """Who says nothing of a namespace uses OSCAL's, in which each place has its closed list of names."""
    found: dict[tuple[str, str], set[str]] = {}
    for kind, document in documents.items():
        for holder, one in find_properties(document):
            if "ns" not in one:
                found.setdefault((kind, holder), set()).add(one["name"])
            else:
                assert one["ns"] == NAMESPACE
    assert found == OWN_PROPERTIES


def test_files_that_are_named_are_in_the_pack(documents: dict[str, Any], month: Path) -> None:
    """Links to elsewhere are to the publication alone."""
    elsewhere = set()
    for document in documents.values():
        for name, value in walk(document):
            if name in ("href", "source"):
                if value.startswith("https://"):
                    elsewhere.add(value)
                else:
                    assert (month / "shared" / "oscal" / value).is_file(), value
    assert elsewhere == {FRAMEWORKS["cmmc-l2"].profile}


def test_a_pack_without_results_of_tests_names_no_file_of_them(month: Path) -> None:
    """That there are none is said in the observations."""
    write_made_up_pack(order_pack(test_results=None), month, "untested")
    folder = month / "untested" / "oscal"
    results = json.loads((folder / "assessment-results.json").read_bytes())
    named = {value for name, value in walk(results) if name == "href"}
    assert "../facts.json" in named
    assert all((folder / value).is_file() for value in named)


def test_each_item_of_the_plan_of_action_has_its_risk(documents: dict[str, Any]) -> None:
    """What can happen, what to do, and who says so; each risk is of one item."""
    plan = documents["plan-of-action-and-milestones"]
    risks = {one["uuid"]: one for one in plan["risks"]}
    named = [related["risk-uuid"] for item in plan["poam-items"] for related in item["related-risks"]]
    assert sorted(named) == sorted(risks)
    validated = next(one for one in plan["risks"] if one["title"].startswith("SC.L2-3.13.11"))
    assert "so no encryption counts as validated" in validated["statement"]
    assert any("fips = true" in one["description"] for one in validated["remediations"])
    (product,) = plan["local-definitions"]["components"]
    for kind in ("poam-items", "risks", "findings"):
        assert all(
            one["origins"] == [{"actors": [{"type": "tool", "actor-uuid": product["uuid"]}]}] for one in plan[kind]
        )


@pytest.fixture(scope="module")
def moderate(month: Path) -> Path:
    """The documents of a framework of which NIST publishes a catalog."""
    write_made_up_pack(order_pack("800-53-moderate"), month, "moderate")
    return month / "moderate" / "oscal"


def test_a_baseline_is_chosen_by_the_publishers_identifiers(moderate: Path) -> None:
    """Out of a catalog that lies beside: nothing of a pack needs a network; NIST's own can take its place."""
    ((source,),) = [json.loads((moderate / "profile.json").read_bytes())["profile"]["imports"]]
    framework = FRAMEWORKS["800-53-moderate"]
    ids = [control_id(framework, one) for one in framework.controls]
    assert source == {"href": "catalog.json", "include-controls": [{"with-ids": ids}]}
    catalog = json.loads((moderate / "catalog.json").read_bytes())["catalog"]
    found = [value for name, value in walk(catalog["groups"]) if name == "id"]
    assert set(ids) <= set(found)
    assert len(found) == len(set(found))
    (audit,) = (group for group in catalog["groups"] if group["id"] == "au")
    (content,) = (one for one in audit["controls"] if one["id"] == "au-3")
    assert [one["id"] for one in content["controls"]] == ["au-3.1"]
    (link,) = catalog["metadata"]["links"]
    assert link["href"] == framework.profile


def test_identifiers_are_those_of_nists_catalog(moderate: Path) -> None:
    """Controls, groups and statements, where NIST has one; statements as well."""
    folder = Path(os.environ.get("CASEMATE_TEST_DATA", "")) / "vectors" / "oscal"
    if not os.environ.get("CASEMATE_TEST_DATA") or not folder.is_dir():
        pytest.skip("CASEMATE_TEST_DATA does not name a folder with vectors/oscal")
    nist = json.loads((folder / "NIST_SP-800-53_rev5_MODERATE-baseline.json").read_bytes())["catalog"]
    theirs = {value for name, value in walk(nist["groups"]) if name == "id"}
    ours = json.loads((moderate / "catalog.json").read_bytes())["catalog"]
    assert {value for name, value in walk(ours["groups"]) if name == "id"} <= theirs


def test_the_plan_tells_what_the_customer_stated(month: Path) -> None:
    """Beside what the product does, under the component that is theirs."""
    said = b'[statements."3.10.1"]\nstatus = "met"\nby = "facility security"\non = 2026-01-01\nevidence = "Badges."\n'
    write_made_up_pack(order_pack(statements=said), month, "stated")
    plan = json.loads((month / "stated" / "oscal" / "system-security-plan.json").read_bytes())["system-security-plan"]
    (system,) = [one for one in plan["system-implementation"]["components"] if one["type"] == "this-system"]
    (told,) = [
        one
        for one in plan["control-implementation"]["implemented-requirements"]
        if one["control-id"] == "sp_800_171_3.10.1"
    ]
    (part,) = [one for one in told["by-components"] if one["component-uuid"] == system["uuid"]]
    assert part["implementation-status"] == {"state": "implemented"}
    assert "3.10.1: met, stated by facility security on 2026-01-01: Badges." in part["remarks"]


def test_the_plan_claims_what_this_installation_has(month: Path) -> None:
    """The component definition tells what the product does; in the plan what rests on a fact that does not hold is not there."""
    folders = {}
    for name, installation in (("with", make_installation()), ("without", make_installation(banner=False))):
        write_made_up_pack(order_pack(installation=installation), month, f"plan-{name}")
        path = month / f"plan-{name}" / "oscal" / "system-security-plan.json"
        folders[name] = json.loads(path.read_bytes())["system-security-plan"]["control-implementation"]
    states = {
        name: {
            one["control-id"]: (part["implementation-status"]["state"], part.get("remarks", ""))
            for one in plan["implemented-requirements"]
            for part in one["by-components"][:1]
        }
        for name, plan in folders.items()
    }
    assert states["with"]["sp_800_171_3.1.9"] == ("partial", "")
    state, why = states["without"]["sp_800_171_3.1.9"]
    assert (state, "as made up" in why) == ("planned", True)
    assert states["without"]["sp_800_171_3.1.8"] == states["with"]["sp_800_171_3.1.8"] == ("implemented", "")


def test_findings_are_the_judgements(documents: dict[str, Any], made: WrittenPack) -> None:
    """One about each control, one about each objective; satisfied where nothing is left to do."""
    (result,) = documents["assessment-results"]["results"]
    found = {one["target"]["target-id"]: one["target"]["status"]["state"] for one in result["findings"]}
    assert len(found) == 110 + 320
    for one in made.content.judgements:
        state = "satisfied" if one.is_satisfied else "not-satisfied"
        assert found[f"sp_800_171_{one.control.id}_smt"] == state


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_controls_have_identifiers_that_oscal_takes(name: str) -> None:
    """Each its own; those of SP 800-53 are NIST's."""
    framework = FRAMEWORKS[name]
    ids = [control_id(framework, control) for control in framework.controls]
    assert len(set(ids)) == len(ids)
    assert all(TOKEN.fullmatch(id) for id in ids)
    if name == "800-53-high":
        assert {"au-9.3", "ac-2.13", "sc-13"} <= set(ids)


def test_no_text_is_empty(documents: dict[str, Any]) -> None:
    """Titles, descriptions and values of properties: OSCAL has none that are."""
    for document in documents.values():
        for name, value in walk(document):
            if name in ("title", "description", "value", "href", "remarks"):
                assert isinstance(value, str)
                assert value.strip(), name
