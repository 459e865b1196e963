"""`casemate compliance`: what is missing on this installation for a framework, and evidence packs for assessors.

A pack is made from the state folder, whether the appliance runs or not; with its public key and the log's anybody verifies
it offline.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.cli.audit.arguments import (
    KEY_HELP,
    Counter,
    WrongUsage,
    load_key,
    load_witnesses,
    require_folder,
    set_handler,
)
from appliance.cli.caller import actor
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK, EXIT_ROLLBACK_NOT_EXCLUDED
from appliance.cli.state import verify_owner
from appliance.cli.terminal import say
from appliance.compliance.gathering import gather_installation
from appliance.compliance.places import answer_from_log, find_closed_word, open_log, open_signer
from appliance.config import Configuration, load_default_configuration
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed
from appliance.models.places import open_outbox
from audit.cosignature import find_come
from compliance.again import load_earlier
from compliance.errors import PeriodRejected
from compliance.frameworks import FRAMEWORKS, Framework
from compliance.judgement import judge
from compliance.pack import PackOrder, WrittenPack, write_pack
from compliance.period import Period, format_instant, make_period, parse_time
from compliance.report.content import find_gaps, find_untested
from compliance.results import MAX_RESULTS_BYTES, NO_RESULTS, ControlResults, parse_results
from compliance.statements import MAX_STATEMENTS_BYTES, parse_statements
from compliance.verification import verify_pack


def add_compliance_commands(subparsers: Commands) -> None:
    """Add `compliance` with its commands."""
    compliance = subparsers.add_parser("compliance", help="evidence for assessors", description=__doc__)
    commands = compliance.add_subparsers(metavar="COMMAND", required=True)
    export = _add(commands, "export", "write a signed evidence pack for a framework and a period")
    export.add_argument("--from", dest="start", metavar="TIME", help="a date or time in UTC")
    export.add_argument("--to", dest="end", metavar="TIME", help="behind the last moment (default: now)")
    export.add_argument("--out", metavar="DIR", type=Path, required=True, help="is made; must not exist")
    export.add_argument("--at", metavar="TIME", help="the time that the pack says it was made (default: now)")
    export.add_argument(
        "--again",
        metavar="PACK",
        type=Path,
        help="make this pack once more, to be compared: its framework, period, time, signed tree and witnesses' word",
    )
    export.add_argument(
        "--log",
        metavar="DIR",
        type=Path,
        help="a log that a rotation has closed, in place of the one that continues it; its public key lies beside it",
    )
    export.add_argument("--records", action="store_true", help="also every record of the period, with proofs")
    export.set_defaults(handler=None)
    set_handler(export, _export)
    gaps = _add(commands, "gaps", "what is missing for a framework on this installation")
    gaps.add_argument("--json", action="store_true", help="print JSON")
    set_handler(gaps, _gaps)
    verify = commands.add_parser("verify", help="verify a pack offline", description="Verify a pack offline.")
    verify.add_argument("folder", metavar="DIR", type=Path)
    verify.add_argument("--key", metavar="VKEY", required=True, help=KEY_HELP)
    verify.add_argument("--signer", metavar="VKEY", required=True, help="the public key of whoever must have made it")
    verify.add_argument(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness that must have cosigned; several times",
    )
    set_handler(verify, _verify)


def _add(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, summary)
    command.add_argument("--framework", choices=sorted(FRAMEWORKS), required=name != "export")
    command.add_argument("--config", metavar="FILE", help="the configuration; without one, the built-in one is taken")
    command.add_argument("--test-results", metavar="FILE", type=Path, help="in place of compliance.test_results")
    command.add_argument("--statements", metavar="FILE", type=Path, help="in place of compliance.statements")
    return command


def _export(arguments: argparse.Namespace) -> int:
    if arguments.out.exists():
        raise WrongUsage(f"{arguments.out}: exists already")
    asked = _ask_again(arguments) if arguments.again is not None else _ask(arguments)
    configuration, raw = _load(arguments)
    closed = arguments.log.resolve() if arguments.log is not None else None
    reader, key = open_log(configuration, closed)
    signer = open_signer(configuration)
    now_s = asked.made_at_ms / 1000
    if closed is None:
        installation = gather_installation(configuration, raw, now_s, asked.cosigned)
    else:  # Facts are of the installation as it is; the closed log has a word of its own.
        word = find_closed_word(closed) if asked.cosigned is None else asked.cosigned
        installation = replace(gather_installation(configuration, raw, now_s), cosigned=word)
    order = PackOrder(
        framework=asked.framework,
        period=asked.period,
        made_at_ms=asked.made_at_ms,
        installation=installation,
        test_results=_read(arguments.test_results, configuration.compliance.test_results, MAX_RESULTS_BYTES),
        statements=_read(arguments.statements, configuration.compliance.statements, MAX_STATEMENTS_BYTES) or b"",
        with_records=asked.with_records,
        checkpoint=asked.checkpoint,
        is_closed=closed is not None,
    )
    counter = Counter("Reading")
    made = write_pack(
        order,
        reader,
        key,
        arguments.out,
        signer,
        lambda _what, done, all_: counter.count(done, all_),
        lambda pack: _leave_notice(configuration, pack),
    )
    counter.end()
    _describe(made)
    print(f"signed by   {signer.key.encode()}")
    return EXIT_OK


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks a pack to be about; `cosigned` is None for the newest word of the witnesses."""

    framework: Framework
    period: Period
    made_at_ms: int
    with_records: bool
    checkpoint: bytes = b""
    cosigned: bytes | None = None


def _ask(arguments: argparse.Namespace) -> _Asked:
    if arguments.framework is None or arguments.start is None:
        raise WrongUsage("name --framework and --from, or with --again a pack to make once more")
    # Whole seconds, as the pack tells them: so it can be made again, and its ends be verified.
    made_at_ms = _parse_time(arguments.at, int(time.time()) * 1000)
    period = make_period(_parse_time(arguments.start, 0), _parse_time(arguments.end, made_at_ms))
    return _Asked(FRAMEWORKS[arguments.framework], period, made_at_ms, arguments.records)


def _ask_again(arguments: argparse.Namespace) -> _Asked:
    if any((arguments.framework, arguments.start, arguments.end, arguments.at, arguments.records)):
        raise WrongUsage("--again takes framework, period, time and records from the pack")
    earlier = load_earlier(arguments.again)
    framework = FRAMEWORKS.get(earlier.manifest.framework)
    if framework is None:
        raise WrongUsage(f"{arguments.again}: is about {earlier.manifest.framework!r}, which is not known here")
    return _Asked(
        framework, earlier.period, earlier.made_at_ms, earlier.with_records, earlier.checkpoint, earlier.cosigned
    )


def _gaps(arguments: argparse.Namespace) -> int:
    framework = FRAMEWORKS[arguments.framework]
    configuration, raw = _load(arguments)
    installation = gather_installation(configuration, raw, time.time())
    results = _load_results(arguments, configuration, installation.software)
    said = _read(arguments.statements, configuration.compliance.statements, MAX_STATEMENTS_BYTES) or b""
    statements = parse_statements(said, framework.controls, int(time.time() * 1000))
    answers = dict(installation.answers) | answer_from_log(configuration, int(time.time() * 1000))
    judgements = judge(framework.controls, answers, results, statements, {})
    gaps = find_gaps(framework, judgements)
    untested = find_untested(framework, judgements) if results is not NO_RESULTS else {}
    by_design = [one for one in judgements if one.control.status == "not-met" and not one.is_satisfied]
    if arguments.json:
        print(
            json.dumps(
                {
                    "framework": framework.name,
                    "gaps": [
                        {"name": gap.name, "found": gap.words, "remedy": gap.remedy, "controls": gap.controls}
                        for gap in gaps
                    ],
                    "has_test_results": results is not NO_RESULTS,
                    "tests_not_passed": [
                        {"test": test, "outcome": outcome, "controls": controls}
                        for (test, outcome), controls in untested.items()
                    ],
                    "not_met_by_product": [framework.label_of(one.control) for one in by_design],
                }
            )
        )
    else:
        for gap in gaps:
            say(f"{'missing' if gap.is_known else 'unknown':<8} {gap.title}")
            for line in (f"{gap.words}. {gap.missing}", gap.remedy, f"Wanted by {_join(gap.controls)}."):
                say(f"         {line}")
        if results is NO_RESULTS:
            say(
                "missing  results of the tests of this build (compliance.test_results): nothing that rests on tests is evidenced"
            )
        for (test, outcome), controls in untested.items():
            say(f"missing  a pass of {test} ({outcome})")
            say(f"         Wanted by {_join(controls)}.")
        for one in by_design:
            say(f"not met  {framework.label_of(one.control)} {one.control.title}: {one.control.customer}")
        theirs = sum(one.control.status in ("customer", "shared") for one in judgements)
        say(
            f"{len(gaps)} facts are missing or unknown; {theirs} of {len(judgements)} controls want something of the organization"
        )
    return EXIT_FAILED if gaps or untested or by_design or results is NO_RESULTS else EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    folder = require_folder(arguments.folder)
    key = load_key(arguments.key)
    verified = verify_pack(folder, key, load_key(arguments.signer), load_witnesses(arguments.witness, key))
    manifest = verified.manifest
    say(
        f"pack        {manifest.framework}, {manifest.period_start} to {manifest.period_end}, made at {manifest.made_at}"
    )
    say(f"log         {manifest.origin}, {manifest.checkpoint_size} records, root {manifest.root}")
    say(f"manifest    sha256:{verified.digest}, {len(manifest.files)} files")
    now_s = time.time()
    for name, at_s in verified.witnessed_at.items():
        say(f"witness     {name} cosigned the first {verified.num_witnessed} records at {format_instant(at_s * 1000)}")
    say(
        f"verified: signed, whole, {verified.num_proven} records proven one by one, {verified.num_exported} as ranges"
        + ("" if verified.witnessed_at else "; without --witness it is not excluded that the log was told anew")
    )
    is_part = verified.beginning is not None and bool(verified.beginning.continued)
    if verified.beginning is not None:
        say(f"not covered: {verified.beginning.words}")
    otherwise = EXIT_ROLLBACK_NOT_EXCLUDED if is_part else EXIT_OK
    if not verified.witnessed_at:
        return otherwise
    if not find_come(verified.witnessed_at.values(), now_s):
        say(
            "not covered: every witness gave its word at a time that has not come; what that is worth is for them to say"
        )
        return EXIT_ROLLBACK_NOT_EXCLUDED
    if verified.num_witnessed < manifest.end:
        first, last = max(verified.num_witnessed, manifest.start), manifest.end - 1
        say(
            f"not covered: records {first} to {last} came after the witnesses' word; that these were told anew is not excluded"
        )
        return EXIT_ROLLBACK_NOT_EXCLUDED
    return otherwise


def _load(arguments: argparse.Namespace) -> tuple[Configuration, bytes]:
    path = find_configuration_file(arguments.config)
    configuration, raw = load_configuration(path) if path is not None else load_default_configuration()
    verify_owner(configuration.state_path)
    return configuration, raw


def _load_results(arguments: argparse.Namespace, configuration: Configuration, software: str) -> ControlResults:
    """Results of this very build; those of another show nothing."""
    data = _read(arguments.test_results, configuration.compliance.test_results, MAX_RESULTS_BYTES)
    results = NO_RESULTS if data is None else parse_results(data)
    return results if results.software == software else NO_RESULTS


def _read(named: Path | None, configured: str | None, max_bytes: int) -> bytes | None:
    path = named or (Path(configured) if configured is not None else None)
    if path is None:
        return None
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise CommandFailed(f"{path}: has more than {max_bytes} bytes")
    return data


def _parse_time(text: str | None, otherwise_ms: int) -> int:
    try:
        return otherwise_ms if text is None else parse_time(text) // 1000 * 1000
    except PeriodRejected as error:
        raise WrongUsage(str(error)) from error


def _leave_notice(configuration: Configuration, made: WrittenPack) -> None:
    """That somebody took evidence is evidence itself; the supervisor records it."""
    manifest = made.manifest
    facts: dict[str, str | int] = {
        "checkpoint_size": manifest.checkpoint_size,
        "end": manifest.end,
        "framework": manifest.framework,
        "start": manifest.start,
    }
    open_outbox(configuration.state_path).put(
        "log_exported", name=manifest.origin, digest=f"sha256:{made.digest}", actor=actor(), facts=facts
    )


def _describe(made: WrittenPack) -> None:
    content, manifest = made.content, made.manifest
    say(f"framework   {content.framework.title}")
    say(f"records     {manifest.start} to {manifest.end - 1} of {manifest.checkpoint_size}, root {manifest.root}")
    if content.limits:
        say(f"not covered {content.limits}")
    say("controls    " + ", ".join(f"{count} {verdict}" for verdict, count, _, _ in content.counts if count))
    if content.score is not None:
        say(
            f"SPRS score  {content.score.now}; {content.score.attainable} of 110 once the organization's parts are done"
            + ("" if content.score.has_plan else "; none to submit without a system security plan (3.12.4)")
        )
    if not content.has_results:
        sys.stderr.write("casemate: no test results of this build: nothing that rests on tests counts as evidenced\n")
    say(f"manifest    sha256:{made.digest}, {len(manifest.files)} files")


def _join(controls: Sequence[str]) -> str:
    rest = f" and {len(controls) - 8} more" if len(controls) > 8 else ""
    return ", ".join(controls[:8]) + rest
