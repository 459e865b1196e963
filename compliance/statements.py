"""What the customer says about their part: a TOML file that they keep, and that goes into the pack as it is.

    [statements."3.10.1"]
    status = "met"
    by = "facility security"
    on = 2026-11-01
    evidence = "Badge readers on both doors; list of holders in the facility plan, section 4."

A statement is about a control of any framework, or about one objective of it (`3.10.1[a]`): one file is enough for all. It
counts for what is left to the customer; it never makes up for evidence of ours that is missing.
"""

import datetime
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from compliance.catalogue import Control
from compliance.errors import StatementsRejected
from compliance.loading import load_catalogues

MAX_STATEMENTS_BYTES = 4 << 20


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statement."""

    status: Literal["met", "not-met", "not-applicable"]
    by: str
    on: datetime.date
    evidence: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statements: dict[str, Statement] = {}


Statements = Mapping[str, Statement]


def parse_statements(data: bytes, controls: Iterable[Control], now_ms: int) -> Statements:
    """Parse the file, and choose what is about these controls.

    Args:
        now_ms: UTC, of the pack; what is stated of a later day than its is no evidence yet. A day more is left to other time zones.
    Raises: StatementsRejected, also for what is about no control of any framework.
    """
    if len(data) > MAX_STATEMENTS_BYTES:
        raise StatementsRejected(f"statements: longer than {MAX_STATEMENTS_BYTES} bytes")
    try:
        file = msgspec.convert(tomllib.loads(data.decode("utf-8")), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise StatementsRejected(f"statements: {error}") from error
    last = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date() + datetime.timedelta(days=1)
    asked, known = _name_all(controls), _name_all(_every_control())
    for id, statement in file.statements.items():
        if id not in known:
            raise StatementsRejected(f"statements: {id!r} is no control or objective of any framework")
        if not statement.by.strip() or not statement.evidence.strip():
            raise StatementsRejected(f"statements: {id}: `by` and `evidence` must say something")
        if statement.on > last:
            raise StatementsRejected(f"statements: {id}: {statement.on} has not come")
    return {id: statement for id, statement in file.statements.items() if id in asked}


def _every_control() -> Iterator[Control]:
    for catalogue in load_catalogues().values():
        yield from catalogue.controls.values()


def _name_all(controls: Iterable[Control]) -> frozenset[str]:
    return frozenset(id for control in controls for id in (control.id, *(one.id for one in control.objectives)))
