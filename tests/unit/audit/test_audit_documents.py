"""docs/audit.md against the code: the table of events, and the commands that it teaches."""

import re
from pathlib import Path

import pytest

from audit.permissions import KINDS
from tests.support.controls import control

DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"
_ROW = re.compile(r"^\| `(\w+)` \| [A-Za-z ]+ (\d{4}) \| ([\d/]+) \| ([a-z, ]+) \| .+ \|$", re.MULTILINE)


@control("3.3.1", "AU-2", "AU-12(3)", "A.6.2.8", "Article 12")
def test_the_table_of_events_is_the_one_that_is_enforced() -> None:
    """Kind, class, activities and roles, in the same order."""
    documented = [
        (kind, int(class_uid), {int(a) for a in activities.split("/")}, set(roles.split(", ")))
        for kind, class_uid, activities, roles in _ROW.findall(DOCUMENT.read_text())
    ]
    assert documented == [(kind.name, kind.class_uid, kind.activity_ids, kind.roles) for kind in KINDS.values()]


def test_commands_of_the_document_exist() -> None:
    """Every `casemate audit …` that it names is a command."""
    from appliance.cli.main import main

    named = set(re.findall(r"casemate audit\s+([a-z][a-z-]+)", DOCUMENT.read_text()))
    assert {"verify", "prove", "verify-receipt"} <= named
    for command in sorted(named):
        with pytest.raises(SystemExit) as ended:
            main(["audit", command, "--help"])
        assert ended.value.code == 0, command
