"""`assessment-results.json`: what was observed (tests, facts, records) and what was found about each control and objective."""

from collections.abc import Sequence

from compliance.judgement import Judged, Judgement
from compliance.oscal.definition import describe_component, origins_of
from compliance.oscal.document import (
    Identifiers,
    Json,
    control_id,
    encode,
    metadata_of,
    objective_id,
    prop,
    select_controls,
)
from compliance.period import format_instant
from compliance.report.content import Content

RESULTS_FILE, FACTS_FILE = "../software/control-results.json", "../facts.json"


def write_results(content: Content, ids: Identifiers) -> bytes:
    """The document."""
    observations = [
        observation for judgement in content.judgements for observation in _observe(content, judgement, ids)
    ]
    findings = [finding for judgement in content.judgements for finding in _find(content, judgement, ids)]
    result: Json = {
        "uuid": ids.of("result"),
        "title": content.title,
        "description": "What tests of this build, facts of this installation and verified records of its log show.",
        "start": format_instant(content.period.start_ms),
        "end": format_instant(content.period.end_ms),
        "props": [prop("log-root", content.checkpoint.root.hex()), prop("log-size", str(content.checkpoint.size))],
        "reviewed-controls": select_controls(content.framework),
        "local-definitions": {"components": [describe_component(content.installation, ids)]},
        "findings": findings,
    }
    if content.period_note:
        result["remarks"] = content.period_note
    if observations:
        result["observations"] = observations
    document = {
        "uuid": ids.of("assessment-results"),
        "metadata": metadata_of(
            f"Assessment results: {content.title}", content.made_at_ms, content.installation.version
        ),
        "import-ap": {"href": "assessment-plan.json"},
        "results": [result],
    }
    return encode("assessment-results", document)


def finding_uuid(ids: Identifiers, control: str) -> str:
    """The finding about a control as a whole."""
    return ids.of("finding", control)


def _observe(content: Content, judgement: Judgement, ids: Identifiers) -> Sequence[Json]:
    """One observation for each sort of evidence that a control has."""
    control, collected = judgement.control, format_instant(content.made_at_ms)
    label = content.framework.label_of(control)
    sorts: list[tuple[str, str, list[str], str]] = []
    if judgement.tests:
        tests = [f"{test}: {outcome}" for test, outcome in judgement.tests]
        sorts.append(("TEST", "Tests of this build", tests, RESULTS_FILE if content.has_results else ""))
    if judgement.facts:
        words = {True: "holds", False: "does not hold", None: "is not known"}
        facts = [f"{name} {words[answer.holds]}: {answer.words}" for name, answer in judgement.facts]
        sorts.append(("EXAMINE", "Facts of the installation", facts, FACTS_FILE))
    if any(count for _, count in judgement.kinds):
        kinds = [f"{kind}: {count} records" for kind, count in judgement.kinds if count]
        sorts.append(("EXAMINE", "Records of the log", kinds, "../log/summary.json"))
    return [
        {
            "uuid": ids.of("observation", control.id, title),
            "title": f"{title} for {label}",
            "description": "; ".join(details),
            "methods": [method],
            "origins": origins_of(ids),
            "collected": collected,
            **({"relevant-evidence": [{"href": href, "description": title}]} if href else {}),
        }
        for method, title, details, href in sorts
    ]


def find_whole(content: Content, judgement: Judgement, ids: Identifiers, related: list[Json]) -> Json:
    """The finding about a control as a whole."""
    control, framework = judgement.control, content.framework
    return _finding(
        ids,
        finding_uuid(ids, control.id),
        f"{framework.label_of(control)} {control.title}",
        judgement.own,
        "statement-id",
        f"{control_id(framework, control)}_smt",
        related,
        is_satisfied=judgement.is_satisfied,
    )


def _find(content: Content, judgement: Judgement, ids: Identifiers) -> Sequence[Json]:
    control, framework = judgement.control, content.framework
    related = [{"observation-uuid": one["uuid"]} for one in _observe(content, judgement, ids)]
    parts = [
        _finding(
            ids,
            ids.of("finding", "objective", part.id),
            f"Objective {part.id}",
            part,
            "objective-id",
            objective_id(framework, control, part.id),
            related,
            is_satisfied=part.is_satisfied,
        )
        for part in judgement.objectives
    ]
    return [find_whole(content, judgement, ids, related), *parts]


def _finding(
    ids: Identifiers,
    uuid: str,
    title: str,
    judged: Judged,
    kind: str,
    target: str,
    related: list[Json],
    *,
    is_satisfied: bool,
) -> Json:
    state = "satisfied" if is_satisfied else "not-satisfied"
    return {
        "uuid": uuid,
        "title": title,
        "description": " ".join(judged.reasons) or f"The verdict is {judged.verdict}.",
        "props": [prop("verdict", judged.verdict)],
        "origins": origins_of(ids),
        "target": {"type": kind, "target-id": target, "status": {"state": state}},
        **({"related-observations": related} if related else {}),
    }
