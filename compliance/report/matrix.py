"""Tables for spreadsheets: responsibilities, objectives, the plan of action, people, programs, roles and keys. CSV by RFC 4180.

A cell that a spreadsheet would take for a formula begins with an apostrophe: names of people and programs come from outside.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from audit.formats import without_formula
from compliance.installation import HeldKey, HeldRole, Person, Program, UsableKey
from compliance.report.content import Content


def tabulate(content: Content) -> dict[str, bytes]:
    """Every table, by file name."""
    framework, installation = content.framework, content.installation
    responsibilities = [
        (
            framework.label_of(one.control),
            one.control.title,
            one.control.status,
            one.verdict,
            one.control.product,
            one.control.customer,
        )
        for one in content.judgements
    ]
    tables = {
        "responsibility-matrix.csv": encode_csv(
            ("control", "title", "responsibility", "verdict", "casemate", "customer"), responsibilities
        ),
        "poam.csv": encode_csv(
            ("control", "title", "verdict", "points", "may_wait", "why", "customer"), _plan(content)
        ),
        "identity/people.csv": _encode_all(Person, installation.people),
        "identity/programs.csv": _encode_all(Program, installation.programs),
        "identity/roles.csv": _encode_all(HeldRole, installation.roles),
        "identity/static-keys.csv": _encode_all(UsableKey, installation.static_keys),
        "keys.csv": _encode_all(HeldKey, installation.keys),
    }
    objectives = [
        (part.id, framework.label_of(one.control), part.verdict, " ".join(part.reasons))
        for one in content.judgements
        for part in one.objectives
    ]
    if objectives:
        tables["objectives.csv"] = encode_csv(("objective", "control", "verdict", "why"), objectives)
    return tables


def encode_csv(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(heads)
    writer.writerows([without_formula(str(cell)) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _plan(content: Content) -> list[tuple[str, ...]]:
    costs = {cost.id: cost for cost in content.score.deductions} if content.score is not None else {}
    rows: list[tuple[str, ...]] = []
    for one in content.judgements:
        if not one.is_satisfied:
            cost = costs.get(one.control.id)
            points, may_wait = ("", "") if cost is None else (str(cost.points), "yes" if cost.may_wait else "no")
            label = content.framework.label_of(one.control)
            rows.append(
                (
                    label,
                    one.control.title,
                    one.verdict,
                    points,
                    may_wait,
                    " ".join(one.own.reasons),
                    one.control.customer,
                )
            )
    return rows


def _encode_all(kind: type[Any], rows: Sequence[Any]) -> bytes:
    heads = [field.name for field in fields(kind)]
    return encode_csv(heads, [list(asdict(row).values()) for row in rows])
