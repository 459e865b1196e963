"""`system-security-plan.json` and `assessment-plan.json`: skeletons. What only the customer knows is said to be missing,
not made up.
"""

from compliance.installation import Installation
from compliance.oscal.definition import STATUSES, component_uuid
from compliance.oscal.document import Identifiers, Json, control_id, encode, metadata_of, prop, select_controls
from compliance.report.content import Content

_TO_WRITE = "To be written by the organization."
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
        "import-profile": {"href": framework.profile},
        "system-characteristics": {
            "system-ids": [{"identifier-type": "urn:casemate:log", "id": content.checkpoint.origin}],
            "system-name": "Casemate",
            "description": f"{_TO_WRITE} The appliance answers prompts with language models on the organization's own host.",
            "system-information": {
                "information-types": [
                    {
                        "title": "Prompts, answers and records of use",
                        "description": f"{_TO_WRITE} CUI where prompts hold it.",
                    }
                ]
            },
            "status": {"state": "operational" if installation.mode == "production" else "under-development"},
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
            "components": [_component(installation, ids)],
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


def _component(installation: Installation, ids: Identifiers) -> Json:
    return {
        "uuid": component_uuid(ids),
        "type": "this-system",
        "title": "Casemate",
        "description": "The appliance with all of its processes.",
        "props": [
            {"name": "version", "value": installation.version},
            prop("software", installation.software),
            prop("configuration", installation.configuration_digest),
        ],
        "status": {"state": "operational" if installation.mode == "production" else "under-development"},
    }


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
                "by-components": [
                    {
                        "component-uuid": component_uuid(ids),
                        "uuid": ids.of("by-component", control.id),
                        "description": control.product or "Nothing: this is the customer's alone.",
                        "implementation-status": {"state": STATUSES[control.status]},
                    }
                ],
                **({"remarks": f"The customer: {control.customer}"} if control.customer else {}),
            }
        )
    return found
