"""From `controls/*.toml` to catalogues, strictly: an unknown key, fact, kind of record or control is an error, and so is a claim
without evidence.

The rules that always hold for what was loaded:
(1) identifiers have the form of their publication, and each objective belongs to a control;
(2) what is met or shared has words for what the product does and at least one test; what is shared, or is the customer's, has words
    for what they do;
(3) what is met has no objective that is not, so that no whole is better than its parts;
(4) every fact is one of `facts.QUESTIONS`, every kind of record one that the log knows.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import msgspec

from audit.permissions import KINDS
from compliance.catalogue import Catalogue, Control, Objective, Status
from compliance.errors import CatalogueRejected
from compliance.facts import QUESTIONS

NAMES = ("nist-800-171", "nist-800-53", "iso-42001", "eu-ai-act")
_FORMS = {
    "nist-800-171": re.compile(r"3\.(?:[1-9]|1[0-4])\.(?:[1-9]|1[0-9]|2[0-2])"),
    "nist-800-53": re.compile(r"[A-Z]{2}-[1-9][0-9]?(?:\([1-9][0-9]?\))?"),
    "iso-42001": re.compile(r"A(?:\.[1-9]){3}"),
    "eu-ai-act": re.compile(r"Article [1-9][0-9]?\([1-9]\)"),
}
_TEST = re.compile(r"tests/[a-z0-9_/]+/test_[a-z0-9_]+\.py::test_[a-z0-9_]+")
_BASELINES = ("moderate", "high")


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One control as it is written. `like` takes what is not given from a requirement of nist-800-171."""

    title: str
    status: Status
    like: str = ""
    product: str = ""
    customer: str = ""
    tests: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    points: int = 0
    objectives: int = 0
    by_objective: dict[str, Status] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    href: str
    families: dict[str, str]
    controls: dict[str, _Row]


@cache
def load_catalogues() -> Mapping[str, Catalogue]:
    """Every catalogue of the product, by name.

    Raises: CatalogueRejected.
    """
    loaded: dict[str, Catalogue] = {}
    for name in NAMES:
        data = (files("compliance") / "controls" / f"{name}.toml").read_bytes()
        loaded[name] = parse_catalogue(data, name, loaded.get("nist-800-171"))
    return MappingProxyType(loaded)


def parse_catalogue(data: bytes, name: str, requirements: Catalogue | None = None) -> Catalogue:
    """Parse one catalogue.

    Args:
        name: one of NAMES, which decides on the form of identifiers.
        requirements: what `like` refers to.
    Raises: CatalogueRejected, and nothing else.
    """
    try:
        table: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
        file = msgspec.convert(table, _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise CatalogueRejected(f"{name}: {error}") from error
    controls = {}
    for id, row in file.controls.items():
        if not _FORMS[name].fullmatch(id):
            raise CatalogueRejected(f"{name}: {id!r} is not an identifier of this publication")
        control = _make_control(name, id, row, requirements)
        _verify(name, control)
        controls[id] = control
    if missing := {control.family for control in controls.values()} - set(file.families):
        raise CatalogueRejected(f"{name}: the family {min(missing)} has no title")
    return Catalogue(name=name, title=file.title, href=file.href, families=file.families, controls=controls)


def _make_control(name: str, id: str, row: _Row, requirements: Catalogue | None) -> Control:
    like = None
    if row.like:
        like = None if requirements is None else requirements.controls.get(row.like)
        if like is None:
            raise CatalogueRejected(f"{name}: {id}: is like {row.like}, which is not there")
    return Control(
        id=id,
        title=row.title,
        status=row.status,
        product=row.product or (like.product if like else ""),
        customer=row.customer or (like.customer if like and row.status != "met" else ""),
        tests=row.tests or (like.tests if like else ()),
        facts=row.facts or (like.facts if like else ()),
        kinds=row.records or (like.kinds if like else ()),
        baselines=row.baselines,
        objectives=_make_objectives(name, id, row),
        points=row.points,
    )


def _make_objectives(name: str, id: str, row: _Row) -> tuple[Objective, ...]:
    if row.objectives == 1:
        ids = {"": id}
    else:
        letters = [chr(ord("a") + number) for number in range(row.objectives)]
        ids = {letter: f"{id}[{letter}]" for letter in letters}
    if strangers := set(row.by_objective) - set(ids):
        raise CatalogueRejected(f"{name}: {id}: has no objective {min(strangers)!r}")
    return tuple(Objective(id=text, status=row.by_objective.get(letter, row.status)) for letter, text in ids.items())


def _verify(name: str, control: Control) -> None:
    problems = []
    if control.is_claimed or control.status == "not-met":
        if not control.product:
            problems.append("does not say what the product does")
        if not control.tests:
            problems.append("is claimed, and no test shows it")
    if control.status in ("shared", "customer", "not-met") and not control.customer:
        problems.append("does not say what the customer must do")
    if control.status == "not-applicable" and not control.product:
        problems.append("does not say why it is not applicable")
    if control.status == "customer" and control.tests:
        problems.append("is the customer's, and has tests of ours")
    problems += [f"{test!r} is no test's id" for test in control.tests if not _TEST.fullmatch(test)]
    problems += [f"{fact!r} is no fact" for fact in control.facts if fact not in QUESTIONS]
    problems += [f"{kind!r} is no kind of record" for kind in control.kinds if kind not in KINDS]
    problems += [f"{baseline!r} is no baseline" for baseline in control.baselines if baseline not in _BASELINES]
    if len(set(control.tests)) != len(control.tests):
        problems.append("names a test twice")
    if control.status == "met" and any(one.status != "met" for one in control.objectives):
        problems.append("is met, and an objective of it is not")
    if any(one.status in ("met", "shared") and not control.tests for one in control.objectives):
        problems.append("claims an objective, and no test shows it")
    if problems:
        raise CatalogueRejected("\n".join(f"{name}: {control.id}: {problem}" for problem in problems))
