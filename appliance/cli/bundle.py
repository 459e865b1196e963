"""`casemate bundle build|verify|install`: releases and models in one signed folder that a courier can carry.

A bundle is a TUF repository on a folder or disk. Building needs the keys and no host; verifying and installing need a host that
was told whom to believe (`casemate init`), and no network.
"""

import argparse
import contextlib
import datetime
import json
from pathlib import Path
from typing import Any

from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.hashing_progress import Percentage, count, format_size
from appliance.cli.host_clock import verify_clock_was_left
from appliance.cli.main import EXIT_OK
from appliance.cli.progress import Progress
from appliance.cli.signing_key import KEY_HELP, open_signer
from appliance.cli.software import add_host_options, find_host, find_host_state, lock_host
from appliance.errors import CommandFailed
from appliance.models.places import open_outbox, open_trust, utc_now
from security.bundles.building import Lifetimes, build_bundle
from security.bundles.downgrade import step_between, verify_downgrade
from security.bundles.installing import install_bundle, verify_files
from security.bundles.release import Release, parse_version
from security.bundles.slots import Host, SlotContent
from security.bundles.trust import HostTrust
from security.bundles.verification import VerifiedBundle, open_bundle
from security.errors import BundleRejected, KeyUnusable, SecurityFault
from security.stewards.outbox import Outbox


def add_bundle_commands(subparsers: Commands) -> None:
    """Add `bundle` with its commands."""
    bundle = subparsers.add_parser("bundle", help="releases that are carried in", description=__doc__)
    commands = bundle.add_subparsers(metavar="COMMAND", required=True)
    build = _add(commands, "build", "make a bundle from the parts of a release", _build)
    build.add_argument("output", type=Path, metavar="DIR", help="a new folder")
    build.add_argument(
        "--root",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="the roots, oldest first",
    )
    build.add_argument("--release", required=True, metavar="N.N.N", help="the release's version")
    build.add_argument(
        "--owner", choices=("vendor", "customer"), default="vendor", help="whose root it is (default: vendor)"
    )
    build.add_argument(
        "--component",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a part of the release",
    )
    build.add_argument(
        "--key", action="append", required=True, metavar="KEY", help=f"signs what the root lets it sign: {KEY_HELP}"
    )
    build.add_argument("--built-at", type=_parse_time, metavar="TIME", help="for reproducible builds (default: now)")
    build.add_argument("--previous", type=Path, metavar="DIR", help="the bundle before, whose versions go on")
    build.add_argument("--delta", action="store_true", help="leave out what the bundle before has")
    build.add_argument(
        "--days", type=int, default=120, metavar="N", help="how long the bundle may be under way (default: 120)"
    )
    verify = _add(
        commands,
        "verify",
        "verify a bundle and each of its files; changes nothing",
        _verify,
    )
    install = _add(commands, "install", "verify a bundle and fill the slot that does not run", _install)
    install.add_argument("--leave", type=Path, metavar="FILE", help="two operators' leave, for an older release")
    verify.add_argument(
        "--owner", choices=("vendor", "customer"), default="vendor", help="under whose root (default: vendor)"
    )
    install.set_defaults(owner="vendor")  # Software comes from nobody else.
    for command in (verify, install):
        command.add_argument("folder", type=Path, metavar="DIR", help="the bundle")
        add_host_options(command)


def _add(commands: Commands, name: str, summary: str, handler: Any) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary, handler)
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _build(arguments: argparse.Namespace) -> int:
    if arguments.delta and arguments.previous is None:
        raise CommandFailed("--delta goes with --previous: a delta is against something")
    now = utc_now()
    release = Release(arguments.owner, parse_version(arguments.release), arguments.built_at or now)
    components = dict(_parse_component(text) for text in arguments.component)
    with contextlib.ExitStack() as stack:
        built = build_bundle(
            arguments.output,
            [path.read_bytes() for path in arguments.root],
            release,
            components,
            [stack.enter_context(open_signer(key)) for key in arguments.key],
            now=now,
            lifetimes=Lifetimes(snapshot=datetime.timedelta(days=arguments.days)),
            previous=arguments.previous,
            is_delta=arguments.delta,
        )
    if arguments.json:
        described = {"release": release.name, "version": built.version, "num_files": built.num_targets}
        print(json.dumps({**described, "size_bytes": built.size_bytes}))
        return EXIT_OK
    files = f"{count(built.num_targets, 'file')}, {built.num_carried} of them carried"
    print(f"built      release {release.name}, {files}, {format_size(built.size_bytes)}")
    print(f"good for   {arguments.days} days under way")
    return EXIT_OK


def _parse_component(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise CommandFailed(f"--component {text}: expected NAME=PATH")
    return name, Path(path)


def _verify(arguments: argparse.Namespace) -> int:
    trust = open_trust(find_host_state(arguments))
    with open_bundle(arguments.folder, trust, arguments.owner, now=utc_now(), remember=False) as bundle:
        with Progress("verifying") as progress:
            num_in_slot = verify_files(find_host(arguments), bundle, progress=Percentage(progress).report)
        _report(arguments, "verified", bundle)
    if num_in_slot and not arguments.json:
        print(f"delta      {count(num_in_slot, 'file')} not on the medium, which the running slot has")
    return EXIT_OK


def _install(arguments: argparse.Namespace) -> int:
    host, state = find_host(arguments), find_host_state(arguments)
    outbox, trust = open_outbox(state), open_trust(state)
    with lock_host(host):
        try:
            verify_clock_was_left(state)
            with open_bundle(arguments.folder, trust, arguments.owner, now=utc_now(), remember=True) as bundle:
                trust.note_time(utc_now())
                leave = _verify_direction(arguments, host, trust, bundle)
                known: dict[str, str | int] = {
                    "snapshot_version": bundle.snapshot_version,
                    "leave_by": ", ".join(leave),
                }

                def announce(content: SlotContent) -> None:
                    digest, facts = f"sha256:{content.digest}", known | {"slot": content.slot}
                    outbox.put("software_installed", name=content.name, digest=digest, actor=actor(), facts=facts)

                with Progress("installing") as progress:
                    content = install_bundle(host, bundle, progress=Percentage(progress).report, announce=announce)
                return _report(arguments, f"installed in slot {content.slot}", bundle)
        except SecurityFault as fault:
            _note_refusal(outbox, fault, arguments.folder)
            raise


def _note_refusal(outbox: Outbox, fault: SecurityFault, folder: Path) -> None:
    facts = {"reason": str(fault).splitlines()[0], "folder": str(folder)}
    try:
        outbox.put("software_install_refused", name="bundle", digest="none", actor=actor(), facts=facts)
    except KeyUnusable as unwritable:  # A full disk above all; why nothing was installed is the first thing to know.
        raise type(fault)(f"{fault}\nand the log will not have a record of this: {unwritable}") from None


def _verify_direction(
    arguments: argparse.Namespace, host: Host, trust: HostTrust, bundle: VerifiedBundle
) -> tuple[str, ...]:
    """An older release than the one that runs needs two operators. Raises: BundleRejected."""
    running = host.current()
    if running is None or bundle.release.version >= running.version:
        return ()
    step = step_between(running, bundle.release.name, bundle.digest)
    if arguments.leave is None:
        raise BundleRejected(
            f"release {bundle.release.name} is older than {running.name}, which runs: two operators must give leave "
            f"(`casemate rollback approve --to-digest {bundle.digest} --to-release {bundle.release.name}`)"
        )
    return verify_downgrade(arguments.leave.read_bytes(), step, trust.load_roles(at=utc_now()), now=utc_now())


def _report(arguments: argparse.Namespace, what: str, bundle: VerifiedBundle) -> int:
    if arguments.json:
        described = {"release": bundle.release.name, "digest": bundle.digest, "num_files": len(bundle.targets)}
        print(json.dumps({**described, "size_bytes": bundle.size_bytes, "snapshot_version": bundle.snapshot_version}))
    else:
        print(
            f"{what}: release {bundle.release.name}, {count(len(bundle.targets), 'file')}, {format_size(bundle.size_bytes)}"
        )
        print(f"digest     sha256:{bundle.digest}")
    return EXIT_OK


def _parse_time(text: str) -> datetime.datetime:
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-23T12:00:00Z") from None
    return at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at.astimezone(datetime.UTC)
