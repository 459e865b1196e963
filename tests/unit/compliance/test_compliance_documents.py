"""What is written about evidence: every framework, verdict, file and fact has its words."""

from pathlib import Path

from compliance.catalogue import Status
from compliance.frameworks import FRAMEWORKS
from compliance.judgement import VERDICTS
from compliance.loading import NAMES
from compliance.pack import WrittenPack

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "compliance.md").read_text()


def test_every_framework_catalogue_status_and_verdict_is_explained() -> None:
    """In docs/compliance.md."""
    for name in FRAMEWORKS:
        assert f"`{name}`" in PAGE
    for name in NAMES:
        assert f"`{name}.toml`" in PAGE
    for word in (*VERDICTS, *Status.__args__):
        assert f"| {word} |" in PAGE


def test_every_file_of_a_pack_is_told_in_its_readme(month: Path, made: WrittenPack) -> None:
    """By its name, or by its folder."""
    text = (month / "shared" / "README.txt").read_text()
    for file in made.manifest.files:
        folder, _, name = file.name.rpartition("/")
        assert file.name in text or f"{folder}/ " in text or f"{folder}/," in text or name.partition(".")[0] in text, (
            file.name
        )


def test_commands_of_the_page_exist() -> None:
    """With these options."""
    from appliance.cli.main import COMMANDS

    assert "compliance" in COMMANDS
    for command in ("gaps", "export", "verify"):
        assert f"casemate compliance {command}" in PAGE
