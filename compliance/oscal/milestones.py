"""`plan-of-action-and-milestones.json`: everything about which something is left to do. Dates are for the customer to set.

The findings of the assessment results that items are about stand in it again, without the observations: an item can only
refer to findings of its own document.
"""

from compliance.oscal.assessment import find_whole, finding_uuid
from compliance.oscal.document import Identifiers, encode, metadata_of, props
from compliance.report.content import Content


def write_milestones(content: Content, ids: Identifiers) -> bytes | None:
    """The document; None where nothing is left to do, as OSCAL has no empty plan."""
    costs = {cost.id: cost for cost in content.score.deductions} if content.score is not None else {}
    items = []
    for one in content.judgements:
        if one.is_satisfied:
            continue
        control, cost = one.control, costs.get(one.control.id)
        items.append(
            {
                "uuid": ids.of("poam-item", control.id),
                "title": f"{content.framework.label_of(control)} {control.title}",
                "description": " ".join((*one.own.reasons, control.customer)) or "To be planned.",
                "props": props(
                    {
                        "verdict": one.verdict,
                        "points": str(cost.points) if cost is not None else "",
                        "may-wait": ("yes" if cost.may_wait else "no") if cost is not None else "",
                    }
                ),
                "related-findings": [{"finding-uuid": finding_uuid(ids, control.id)}],
            }
        )
    if not items:
        return None
    document = {
        "uuid": ids.of("plan-of-action-and-milestones"),
        "metadata": metadata_of(f"Plan of action: {content.title}", content.made_at_ms, content.installation.version),
        "import-ssp": {"href": "system-security-plan.json"},
        "findings": [find_whole(content, one, ids, []) for one in content.judgements if not one.is_satisfied],
        "poam-items": items,
    }
    return encode("plan-of-action-and-milestones", document)
