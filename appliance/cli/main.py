"""`casemate`: which command is meant, and how it ends.

Each command lives in a module of its own that is imported only when it is named, so that `casemate --help` is instant and a
command draws in no more than it needs. The module adds its parser with `add_<module>_commands(subparsers)` and sets
`handler`, a function from the parsed arguments to an exit code.

What always holds: what our own families of errors say is one line a problem on standard error, headed `casemate:`, without a
traceback; anything else is our bug and shows one.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from appliance.cli.terminal import escape_text

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ROLLBACK_NOT_EXCLUDED = 3
EXIT_MISCONFIGURED = 78
EXIT_INTERRUPTED = 130

EPILOG = """\
Examples:
  casemate demo --once                          the whole way once: token, question, answer, verified record
  casemate serve --config casemate.toml         run what the file describes, until Ctrl-C
  casemate config check casemate.toml           check a file without starting anything
  casemate audit verify state/audit/log --key state/audit/log.vkey

Exit codes:
  0 done   1 failed   2 wrong usage   3 log consistent, rollback not excluded   78 refused to start
  130 interrupted

`casemate COMMAND --help` tells more.
Documentation: README.md (five minutes), docs/configuration.md (every key), ARCHITECTURE.md (how it works),
SECURITY.md (what it protects, and what not).
"""


@dataclass(frozen=True)
class Command:
    """A command as `casemate --help` lists it; `module` is imported when it is named."""

    name: str
    module: str
    summary: str

    def add_to(self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        """Import the module and let it add its parsers."""
        module = importlib.import_module(f"appliance.cli.{self.module}")
        getattr(module, f"add_{self.module}_commands")(subparsers)


_LENDER = "lend-users"

GROUPS: dict[str, tuple[Command, ...]] = {
    "Try it": (Command("demo", "demo", "start with the demo model, ask it a question, verify the record of it"),),
    "Run it": (
        Command("serve", "serve", "run the appliance in the foreground"),
        Command(_LENDER, "lending", "lend the appliance its processes' users, as a service of its own"),
        Command("statement", "statement", "what exactly runs, and the TPM's word for it"),
        Command("doctor", "doctor", "what this machine has and lacks, in plain words"),
        Command("segments", "segments", "render, apply and test the zones of the network"),
        Command("config", "config", "check a configuration, explain its keys"),
    ),
    "Let people in": (
        Command("client", "client", "create, list and disable the clients that may ask for tokens"),
        Command("user", "user", "create, list and disable the people who may sign in"),
        Command("role", "role", "grant roles; a second person agrees to privileged ones"),
        Command("quota", "quota", "limit clients, people, tenants and models"),
        Command("key", "key", "static keys for programs that can only send an api_key"),
        Command("state", "backup", "back up and restore the definitions and keys"),
    ),
    "Freeze what computes": (
        Command("kernels", "kernels", "compile GPU kernels ahead of time, verify a bundle of them"),
    ),
    "Draft ahead": (Command("draft", "draft", "train a head that drafts for a model"),),
    "Round smaller": (Command("calibrate", "calibrate", "measure the scales of a KV cache in e4m3"),),
    "Vouch for models": (
        Command("model", "model", "sign, verify, import, approve, promote and retire models"),
        Command("trust", "trust", "make and sign roots of trust and role files"),
        Command("init", "init", "tell a new host whom it may believe"),
    ),
    "Carry software in": (
        Command("bundle", "bundle", "build, verify and install signed bundles"),
        Command("upgrade", "software", "run the release that was installed last"),
        Command("rollback", "software", "run the release of before, with two operators' leave"),
        Command("status", "software", "which releases this host has, and which runs"),
        Command("verify-release", "advisories", "verify how a release was made, and what of"),
        Command("advisories", "advisories", "what is known against this release, offline"),
        Command("recover", "software", "take back a switch that a power cut interrupted"),
    ),
    "Measure it": (
        Command("bench", "bench", "measure a server, or parts of this one"),
        Command("eval", "evaluation", "what a form of a model costs in accuracy"),
    ),
    "Look back": (
        Command("audit", "audit", "verify the log, prove that a record is in it"),
        Command("compliance", "compliance", "evidence for assessors, and what is missing for a framework"),
    ),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `casemate`; those of the process when None.
    Returns: the exit code, which the entry script passes on.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`casemate … | head`); Python would say so once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except _misconfigurations() as fault:
        return _refuse(fault, EXIT_MISCONFIGURED)
    except _faults() as fault:
        return _refuse(fault, EXIT_FAILED)
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        return _refuse(f"{error.strerror or error}{named}", EXIT_FAILED)


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="casemate", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument(
        "--version", action="version", version=f"casemate {version('casemate')}" if "--version" in words else ""
    )
    named = next((word for word in words if not word.startswith("-")), None)
    if named is None:
        parsed = parser.parse_args(words)
        sys.stdout.write(render_help()) if parsed.help else sys.stderr.write(render_help())
        return EXIT_OK if parsed.help else EXIT_USAGE
    if named not in COMMANDS:
        nearest = difflib.get_close_matches(named, COMMANDS, n=1)
        hint = f"did you mean `casemate {nearest[0]}`?" if nearest else "`casemate --help` lists the commands"
        return _refuse(f"there is no command {named!r}; {hint}", EXIT_USAGE)
    COMMANDS[named].add_to(parser.add_subparsers(metavar="COMMAND", required=True))
    parsed = parser.parse_args(words)
    if named != _LENDER:
        _borrow_users()
    result: int = parsed.handler(parsed)
    sys.stdout.flush()
    return result


def _borrow_users() -> None:
    """Where users are lent, be root over them from now on: what serves, and works on its state, needs it, before any thread."""
    importlib.import_module("appliance.cli.caller").caller()  # Among those that are lent nobody of the host has a name.
    importlib.import_module("security.sandbox.lending").borrow_users()


def render_help() -> str:
    """What `casemate --help` says. Static, so that no command is imported for it."""
    lines = [
        "usage: casemate COMMAND [OPTIONS]",
        "",
        "Casemate answers prompts with large language models on your own host, for clients that you let in,",
        "and keeps a record of every request that cannot be altered unnoticed.",
    ]
    width = max(len(command.name) for commands in GROUPS.values() for command in commands)
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {command.name:<{width}}  {command.summary}" for command in commands)]
    lines += ["", "Options:", "  -h, --help  this text", "  --version   the version", "", EPILOG]
    return "\n".join(lines)


def _refuse(reason: object, exit_code: int) -> int:
    for line in str(reason).splitlines() or [type(reason).__name__]:
        sys.stderr.write(f"casemate: {escape_text(line)}\n")
    return exit_code


# Named by text and imported only when something was raised: no command pays for the families of another.
_MISCONFIGURATIONS = (
    "appliance.errors:StartRefused",
    "audit.errors:AuditMisconfigured",
    "compliance.errors:ComplianceMisconfigured",
    "runtime.errors:EngineMisconfigured",
    "runtime.errors:CheckpointRejected",
    "security.errors:SecurityMisconfigured",
)
_FAULTS = (
    "appliance.errors:ApplianceFault",
    "audit.errors:AuditFault",
    "compliance.errors:ComplianceFault",
    "runtime.errors:RuntimeFault",
    "security.errors:SecurityFault",
)


def _misconfigurations() -> tuple[type[Exception], ...]:
    """The families after which the operator must change something before a new start."""
    return tuple(_import_families(_MISCONFIGURATIONS))


def _faults() -> tuple[type[Exception], ...]:
    """The roots of all our families."""
    return tuple(_import_families(_FAULTS))


def _import_families(names: Sequence[str]) -> Iterator[type[Exception]]:
    for name in names:
        module, _, family = name.partition(":")
        yield getattr(importlib.import_module(module), family)


if __name__ == "__main__":
    sys.exit(main())
