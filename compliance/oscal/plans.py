"""`system-security-plan.json` and `assessment-plan.json`: skeletons. What only the customer knows is said to be missing,
not made up.
"""

from collections.abc import Iterator

from compliance.installation import Installation
from compliance.judgement import Judgement
from compliance.oscal.catalog import PROFILE
from compliance.oscal.definition import STATUSES, component_uuid, describe_component, state_of
from compliance.oscal.document import Identifiers, Json, control_id, encode, metadata_of, prop, select_controls
from compliance.report.content import Content

_TO_WRITE = "To be written by the organization."
_STATED = {"met": "implemented", "not-met": "planned", "not-applicable": "not-applicable"}
_ROLES = ("user", "operator", "steward", "auditor", "admin")


def write_security_plan(content: Content, ids: Identifiers) -> bytes:
    """The document."""
    framework, installation = content.framework, content.installation
    metadata = metadata_of(
        f"System security plan (skeleton): {framework.title}", content.made_at_ms, installation.version
    )
    document = {
        "uuid": ids.of("system-security-plan"),
        "metadata": metadata | {"roles": [{"id": role, "title": f"Casemate role {role}"} for role in _ROLES]},
        "import-profile": {"href": PROFILE},
        "system-characteristics": {
            "system-ids": [{"identifier-type": "urn:casemate:log", "id": content.checkpoint.origin}],
            "system-name": f"{_TO_WRITE} The system that Casemate is a part of",
            "description": f"{_TO_WRITE} The appliance answers prompts with language models on the organization's own host.",
            "system-information": {
                "information-types": [
                    {
                        "uuid": ids.of("information-type"),
                        "title": "Prompts, answers and records of use",
                        "description": f"{_TO_WRITE} CUI where prompts hold it.",
                    }
                ]
            },
            "status": {"state": state_of(installation)},
            "authorization-boundary": {"description": _TO_WRITE},
        },
        "system-implementation": {
            "users": [
                {
                    "uuid": ids.of("user", role),
                    "title": role,
                    "role-ids": [role],
                    "props": [{"name": "type", "value": "internal"}],
                }
                for role in _ROLES
            ],
            "components": [_system(installation, ids), describe_component(installation, ids)],
            "inventory-items": _inventory(installation, ids),
        },
        "control-implementation": {
            "description": "The product's part, and what is left to the customer.",
            "implemented-requirements": _requirements(content, ids),
        },
    }
    return encode("system-security-plan", document)


def write_assessment_plan(content: Content, ids: Identifiers) -> bytes:
    """The document: everything that the pack looked at."""
    document = {
        "uuid": ids.of("assessment-plan"),
        "metadata": metadata_of(f"Assessment plan: {content.title}", content.made_at_ms, content.installation.version),
        "import-ssp": {"href": "system-security-plan.json"},
        "reviewed-controls": select_controls(content.framework),
    }
    return encode("assessment-plan", document)


def _system(installation: Installation, ids: Identifiers) -> Json:
    """What the customer's part is implemented by."""
    return {
        "uuid": _system_uuid(ids),
        "type": "this-system",
        "title": "The organization's system",
        "description": f"{_TO_WRITE} The host, its network and its place, the people and the rules around the appliance.",
        "status": {"state": state_of(installation)},
    }


def _system_uuid(ids: Identifiers) -> str:
    return ids.of("component", "this-system")


def _inventory(installation: Installation, ids: Identifiers) -> list[Json]:
    """Keys by what they are for; other parts are in the bill of materials."""
    return [
        {
            "uuid": ids.of("inventory-item", key.file),
            "description": f"{key.purpose} ({key.algorithm}), held by {key.holder}",
            "props": [{"name": "asset-id", "value": key.file}],
        }
        for key in installation.keys
    ] or [{"uuid": ids.of("inventory-item", "none"), "description": "No key was found."}]


def _requirements(content: Content, ids: Identifiers) -> list[Json]:
    found = []
    for one in content.judgements:
        control = one.control
        found.append(
            {
                "uuid": ids.of("plan-requirement", control.id),
                "control-id": control_id(content.framework, control),
                "props": [prop("verdict", one.verdict), prop("responsibility", control.status)],
                "by-components": [_part_of_product(one, ids), *_part_of_customer(one, ids)],
            }
        )
    return found


def _part_of_product(judgement: Judgement, ids: Identifiers) -> Json:
    """As it is on this installation: what is claimed, and a fact that it rests on does not hold, is not implemented here."""
    control = judgement.control
    lacks = any(answer.holds is False for _, answer in judgement.facts) or any(
        outcome == "failed" for _, outcome in judgement.tests
    )
    state = STATUSES[control.status]
    if control.status in ("met", "shared") and lacks:
        state = "planned"
    elif control.status == "not-met" and judgement.verdict == "met":
        state = "implemented"
    tells_why = judgement.own.reasons and (lacks or judgement.verdict in ("not-met", "not-evidenced"))
    return {
        "component-uuid": component_uuid(ids),
        "uuid": ids.of("by-component", control.id),
        "description": control.product or "Nothing: this is the customer's alone.",
        "implementation-status": {"state": state},
        **({"remarks": "\n\n".join(judgement.own.reasons)} if tells_why else {}),
    }


def _part_of_customer(judgement: Judgement, ids: Identifiers) -> Iterator[Json]:
    """What they must do, and what they stated about it, of the whole and of each objective; planned until then."""
    control = judgement.control
    said = {
        judged.id: judged.statement for judged in (judgement.own, *judgement.objectives) if judged.statement is not None
    }
    if not control.customer and not said:
        return
    words = [f"{id}: {one.status}, stated by {one.by} on {one.on:%Y-%m-%d}: {one.evidence}" for id, one in said.items()]
    own = judgement.own.statement
    yield {
        "component-uuid": _system_uuid(ids),
        "uuid": ids.of("by-component", control.id, "customer"),
        "description": control.customer or "As stated.",
        "implementation-status": {
            "state": _STATED[own.status] if own is not None else "partial" if said else "planned"
        },
        **({"remarks": "\n\n".join(words)} if words else {}),
    }
