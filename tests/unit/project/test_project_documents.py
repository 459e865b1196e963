"""Documents that the project must have, and whether what they point at is there."""

import re
from pathlib import Path

import pytest

_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """Anchors of the headings, as code hosts make them."""
    plain = [
        re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(_FENCE.sub("", text))
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        ".ci/run",
        "docs/adr/0001-import-roots.md",
    ],
)
def test_document_is_there_and_not_empty(name: str, project_root: Path) -> None:
    """What a newcomer, an operator and an auditor each look for first."""
    assert len((project_root / name).read_text().split()) > 20


def test_changelog_keeps_unreleased_changes_with_security_first(project_root: Path) -> None:
    """Keep a Changelog, in the order that operators need."""
    text = (project_root / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    for release in text.split("\n## ")[1:]:
        sections = re.findall(r"^### (\w+)", release, re.MULTILINE)
        assert "Security" not in sections[1:], "Security comes first"


def test_links_in_documents_lead_somewhere(project_files: list[Path], project_root: Path) -> None:
    """Every relative link names a file of the project, and every anchor a heading of it."""
    broken = []
    tracked = {path.resolve() for path in project_files} | {
        folder.resolve() for path in project_files for folder in path.parents
    }
    for document in (path for path in project_files if path.suffix == ".md"):
        for match in _LINK.finditer(_FENCE.sub("", document.read_text())):
            target, _, anchor = match["target"].partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            file = (document.parent / target).resolve() if target else document.resolve()
            if file not in tracked:
                broken.append(f"{document.relative_to(project_root)}: {match['target']}: no such file")
            elif anchor and file.suffix == ".md" and anchor not in anchors_of(file.read_text()):
                broken.append(f"{document.relative_to(project_root)}: {match['target']}: no such heading")
    assert not broken


def test_documents_name_commands_that_exist(project_root: Path) -> None:
    """Every `casemate …` command in a document is one that the command line has."""
    from appliance.cli.main import COMMANDS

    documents = [project_root / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")]
    text = "\n".join(path.read_text() for path in documents)
    named = set(re.findall(r"(?:`|bin/|^\s*\$? ?)casemate ([a-z]+)\b", text, re.MULTILINE))
    assert named - {"is", "demo"} <= set(COMMANDS)


def test_make_targets_in_documents_exist(project_root: Path) -> None:
    """Every `make …` in a document is a target."""
    makefile = (project_root / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for path in project_root.glob("*.md"):
        named = set(re.findall(r"`make ([a-z][a-z-]*)", path.read_text()))
        assert named <= targets, path.name
