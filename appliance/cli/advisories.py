"""`casemate advisories import FEED` and `casemate verify-release DIR`: what this release is made of, and what is known against it.

Both work offline. Without `--release`, the parts are the Python distributions of this installation.
"""

import argparse
import json
from pathlib import Path

from appliance.cli.hashing_progress import count
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.errors import CommandFailed
from security.model_signing.elliptic import load_public_key
from security.supply_chain.advisories import MAX_FEED_BYTES, Match, match_feed, verify_feed
from security.supply_chain.components import Component, find_installed
from security.supply_chain.evidence import SBOM, VEX, verify_release
from security.supply_chain.sbom import parse_sbom
from security.supply_chain.vex import VexStatement, parse_vex


def add_advisories_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `advisories` and `verify-release`."""
    advisories = subparsers.add_parser(
        "advisories",
        help="what is known against this release",
        description="What this release is made of, and what is known against it. Works offline.",
    )
    commands = advisories.add_subparsers(metavar="COMMAND", required=True)
    take = commands.add_parser(
        "import",
        help="verify a feed and say what of this release it concerns",
        description="Verify a feed and say what of this release it concerns. Without --release, the parts are the Python"
        " distributions of this installation.",
    )
    take.add_argument("feed", type=Path, help="JSON Lines of OSV and CSAF documents; FEED.sig lies beside it")
    take.add_argument("--key", action="append", required=True, type=Path, metavar="PEM", help="who may have signed it")
    take.add_argument("--release", type=Path, metavar="DIR", help="a folder with sbom.cdx.json and vex.json")
    take.add_argument("--json", action="store_true", help="print JSON")
    take.set_defaults(handler=_import)
    verify = subparsers.add_parser(
        "verify-release",
        help="verify how a release was made",
        description="Verify a release's provenance, and its files and list of parts (SBOM) against it. Works offline.",
    )
    verify.add_argument("folder", type=Path, metavar="DIR", help="the release's files with SBOM, VEX and provenance")
    verify.add_argument(
        "--key", action="append", required=True, type=Path, metavar="PEM", help="who may have signed it"
    )
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(handler=_verify)


def _import(arguments: argparse.Namespace) -> int:
    with arguments.feed.open("rb") as file:
        data = file.read(MAX_FEED_BYTES + 1)
    signature = arguments.feed.with_name(f"{arguments.feed.name}.sig").read_bytes()
    verify_feed(data, signature, [load_public_key(path) for path in arguments.key])
    components, statements = _load_parts(arguments.release)
    matches = match_feed(data, components, statements)
    affected = [match for match in matches if match.verdict == "affected"]
    if arguments.json:
        print(json.dumps([_describe(match) for match in matches]))
        return EXIT_FAILED if affected else EXIT_OK
    for match in matches:
        names = ", ".join((match.advisory, *match.aliases))
        print(f"{match.verdict:<20} {match.component.name} {match.component.version}: {names}: {match.reason}")
    print(
        f"{count(len(components), 'part')}, {count(len(matches), 'match').replace('matchs', 'matches')}, {len(affected)} affected"
    )
    return EXIT_FAILED if affected else EXIT_OK


def _load_parts(release: Path | None) -> tuple[list[Component], list[VexStatement]]:
    if release is None:
        return find_installed(), []
    if not (release / SBOM).is_file():
        raise CommandFailed(f"{release}: holds no {SBOM}")
    statements = parse_vex((release / VEX).read_bytes()) if (release / VEX).is_file() else []
    return parse_sbom((release / SBOM).read_bytes()), statements


def _describe(match: Match) -> dict[str, object]:
    return {
        "advisory": match.advisory,
        "aliases": match.aliases,
        "purl": match.component.purl,
        "verdict": match.verdict,
        "reason": match.reason,
    }


def _verify(arguments: argparse.Namespace) -> int:
    evidence = verify_release(arguments.folder, [load_public_key(path) for path in arguments.key])
    provenance = evidence.provenance
    if arguments.json:
        facts = {"files": dict(provenance.subjects), "built_from": len(provenance.dependencies)}
        print(json.dumps({**facts, "builder": provenance.builder, **provenance.parameters}))
        return EXIT_OK
    commit = provenance.parameters.get("source_commit", "unknown")
    print(f"good       {count(len(provenance.subjects), 'file')}, made by {provenance.builder}")
    print(f"built from {len(provenance.dependencies)} packages, each by its digest; commit {commit}")
    print(f"SBOM       {count(len(evidence.components), 'part')}; VEX {count(len(evidence.statements), 'statement')}")
    return EXIT_OK
