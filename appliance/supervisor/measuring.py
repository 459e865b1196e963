"""What is about to run, measured: for the log, for whoever looks into the state folder, and for every answer."""

import time
from dataclasses import dataclass

import structlog

from appliance.config import Configuration
from appliance.statement.attesting import attest_statement, keep_quote
from appliance.statement.statement import keep_statement, measure_statement
from audit.entry import Json
from audit.event_form import SUPERVISOR
from audit.events import host_event

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found."""

    statement: str
    """The running statement's digest."""
    tpm: str
    """Whether it is quoted, in words."""
    event: Json
    """Its record."""


def measure(configuration: Configuration, raw: bytes) -> Measured:
    """Measure, and keep statement and quote in the state folder.

    Args:
        raw: the configuration, as it was read.
    Raises: StartRefused.
    """
    statement = measure_statement(configuration, raw)
    keep_statement(statement, configuration.state_path)
    attestation = attest_statement(configuration.tpm, statement.encode())
    keep_quote(attestation.quote, configuration.state_path)
    log.info("statement_measured", statement=statement.digest, quote=attestation.summary, **statement.facts)
    quoted = {} if attestation.quote is None else {"quote": attestation.quote.encode().decode()}
    event = host_event(
        "statement_measured",
        name="casemate",
        digest=statement.digest,
        actor=SUPERVISOR,
        at_ms=time.time_ns() // 1_000_000,
        facts={**statement.facts, **quoted},
        detail=attestation.summary,
    )
    return Measured(statement.digest, attestation.summary, event)
