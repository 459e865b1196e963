"""`casemate upgrade|rollback|status|recover`: which release runs on this host, and changing that.

An upgrade takes itself back unless the new release becomes ready in time. A rollback needs two operators' leave, since older
software has older holes. Both stop the service in its own way, which lets open requests finish.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance.cli.caller import actor
from appliance.cli.commands import add_command
from appliance.cli.host_status import describe_status, read_status
from appliance.cli.main import EXIT_OK
from appliance.cli.service import CommandService
from appliance.cli.signing_key import KEY_HELP, open_signer
from appliance.errors import CommandFailed, HostBusy
from appliance.models.places import open_outbox, open_trust, utc_now
from security.bundles.downgrade import Step, countersign_downgrade, sign_downgrade, verify_downgrade
from security.bundles.slots import Host, SlotContent
from security.bundles.switching import State, recover, roll_back, upgrade
from security.errors import BundleRejected, SwitchFailed

STATE_THAT_GOES_BACK = ("authority", "console", "gateway", "policy", "tls")
"""Clients, people, roles, keys, certificates. Never the log, the models, or what the host believes."""
_LEAVE_HOURS = 24


def add_software_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `upgrade`, `rollback`, `status` and `recover`."""
    up = subparsers.add_parser(
        "upgrade",
        help="run the release that was installed last",
        description="Run the release that was installed last. It is taken back unless it becomes ready in time. The service is"
        " stopped in its own way, which lets open requests finish.",
    )
    _add_service_options(up)
    up.set_defaults(handler=_upgrade)
    back = subparsers.add_parser(
        "rollback",
        help="run the release of before, with two operators' leave",
        description="Run the release of before. It needs two operators' leave (`casemate rollback approve`, by each), since older"
        " software has older holes. The service is stopped in its own way, which lets open requests finish.",
    )
    _add_service_options(back)
    back.add_argument("--leave", type=Path, metavar="FILE", help="the leave that two operators have signed")
    back.set_defaults(handler=_roll_back)
    steps = back.add_subparsers(metavar="COMMAND")
    approve = steps.add_parser("approve", help="sign, as an operator, that this host may go back")
    add_host_options(approve)
    approve.add_argument("--key", required=True, metavar="KEY", help=f"the operator's key: {KEY_HELP}")
    approve.add_argument("--to-digest", metavar="HEX", help="the release to go back to (default: the other slot's)")
    approve.add_argument("--to-release", metavar="N.N.N", help="its version")
    approve.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="new, or the first operator's"
    )
    approve.set_defaults(handler=_approve)
    status = add_command(subparsers, "status", "which releases this host has, and which runs")
    add_host_options(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(handler=_status)
    mend = subparsers.add_parser(
        "recover",
        help="take back a switch that a power cut interrupted",
        description="Take back an upgrade or rollback that a power cut interrupted. Where none was, nothing changes. The"
        " service runs it before it starts.",
    )
    add_host_options(mend)
    mend.set_defaults(handler=_recover)


def add_host_options(command: argparse.ArgumentParser) -> None:
    """Add `--host` and `--state`."""
    command.add_argument(
        "--host",
        type=Path,
        default=Path("/var/lib/casemate"),
        metavar="DIR",
        help="the host's folder (default: %(default)s)",
    )
    command.add_argument(
        "--state", type=Path, metavar="DIR", help="the state folder (default: `state` in the host's folder)"
    )


def _add_service_options(command: argparse.ArgumentParser) -> None:
    add_host_options(command)
    command.add_argument(
        "--stop", default="systemctl stop casemate.service", metavar="COMMAND", help="default: %(default)s"
    )
    command.add_argument(
        "--start", default="systemctl start casemate.service", metavar="COMMAND", help="default: %(default)s"
    )
    command.add_argument(
        "--ready-url", default="https://127.0.0.1:8443/ready", metavar="URL", help="default: %(default)s"
    )
    command.add_argument(
        "--ready-ca",
        type=Path,
        metavar="PEM",
        help="who signed its certificate (default: state/tls/ca.pem)",
    )
    command.add_argument("--ready-timeout", type=float, default=600.0, metavar="SECONDS", help="default: %(default)s")
    command.add_argument(
        "--stop-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="open requests included; default: %(default)s",
    )


def find_host(arguments: argparse.Namespace) -> Host:
    """The host that a command is about."""
    return Host(arguments.host)


def find_host_state(arguments: argparse.Namespace) -> Path:
    """Its state folder."""
    state: Path = arguments.state if arguments.state is not None else arguments.host / "state"
    return state


@contextlib.contextmanager
def lock_host(host: Host) -> Iterator[None]:
    """One command at a time. Raises: HostBusy."""
    host.prepare()
    with (host.path / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostBusy(f"{host.path}: another command works on this host") from None
        yield


def _upgrade(arguments: argparse.Namespace) -> int:
    host, state = find_host(arguments), find_host_state(arguments)
    with lock_host(host):
        running, target = host.current(), host.content_of(host.other_slot())
        if running is not None and target is not None and target.version < running.version:
            raise BundleRejected(
                f"release {target.name} is older than {running.name}, which runs: `casemate rollback` goes back"
            )
        try:
            content = upgrade(host, _open_service(arguments), State(state, STATE_THAT_GOES_BACK))
        except SwitchFailed as failure:
            _note(state, "software_rolled_back", running, {"reason": str(failure)[:500], "leave_by": ""})
            raise
        _note(state, "software_switched", content, {"from": running.name if running else "", "slot": content.slot})
    print(f"runs       release {content.name} in slot {content.slot}")
    return EXIT_OK


def _roll_back(arguments: argparse.Namespace) -> int:
    host, state = find_host(arguments), find_host_state(arguments)
    if arguments.leave is None:
        raise CommandFailed("--leave is missing: two operators sign it with `casemate rollback approve`")
    with lock_host(host):
        step, running = _step_back(host, None, None)
        roles = open_trust(state).load_roles(at=utc_now())
        names = verify_downgrade(arguments.leave.read_bytes(), step, roles, now=utc_now())
        content = roll_back(host, _open_service(arguments), State(state, STATE_THAT_GOES_BACK))
        _note(state, "software_rolled_back", content, {"from": running.name, "leave_by": ", ".join(names)})
    print(f"runs       release {content.name} in slot {content.slot}, by leave of {' and '.join(names)}")
    return EXIT_OK


def _approve(arguments: argparse.Namespace) -> int:
    host = find_host(arguments)
    step, running = _step_back(host, arguments.to_digest, arguments.to_release)
    roles = open_trust(find_host_state(arguments)).load_roles(at=utc_now())
    with open_signer(arguments.key) as signer:
        if arguments.output.exists():
            data, person = countersign_downgrade(arguments.output.read_bytes(), roles, signer)
            name = person.name
        else:
            until = utc_now() + datetime.timedelta(hours=_LEAVE_HOURS)
            data, name = sign_downgrade(step, roles, signer, until=until), "the first operator"
    arguments.output.write_bytes(data)
    print(
        f"signed     by {name}: from {running.name} to {step.to_version}, within {_LEAVE_HOURS} hours of the first signature"
    )
    return EXIT_OK


def _step_back(host: Host, digest: str | None, version: str | None) -> tuple[Step, SlotContent]:
    running, other = host.current(), host.content_of(host.other_slot())
    if running is None:
        raise BundleRejected("nothing runs on this host")
    if digest is not None and version is not None:
        return Step(running.digest, digest.removeprefix("sha256:"), version), running
    if other is None:
        raise BundleRejected("the other slot is empty: there is nothing to go back to")
    return Step(running.digest, other.digest, other.name), running


def _status(arguments: argparse.Namespace) -> int:
    status = read_status(find_host(arguments))
    if arguments.json:
        slots = {
            name: {"release": found.name, "digest": found.digest} if found else None
            for name, found in status.contents.items()
        }
        facts = {
            "current": status.current,
            "slots": slots,
            "interrupted": status.is_interrupted,
            "busy": status.is_busy,
        }
        print(json.dumps(facts))
        return EXIT_OK
    for line in describe_status(status):
        print(line)
    return EXIT_OK


def _recover(arguments: argparse.Namespace) -> int:
    """What the service runs before it starts, which an upgrade itself waits for: that switch is not interrupted."""
    host, state = find_host(arguments), find_host_state(arguments)
    try:
        return _take_back(host, state)
    except HostBusy as busy:
        print(f"{busy}: nothing was interrupted")
        return EXIT_OK


def _take_back(host: Host, state: Path) -> int:
    with lock_host(host):
        taken_back = recover(host, None, State(state, STATE_THAT_GOES_BACK))
        if taken_back is not None:
            facts = {"reason": f"interrupted {taken_back.direction}", "leave_by": ""}
            _note(state, "software_rolled_back", host.current(), facts)
    print(f"taken back: the interrupted {taken_back.direction}" if taken_back else "nothing was interrupted")
    return EXIT_OK


def _open_service(arguments: argparse.Namespace) -> CommandService:
    ca = arguments.ready_ca or find_host_state(arguments) / "tls" / "ca.pem"
    return CommandService(
        arguments.stop,
        arguments.start,
        arguments.ready_url,
        ca,
        stop_s=arguments.stop_timeout,
        ready_s=arguments.ready_timeout,
    )


def _note(state: Path, kind: str, content: SlotContent | None, facts: Mapping[str, str | int]) -> None:
    name, digest = (content.name, f"sha256:{content.digest}") if content else ("none", "none")
    open_outbox(state).put(kind, name=name, digest=digest, actor=actor(), facts=facts)
