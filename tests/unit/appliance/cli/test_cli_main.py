"""`casemate`: help at once, one line an error, exit codes that scripts can rely on."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli import main as command_line
from appliance.cli.main import COMMANDS, EXIT_MISCONFIGURED, EXIT_USAGE, GROUPS, Command, main, render_help
from appliance.errors import CommandFailed, StartRefused
from runtime.errors import CheckpointRejected, RequestRejected

ROOT = Path(__file__).parents[4]


def run_command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `casemate` as a process of its own."""
    command = [sys.executable, "-m", "appliance.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> "list[BaseException]":
    """A command `fail` that raises what the test puts into this list."""
    reasons: list[BaseException] = []

    class Failing(Command):
        def add_to(self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
            def fail(_: argparse.Namespace) -> int:
                raise reasons[0]

            subparsers.add_parser("fail").set_defaults(handler=fail)

    monkeypatch.setitem(COMMANDS, "fail", Failing("fail", "fail", ""))
    return reasons


def test_commands_are_these() -> None:
    """The product's whole command line; a new command is a decision."""
    expected = """demo serve lend-users statement doctor segments config client user role quota key state kernels draft calibrate
    model trust init bundle upgrade rollback status verify-release advisories recover bench eval audit compliance"""
    assert list(COMMANDS) == expected.split()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_has_its_module_and_its_own_help(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """What `--help` lists is there, under the name that it is listed by."""
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: casemate {command.name} ")


def test_help_reads_like_a_product(capsys: pytest.CaptureFixture[str]) -> None:
    """What it is, commands by task, examples, exit codes, and where to read on; no line wider than a terminal of 110."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text == render_help()
    for part in (*GROUPS, *COMMANDS, "Examples:", "Exit codes:", "README.md", "docs/configuration.md"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110


def test_no_command_prints_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`casemate` alone teaches, and a script that forgot the command notices."""
    assert main([]) == EXIT_USAGE
    assert capsys.readouterr().err == render_help()


def test_help_imports_no_command() -> None:
    """So it is instant: neither commands nor what they draw in are imported for it."""
    code = "import sys\nfrom appliance.cli.main import main\nmain(['--help'])\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines())
    assert not loaded & {
        "asyncio",
        "msgspec",
        "structlog",
        "cryptography",
        "torch",
        "appliance.config",
        "appliance.cli.config",
    }


def test_version_is_the_distributions() -> None:
    """One place holds the version."""
    done = run_command("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "casemate")


def test_unknown_command_is_a_usage_error_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The likely slip is named."""
    assert main(["serv"]) == EXIT_USAGE
    assert capsys.readouterr().err == "casemate: there is no command 'serv'; did you mean `casemate serve`?\n"


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse says which."""
    with pytest.raises(SystemExit) as ended:
        main(["config", "check", "--strict"])
    assert ended.value.code == EXIT_USAGE
    assert "--strict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "exit_code"),
    [
        (StartRefused("gateway.port: 8443 is in use"), EXIT_MISCONFIGURED),
        (CheckpointRejected("model.safetensors: truncated"), EXIT_MISCONFIGURED),
        (CommandFailed("no such client: alice"), 1),
        (RequestRejected("too_long", "the prompt is too long"), 1),
        (FileNotFoundError(2, "No such file or directory", "log.vkey"), 1),
    ],
)
def test_our_families_end_with_one_line_and_their_exit_code(
    failing: "list[BaseException]", reason: Exception, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback for what an operator can mend; a refused start has a code of its own."""
    failing.append(reason)
    assert main(["fail"]) == exit_code
    error = capsys.readouterr().err
    assert error.startswith("casemate: ")
    assert error.count("\n") == 1


def test_problems_of_several_lines_are_each_headed(
    failing: "list[BaseException]", capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line in a journal says whose it is."""
    failing.append(StartRefused("one\ntwo"))
    main(["fail"])
    assert capsys.readouterr().err == "casemate: one\ncasemate: two\n"


def test_bug_of_ours_shows_its_traceback(failing: "list[BaseException]") -> None:
    """What is no family of ours is not dressed up as a message."""
    failing.append(ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


def test_interrupt_is_quiet(failing: "list[BaseException]", capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is an answer, not an error."""
    failing.append(KeyboardInterrupt())
    assert main(["fail"]) == command_line.EXIT_INTERRUPTED
    assert capsys.readouterr().err == ""


def test_reader_that_goes_away_is_no_traceback() -> None:
    """`casemate config explain | head -1` ends quietly."""
    command = [sys.executable, "-m", "appliance.cli.main", "config", "explain", "--markdown"]
    nobody, output = os.pipe()
    os.close(nobody)  # Before it starts: what is still small enough for the pipe would be written without a fault.
    done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(output)
    assert (done.returncode, done.stderr) == (1, b"")
