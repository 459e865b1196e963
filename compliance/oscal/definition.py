"""`component-definition.json`: what the product does about each control, apart from any installation."""

from compliance.frameworks import Framework
from compliance.installation import Installation
from compliance.oscal.catalog import PROFILE
from compliance.oscal.document import Identifiers, Json, control_id, encode, metadata_of, prop, props

PRODUCT = "Casemate"
STATUSES = {
    "met": "implemented",
    "shared": "partial",
    "customer": "alternative",
    "not-met": "planned",
    "not-applicable": "not-applicable",
}
"""OSCAL's words for ours; `alternative` is what others implement."""


def write_definition(framework: Framework, installation: Installation, made_at_ms: int, ids: Identifiers) -> bytes:
    """The document."""
    component: Json = {
        "uuid": component_uuid(ids),
        "type": "software",
        "title": PRODUCT,
        "description": "An LLM appliance: an inference engine behind an authenticated, audited gateway.",
        "props": props({"software": installation.software}),
        "control-implementations": [
            {
                "uuid": ids.of("control-implementation", framework.name),
                "source": PROFILE,
                "description": f"What the product does about {framework.title}, in its makers' words.",
                "implemented-requirements": _requirements(framework, ids),
            }
        ],
    }
    document = {
        "uuid": ids.of("component-definition"),
        "metadata": metadata_of(f"Casemate: {framework.title}", made_at_ms, installation.version),
        "components": [component],
    }
    return encode("component-definition", document)


def component_uuid(ids: Identifiers) -> str:
    """The product in all documents of the pack."""
    return ids.of("component", "casemate")


def describe_component(installation: Installation, ids: Identifiers) -> Json:
    """The product as it is on this installation, for documents that say what it is or what it found."""
    return {
        "uuid": component_uuid(ids),
        "type": "software",
        "title": PRODUCT,
        "description": "The appliance with all of its processes.",
        "props": [
            {"name": "version", "value": installation.version},
            prop("software", installation.software),
            prop("configuration", installation.configuration_digest),
        ],
        "links": [{"href": "component-definition.json", "rel": "imported-from"}],
        "status": {"state": state_of(installation)},
    }


def state_of(installation: Installation) -> str:
    """OSCAL's word for what the installation is used for."""
    return "operational" if installation.mode == "production" else "under-development"


def origins_of(ids: Identifiers) -> list[Json]:
    """Who says so: the product, by the name that the document's own definitions have."""
    return [{"actors": [{"type": "tool", "actor-uuid": component_uuid(ids)}]}]


def _requirements(framework: Framework, ids: Identifiers) -> list[Json]:
    return [
        {
            "uuid": ids.of("implemented-requirement", control.id),
            "control-id": control_id(framework, control),
            "description": control.product or "Nothing: this is the customer's alone.",
            "props": [
                prop("implementation-status", STATUSES[control.status]),
                prop("responsibility", control.status),
                *(prop("evidence-test", test) for test in control.tests),
                *(prop("evidence-fact", fact) for fact in control.facts),
                *(prop("evidence-record", kind) for kind in control.kinds),
            ],
            **({"remarks": f"The customer: {control.customer}"} if control.customer else {}),
        }
        for control in framework.controls
    ]
