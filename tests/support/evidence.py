"""A made-up installation, and results of tests that all passed, for tests and benchmarks of evidence packs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.note import NoteSigner
from audit.reader import LogReader
from audit.signing_key import load_verifier_key
from compliance.facts import QUESTIONS, Answer
from compliance.frameworks import FRAMEWORKS
from compliance.installation import HeldKey, HeldRole, Installation, Person, Program, UsableKey
from compliance.loading import load_catalogues
from compliance.pack import PackOrder, WrittenPack, write_pack
from compliance.period import make_period
from compliance.results import MarkedTest, encode_results

FIRST_MS = 1_767_225_600_000
"""2026-01-01."""
MONTH_MS = 30 * 86_400_000
SOFTWARE = "sha256:" + "5a" * 32


def make_results(*, software: str = SOFTWARE, failed: tuple[str, ...] = (), skipped: tuple[str, ...] = ()) -> bytes:
    """Every test that some control names, passed but for these."""
    shown: dict[str, set[str]] = {}
    for catalogue in load_catalogues().values():
        for control in catalogue.controls.values():
            for test in control.tests:
                shown.setdefault(test, set()).add(control.id)
    return encode_results(
        software,
        {
            test: MarkedTest(
                tuple(sorted(ids)), "failed" if test in failed else "skipped" if test in skipped else "passed"
            )
            for test, ids in shown.items()
        },
    )


def make_answers(**others: bool | None) -> dict[str, Answer]:
    """Every fact holds, but for FIPS and what is said otherwise."""
    holds: dict[str, bool | None] = dict.fromkeys(QUESTIONS, True) | {"fips_modules": False} | others
    return {name: Answer(value, "as made up") for name, value in holds.items()}


def make_installation(**others: bool | None) -> Installation:
    """An installation in production with two people, a program, a key."""
    people = [
        Person(
            f"user-{n}",
            f"person{n}",
            f"Person <{n}>",
            role,
            "default",
            "enabled",
            "one-time code",
            "os:root",
            "user:x",
            "t",
        )
        for n, role in enumerate(("admin", "auditor"))
    ]
    return Installation(
        version="9.9.9",
        software=SOFTWARE,
        mode="production",
        configuration=b"{}\n",
        configuration_digest="sha256:" + "c0" * 32,
        statement=b'{"software":"x"}\n',
        sbom=b'{"bomFormat":"CycloneDX"}\n',
        cosigned=b"",
        retention_days=184,
        answers=make_answers(**others),
        people=people,
        programs=[
            Program(
                "client-1",
                "=cmd()",
                "service",
                "user",
                "default",
                "enabled",
                "client_secret",
                "inference",
                "os:root",
                "",
                "t",
            )
        ],
        roles=[HeldRole("admin", "yes", "yes", "identity.read", "all", 1, 0)],
        static_keys=[UsableKey("k1", "client-1", "ci", "10.0.0.0/8", "usable", "t", "t")],
        keys=[HeldKey("audit/log.key", "signs the log", "auditor", "Ed25519", "sha256:aa", "600", "t")],
    )


SIGNER = NoteSigner("evidence.example/pack", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def order_pack(framework: str = "cmmc-l2", **others: Any) -> PackOrder:
    """A pack of the made-up installation over a whole month."""
    order = PackOrder(
        framework=FRAMEWORKS[framework],
        period=make_period(FIRST_MS, FIRST_MS + MONTH_MS),
        made_at_ms=FIRST_MS + 2 * MONTH_MS,
        installation=make_installation(),
        test_results=make_results(),
    )
    return replace(order, **others)


def write_made_up_pack(order: PackOrder, home: Path, name: str = "pack") -> WrittenPack:
    """Write the pack beside the log of a folder that `write_log` filled."""
    key = load_verifier_key(str(home / "log.vkey"))
    return write_pack(order, LogReader(home / "log"), key, home / name, SIGNER)
