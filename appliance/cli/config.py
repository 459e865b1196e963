"""`casemate config check` and `casemate config explain`."""

import argparse
import os
import sys
from pathlib import Path

from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.config import Configuration, ConfigurationRejected, served_name_of, what_is_lacking
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.config.explain import explain_keys, explain_values, find_near_keys, render_markdown
from appliance.errors import CommandFailed


def add_config_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config` with its two commands."""
    config = subparsers.add_parser(
        "config", help="check a configuration, explain its keys", description="Check a configuration, explain its keys."
    )
    commands = config.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="check a file without starting anything",
        description="Check a file and name everything that is wrong with it. Exit code 0 when it can be started, else 1.",
    )
    check.add_argument("file", nargs="?", help="the file; else CASEMATE_CONFIG names it, else ./casemate.toml")
    check.add_argument(
        "--explain", action="store_true", help="show every key with its value, where it was set, and its meaning"
    )
    check.set_defaults(handler=_check)
    explain = commands.add_parser(
        "explain",
        help="say what keys mean",
        description="Say what a key means, with its range, unit and default; all keys when none is named.",
    )
    explain.add_argument("key", nargs="?", default="", help="a key, or a section: gateway.port, port, gateway")
    explain.add_argument("--config", metavar="FILE", help="show the values of this file as well")
    explain.add_argument("--markdown", action="store_true", help="write docs/configuration.md to standard output")
    explain.set_defaults(handler=_explain)


def _check(arguments: argparse.Namespace) -> int:
    path = find_configuration_file(arguments.file)
    if path is None:
        raise CommandFailed("there is no casemate.toml here; name a file: casemate config check FILE")
    try:
        configuration, data = load_configuration(path)
    except ConfigurationRejected as rejected:
        for problem in rejected.problems:
            sys.stderr.write(f"casemate: {problem.describe(rejected.source)}\n")
        return EXIT_FAILED
    if arguments.explain:
        print(explain_values(configuration, data, str(path)) + "\n")
    print(_summarize(path, configuration))
    return EXIT_OK


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        sys.stdout.write(render_markdown())
        return EXIT_OK
    if arguments.config is not None:
        path = Path(arguments.config)
        configuration, data = load_configuration(path)
        text = explain_values(configuration, data, str(path), arguments.key)
    else:
        text = explain_keys(arguments.key)
    if not text:
        near = find_near_keys(arguments.key)
        meant = f"did you mean {' or '.join(near)}?" if near else "`casemate config explain` lists all"
        raise CommandFailed(f"there is no key {arguments.key!r}; {meant}")
    print(text)
    return EXIT_OK


def _owner_of(state: Path) -> int | None:
    """Who serves, as far as the state folder tells; None where there is none, or where it cannot be seen."""
    try:
        return state.stat().st_uid
    except OSError:
        return None


def _summarize(path: Path, configuration: Configuration) -> str:
    gateway, authority = configuration.gateway, configuration.authority
    administration, console = configuration.administration, configuration.console
    lines = [
        f"{path}: OK",
        f"  mode        {configuration.mode}",
        f"  gateway     {gateway.host}:{gateway.port}",
        f"  authority   {authority.host}:{authority.port}",
        *([f"  admin API   {administration.host}:{administration.port}"] if administration.enabled else []),
        *([f"  console     {console.host}:{console.port}"] if console.enabled else []),
        f"  state       {configuration.state_dir}",
        *(f"  model       {served_name_of(engine)} from {engine.model_path}" for engine in configuration.engines),
    ]
    if (owner := _owner_of(configuration.state_path)) not in (None, os.geteuid()):
        lines.append(
            f"  note        judged for uid {os.geteuid()}, and uid {owner} has the state: who serves may lack other things"
        )
    for lack in what_is_lacking(configuration):
        title = "waived" if lack.waived else "lacks"
        lines.append(f"  {title:<11} {lack.name}: {lack.consequence}")
    return "\n".join(lines)
