"""`casemate segments render|apply|test`: the zones of the configuration as firewall rules.

`render` prints them, for nftables or for Kubernetes; `apply` loads those of nftables on this host, which is a record; `test`
tries them in network namespaces with the site's addresses: what an arrow names must open, everything else must be refused and
counted.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.config import Configuration
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed
from appliance.models.places import open_outbox
from security.errors import SegmentsUnusable
from security.segmentation.model import Arrow, Ports, build_arrows
from security.segmentation.network_policy import render_network_policies
from security.segmentation.nftables import render_nftables
from security.segmentation.rehearsal import apply_rules, check_rules, rehearse

_MAX_ARROWS_CHARS, _MAX_REASON_CHARS = 16_000, 1_000


def add_segments_commands(subparsers: Commands) -> None:
    """Add `segments` with its commands."""
    segments = subparsers.add_parser("segments", help="the zones of the network", description=__doc__)
    commands = segments.add_subparsers(metavar="COMMAND", required=True)
    render = _add(commands, "render", "print the rules", _render)
    render.add_argument("--form", choices=("nftables", "kubernetes"), default="nftables", help="default: nftables")
    render.add_argument("--namespace", default="casemate", help="of the policies for Kubernetes (default: casemate)")
    _add(commands, "apply", "load the rules for nftables on this host, as root", _apply)
    test = _add(commands, "test", "try the rules in network namespaces, as root", _test)
    test.add_argument("--json", action="store_true", help="print JSON")


def _add(commands: Commands, name: str, summary: str, handler: Any) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary, handler)
    command.add_argument("--config", metavar="FILE", help="the configuration; else casemate.toml is looked for")
    return command


def _render(arguments: argparse.Namespace) -> int:
    _, ports, arrows = _load(arguments)
    if arguments.form == "kubernetes":
        print(render_network_policies(arrows, ports, arguments.namespace), end="")
    else:
        print(render_nftables(arrows), end="")
    return EXIT_OK


def _apply(arguments: argparse.Namespace) -> int:
    configuration, _, arrows = _load(arguments)
    rules = render_nftables(arrows)
    check_rules(rules)
    state = configuration.state_path
    if not state.is_dir():
        raise CommandFailed(
            f"{state} is not there, where the log finds word of this: start the appliance once, or make the folder for its user"
        )
    _leave_notice(state, "segments_applied", arrows, rules)  # Before, so that a crash leaves no rules without a record.
    try:
        apply_rules(rules)
    except SegmentsUnusable as fault:
        _leave_notice(state, "segments_apply_failed", arrows, rules, reason=str(fault)[:_MAX_REASON_CHARS])
        raise
    print(f"applied    {len(arrows)} arrows; everything else is refused and counted (`nft list counters`)")
    return EXIT_OK


def _leave_notice(state: Path, kind: str, arrows: Sequence[Arrow], rules: str, **more: str) -> None:
    """For the log: who opened what to whom. The digest is that of the ruleset, as `render` prints it."""
    words = "; ".join(_describe(arrow) for arrow in arrows)
    facts: dict[str, str | int] = {"num_arrows": len(arrows), "arrows": words[:_MAX_ARROWS_CHARS], **more}
    digest = f"sha256:{hashlib.sha256(rules.encode()).hexdigest()}"
    open_outbox(state).put(kind, name="segments", digest=digest, actor=actor(), facts=facts)


def _describe(arrow: Arrow) -> str:
    side = "to" if arrow.is_outgoing else "from"
    return f"{arrow.name} {side} {' '.join(map(str, arrow.peers))} port {arrow.port}"


def _test(arguments: argparse.Namespace) -> int:
    configuration, ports, arrows = _load(arguments)
    result = rehearse(arrows, ports, configuration.segments.admin_port)
    num_opened = sum(attempt.opened for attempt in result.attempts)
    counted = result.refused
    if arguments.json:
        wrong = [f"{one.source} -> {one.target}:{one.port}" for one in result.wrong]
        print(json.dumps({"tried": len(result.attempts), "opened": num_opened, "wrong": wrong, **counted}))
    else:
        for attempt in result.attempts:
            verdict = "opened" if attempt.opened else "refused"
            mark = "" if attempt.opened == attempt.should_open else "  WRONG"
            print(f"{attempt.source:>14} -> {attempt.target}:{attempt.port:<6} {verdict}{mark}")
        print(f"{len(result.attempts)} tried, {num_opened} opened; packets refused: {counted}")
    return EXIT_OK if not result.wrong and all(counted.values()) else EXIT_FAILED


def _load(arguments: argparse.Namespace) -> tuple[Configuration, Ports, tuple[Arrow, ...]]:
    path = find_configuration_file(arguments.config)
    if path is None:
        raise CommandFailed("there is no configuration: zones are named in its section [segments]")
    configuration, _ = load_configuration(path)
    console, administration = configuration.console, configuration.administration
    ports = Ports(
        gateway=configuration.gateway.port,
        authority=configuration.authority.port,
        console=console.port if console.enabled else None,
        administration=administration.port if administration.enabled else None,
    )
    if 0 in ports.listened():
        raise CommandFailed("a port is 0, which means any free one: rules need the ports of all listeners by number")
    return configuration, ports, build_arrows(configuration.segments, ports)
