"""`plan-of-action-and-milestones.json`: everything about which something is left to do. Dates are for the customer to set.

The findings of the assessment results that items are about stand in it again, without the observations: an item can only
refer to findings of its own document. Each item has its risk: what can happen while it is open, and what to do about it.
"""

from compliance.facts import QUESTIONS
from compliance.judgement import Judgement
from compliance.oscal.assessment import find_whole, finding_uuid
from compliance.oscal.definition import describe_component, origins_of
from compliance.oscal.document import Identifiers, Json, encode, metadata_of, props
from compliance.report.content import Content


def write_milestones(content: Content, ids: Identifiers) -> bytes | None:
    """The document; None where nothing is left to do, as OSCAL has no empty plan."""
    costs = {cost.id: cost for cost in content.score.deductions} if content.score is not None else {}
    items, risks = [], []
    for one in content.judgements:
        if one.is_satisfied:
            continue
        control, cost = one.control, costs.get(one.control.id)
        title = f"{content.framework.label_of(control)} {control.title}"
        risks.append(_risk(one, title, ids))
        items.append(
            {
                "uuid": ids.of("poam-item", control.id),
                "title": title,
                "description": " ".join((*one.own.reasons, control.customer)) or "To be planned.",
                "origins": origins_of(ids),
                "props": props(
                    {
                        "verdict": one.verdict,
                        "points": str(cost.points) if cost is not None else "",
                        "may-wait": ("yes" if cost.may_wait else "no") if cost is not None else "",
                    }
                ),
                "related-findings": [{"finding-uuid": finding_uuid(ids, control.id)}],
                "related-risks": [{"risk-uuid": ids.of("risk", control.id)}],
            }
        )
    if not items:
        return None
    document = {
        "uuid": ids.of("plan-of-action-and-milestones"),
        "metadata": metadata_of(f"Plan of action: {content.title}", content.made_at_ms, content.installation.version),
        "import-ssp": {"href": "system-security-plan.json"},
        "local-definitions": {"components": [describe_component(content.installation, ids)]},
        "risks": risks,
        "findings": [find_whole(content, one, ids, []) for one in content.judgements if not one.is_satisfied],
        "poam-items": items,
    }
    return encode("plan-of-action-and-milestones", document)


def _risk(judgement: Judgement, title: str, ids: Identifiers) -> Json:
    """What can happen because of the facts that do not hold, and what the operator and the customer do about it."""
    control = judgement.control
    lacking = [QUESTIONS[name] for name, answer in judgement.facts if answer.holds is not True]
    statement = " ".join(question.missing for question in lacking) or "Nothing shows that the requirement is met."
    remedies = {f"Fact: {question.title}": question.remedy for question in lacking}
    if control.customer:
        remedies["The organization's part"] = control.customer
    remediations = [
        {
            "uuid": ids.of("remediation", control.id, name),
            "lifecycle": "recommendation",
            "title": name,
            "description": remedy,
            "origins": origins_of(ids),
        }
        for name, remedy in remedies.items()
    ]
    return {
        "uuid": ids.of("risk", control.id),
        "title": title,
        "description": " ".join(judgement.own.reasons) or f"The verdict is {judgement.verdict}.",
        "statement": statement,
        "status": "open",
        "origins": origins_of(ids),
        **({"remediations": remediations} if remediations else {}),
    }
