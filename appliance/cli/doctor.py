"""`casemate doctor`: what this machine has and lacks, in plain words. It changes nothing.

A finding is `ok`, a `note` (works, and you should know), or `bad` (stops a start, or will soon): then the command fails.
"""

import argparse
import json
from pathlib import Path

from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.config import ConfigurationRejected, load_default_configuration
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.health.examination import examine
from appliance.health.finding import Finding


def add_doctor_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor`."""
    doctor = subparsers.add_parser("doctor", help="what this machine has and lacks", description=__doc__)
    doctor.add_argument("--config", metavar="FILE", help="the configuration; without one, the built-in one is taken")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    path: Path | None = find_configuration_file(arguments.config)
    refused: list[Finding] = []
    try:
        configuration, _ = load_configuration(path) if path is not None else load_default_configuration()
    except ConfigurationRejected as fault:  # No reason to say nothing of the machine.
        refused = [Finding("configuration", "bad", line) for line in str(fault).splitlines()]
        refused.append(Finding("configuration", "note", "what follows was looked at with the built-in one instead"))
        configuration, _ = load_default_configuration()
    findings = [*refused, *examine(configuration)]
    if arguments.json:
        print(json.dumps([{"subject": one.subject, "grade": one.grade, "words": one.words} for one in findings]))
    else:
        for one in findings:
            print(f"{one.grade:<5} {one.subject:<13} {one.words}")
        print(_sum_up(findings))
    return EXIT_FAILED if any(one.grade == "bad" for one in findings) else EXIT_OK


def _sum_up(findings: list[Finding]) -> str:
    counts = {grade: sum(one.grade == grade for one in findings) for grade in ("ok", "note", "bad")}
    return ", ".join(f"{number} {grade}" for grade, number in counts.items())
