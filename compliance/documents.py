"""The documents of a pack, by path: everything but the records and the manifest."""

import json

import msgspec

from compliance.facts import QUESTIONS
from compliance.oscal.assessment import write_results
from compliance.oscal.catalog import write_catalog, write_profile
from compliance.oscal.definition import write_definition
from compliance.oscal.document import Identifiers
from compliance.oscal.milestones import write_milestones
from compliance.oscal.plans import write_assessment_plan, write_security_plan
from compliance.readme import README
from compliance.report.content import Content
from compliance.report.matrix import tabulate
from compliance.report.page import render_matrix, render_report
from compliance.report.printed import print_report
from compliance.summary import SUMMARY, encode_summary


def write_documents(content: Content, note: bytes, test_results: bytes | None, statements: bytes) -> dict[str, bytes]:
    """All of them.

    Args:
        note: the log's signed checkpoint.
        test_results, statements: the files that were given, as they are.
    """
    optional = {
        "software/statement.json": content.installation.statement,
        "software/control-results.json": test_results,
        "statements.toml": statements,
    }
    return {
        "README.txt": README.encode(),
        "report.html": render_report(content),
        "report.pdf": print_report(content),
        "responsibility-matrix.html": render_matrix(content),
        "log/checkpoint": note,
        SUMMARY: encode_summary(content.activity),
        **tabulate(content),
        **_write_oscal(content),
        **_write_facts(content),
        **{name: data for name, data in optional.items() if data},
    }


def _write_oscal(content: Content) -> dict[str, bytes]:
    installation, framework = content.installation, content.framework
    about = (
        framework.name,
        content.checkpoint.root.hex(),
        str(content.period),
        str(content.made_at_ms),
        installation.software,
        installation.configuration_digest,
    )
    ids = Identifiers("|".join(about))
    documents = {
        "profile": write_profile(content, ids),
        "catalog": write_catalog(content, ids),
        "component-definition": write_definition(framework, installation, content.made_at_ms, ids),
        "system-security-plan": write_security_plan(content, ids),
        "assessment-plan": write_assessment_plan(content, ids),
        "assessment-results": write_results(content, ids),
        "plan-of-action-and-milestones": write_milestones(content, ids),
    }
    return {f"oscal/{kind}.json": data for kind, data in documents.items() if data is not None}


def _write_facts(content: Content) -> dict[str, bytes]:
    installation = content.installation
    facts = {
        name: {"answer": _word(answer.holds), "asked": QUESTIONS[name].title, "found": answer.words}
        for name, answer in content.answers.items()
    }
    version = {"software": installation.software, "version": installation.version}
    settings = {"file": installation.configuration_digest, "settings": json.loads(installation.configuration)}
    documents = {
        "facts.json": _encode(facts),
        "configuration.json": _encode(settings),
        "software/version.json": _encode(version),
        "software/sbom.cdx.json": installation.sbom,
    }
    if content.score is not None:
        documents["score.json"] = _encode(msgspec.to_builtins(content.score))
    return documents


def _word(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[holds]


def _encode(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
