"""`profile.json` and `catalog.json`: what the other documents mean by a control's identifier, so that each leads to something.

NIST publishes SP 800-53 in OSCAL: there the profile chooses our families out of NIST's own baseline. Of the other frameworks
nobody publishes a catalog: there one is written, with identifiers and titles; the text of requirements is in the publication,
and not here.
"""

from compliance.catalogue import Control
from compliance.oscal.document import Identifiers, Json, control_id, encode, metadata_of, objective_id, to_token
from compliance.report.content import Content

PROFILE, CATALOG = "profile.json", "catalog.json"


def write_profile(content: Content, ids: Identifiers) -> bytes:
    """The document: exactly the controls that the pack is about."""
    framework = content.framework
    if framework.baseline:
        chosen = [control_id(framework, control) for control in framework.controls]
        source: Json = {"href": framework.profile, "include-controls": [{"with-ids": chosen}]}
    else:
        source = {"href": CATALOG, "include-all": {}}
    document = {
        "uuid": ids.of("profile"),
        "metadata": metadata_of(framework.title, content.made_at_ms, content.installation.version),
        "imports": [source],
        "merge": {"as-is": True},
    }
    return encode("profile", document)


def write_catalog(content: Content, ids: Identifiers) -> bytes | None:
    """The document; None where the publisher has one."""
    framework = content.framework
    if framework.baseline:
        return None
    groups = [
        {
            "id": f"family_{to_token(family)}",
            "class": "family",
            "title": title,
            "controls": [_control(content, one.control) for one in judged],
        }
        for family, title, judged in content.families
    ]
    metadata = metadata_of(framework.title, content.made_at_ms, content.installation.version)
    document = {
        "uuid": ids.of("catalog"),
        "metadata": metadata | {"links": [{"href": framework.profile, "rel": "reference"}]},
        "groups": groups,
    }
    return encode("catalog", document)


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
