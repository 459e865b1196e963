"""`profile.json` and `catalog.json`: what the other documents mean by a control's identifier, so that each leads to something.

The catalog has identifiers and titles, so that whatever reads a pack resolves all of it without a network; the text of
requirements is in the publication, and not here. Where the publisher has a catalog in OSCAL, as NIST has of SP 800-53, identifiers,
also those of statements, are its own, and the profile chooses by them: the publisher's file can be put in the place of ours.
"""

from compliance.catalogue import Control
from compliance.oscal.document import (
    Identifiers,
    Json,
    control_id,
    encode,
    metadata_of,
    objective_id,
    to_token,
)
from compliance.report.content import Content

PROFILE, CATALOG = "profile.json", "catalog.json"


def write_profile(content: Content, ids: Identifiers) -> bytes:
    """The document: exactly the controls that the pack is about."""
    framework = content.framework
    chosen = [control_id(framework, control) for control in framework.controls]
    selected: Json = {"include-controls": [{"with-ids": chosen}]} if framework.baseline else {"include-all": {}}
    document = {
        "uuid": ids.of("profile"),
        "metadata": _metadata(content),
        "imports": [{"href": CATALOG, **selected}],
        "merge": {"as-is": True},
    }
    return encode("profile", document)


def write_catalog(content: Content, ids: Identifiers) -> bytes:
    """The document."""
    is_published = bool(content.framework.baseline)
    groups = [
        {
            "id": to_token(family) if is_published else f"family_{to_token(family)}",
            "class": "family",
            "title": title,
            "controls": _nest([_control(content, one.control) for one in judged]),
        }
        for family, title, judged in content.families
    ]
    document = {
        "uuid": ids.of("catalog"),
        "metadata": _metadata(content) | {"remarks": "Identifiers and titles; the text is in the publication."},
        "groups": groups,
    }
    return encode("catalog", document)


def _metadata(content: Content) -> Json:
    framework = content.framework
    metadata = metadata_of(framework.title, content.made_at_ms, content.installation.version)
    return metadata | {"links": [{"href": framework.profile, "rel": "reference"}]}


def _nest(controls: list[Json]) -> list[Json]:
    """Enhancements below what they enhance, as NIST has them: `au-9.3` in `au-9`."""
    known = {control["id"]: control for control in controls}
    outer = []
    for control in controls:
        base, _, number = control["id"].rpartition(".")
        if number.isdigit() and base in known:
            known[base].setdefault("controls", []).append(control)
        else:
            outer.append(control)
    return outer


def _control(content: Content, control: Control) -> Json:
    framework = content.framework
    whole = control_id(framework, control)
    objectives = [
        {
            "id": objective_id(framework, control, one.id),
            "name": "assessment-objective",
            "props": [{"name": "label", "value": one.id}],
        }
        for one in control.objectives
    ]
    return {
        "id": whole,
        "title": control.title,
        "props": [{"name": "label", "value": framework.label_of(control)}],
        "parts": [{"id": f"{whole}_smt", "name": "statement"}, *objectives],
    }
