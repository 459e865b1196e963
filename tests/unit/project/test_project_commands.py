"""Every command that a document shows is one that `casemate` takes."""

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from appliance.cli.main import COMMANDS

BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:[$#] )?(?:\.venv/bin/)?casemate (.*?)(?: {2,}.*| > .*)?$", re.MULTILINE)
SPAN = re.compile(r"`casemate ([a-z][^`]*)`")


def lines_of(text: str) -> Iterator[str]:
    """What follows `casemate` on a line of a block, less what stands behind two spaces (what it does) or `>` (a file)."""
    for block in BLOCK.findall(text):
        yield from LINE.findall(re.sub(r" *\\\n *", " ", block))


def spans_of(text: str) -> Iterator[str]:
    """The same in the middle of a sentence, which leaves out what it does not speak of."""
    yield from SPAN.findall(BLOCK.sub("", text).replace("\n", " "))


@cache
def build_parser(name: str) -> argparse.ArgumentParser:
    """Raises: KeyError for no command."""
    parser = argparse.ArgumentParser(prog="casemate", add_help=False)
    COMMANDS[name].add_to(parser.add_subparsers(required=True))
    return parser


def unknown_word(words: list[str]) -> str | None:
    """The first word that names a command, or an option, that is not there."""
    parser = build_parser(words[0]) if words[0] in COMMANDS else argparse.ArgumentParser()
    for word in words:
        choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if word.startswith("--"):
            if word.partition("=")[0] not in parser._option_string_actions:
                return word
        elif choices:
            names = word.split("|")
            if not set(names) <= set(choices[0]):
                return word
            parser = choices[0][names[0]]
    return None


@pytest.fixture(scope="module")
def documents(project_files: list[Path]) -> list[Path]:
    return [path for path in project_files if path.suffix == ".md" and path.name != "CHANGELOG.md"]


def test_commands_that_documents_show_can_be_given(documents: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Names, options, and what they take; brackets around what may be left out are taken off."""
    refused, num_shown = [], 0
    for document in documents:
        for shown in lines_of(document.read_text()):
            words = [word.strip("[]") for word in shlex.split(shown, comments=True)]
            num_shown += 1
            try:
                build_parser(words[0]).parse_args(words)
            except (KeyError, SystemExit) as ended:
                told = capsys.readouterr().err.splitlines()
                refused.append(f"{document.name}: {shown}: {told[-1] if told else repr(ended)}")
    assert num_shown > 50
    assert refused == []


def test_commands_that_documents_speak_of_are_there(documents: list[Path]) -> None:
    """Names and options."""
    spoken = [(document.name, span) for document in documents for span in spans_of(document.read_text())]
    assert len(spoken) > 50
    unknown = [f"{name}: casemate {span}: {unknown_word(span.split())}" for name, span in spoken]
    assert [line for line in unknown if not line.endswith(": None")] == []
