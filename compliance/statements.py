"""What the customer says about their part: a TOML file that they keep, and that goes into the pack as it is.

    [statements."3.10.1"]
    status = "met"
    by = "facility security"
    on = 2026-11-01
    evidence = "Badge readers on both doors; list of holders in the facility plan, section 4."

A statement is about a control, or about one objective of it (`3.10.1[a]`). It counts for what is left to the customer; it
never makes up for evidence of ours that is missing.
"""

import datetime
import tomllib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from compliance.catalogue import Control
from compliance.errors import StatementsRejected

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


def parse_statements(data: bytes, controls: Iterable[Control]) -> Statements:
    """Parse the file.

    Args:
        controls: what statements may be about.
    Raises: StatementsRejected.
    """
    if len(data) > MAX_STATEMENTS_BYTES:
        raise StatementsRejected(f"statements: longer than {MAX_STATEMENTS_BYTES} bytes")
    try:
        file = msgspec.convert(tomllib.loads(data.decode("utf-8")), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise StatementsRejected(f"statements: {error}") from error
    known = {id for control in controls for id in (control.id, *(one.id for one in control.objectives))}
    for id, statement in file.statements.items():
        if id not in known:
            raise StatementsRejected(f"statements: {id!r} is no control or objective of this framework")
        if not statement.by.strip() or not statement.evidence.strip():
            raise StatementsRejected(f"statements: {id}: `by` and `evidence` must say something")
    return file.statements
