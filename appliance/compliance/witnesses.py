"""The witnesses' last word on the log: whether enough of them spoke, lately, of the history that lies here."""

import ipaddress

from appliance.auditor.witnesses import parse_witnesses
from appliance.config import Configuration
from audit.checkpoint import verify_checkpoint
from audit.cosignature import find_come, verify_cosignatures
from audit.courier import load_cosigned
from audit.errors import AuditFault, EntryNotFound
from audit.reader import LogReader
from audit.signing_key import load_verifier_key
from compliance.facts import Answer
from compliance.period import format_time


def find_cosigned(configuration: Configuration) -> bytes:
    """The word as it lies beside the log; empty where there is none, or nobody is asked for one."""
    if not configuration.audit.witnesses:
        return b""
    try:
        return load_cosigned(configuration.state_path / "audit")
    except EntryNotFound:
        return b""


def answer_witness(configuration: Configuration, now: float, cosigned: bytes) -> Answer:
    """Verify the word: the log's signature, a quorum of cosignatures, their age, and that this log still has that tree."""
    settings = configuration.audit
    if not settings.witnesses:
        return Answer(False, "audit.witnesses names none")
    configured = parse_witnesses(settings.witnesses)
    num_witnesses = len({witness.name for witness, _ in configured})  # One may have a key of either kind.
    if not cosigned:
        return Answer(False, f"audit.witnesses names {num_witnesses}, and no word of theirs lies beside the log")
    folder = configuration.state_path / "audit"
    try:
        key = load_verifier_key(str(folder / "log.vkey"))
        checkpoint = verify_checkpoint(cosigned, [key], key.name)
        times = verify_cosignatures(cosigned, [witness for witness, _ in configured])
        has_tree = LogReader(folder / "log").root(checkpoint.size) == checkpoint.root
    except AuditFault as fault:
        return Answer(False, f"the word beside the log does not hold: {fault}")
    if not has_tree:
        return Answer(False, f"the log is not the one whose first {checkpoint.size:,} records were cosigned")
    if len(times) < settings.witness_quorum:
        return Answer(False, f"{len(times)} witnesses have cosigned, {settings.witness_quorum} are asked for")
    here = {key.name for key, at in configured if at is not None and ipaddress.ip_address(at.host).is_loopback}
    if not times.keys() - here:
        return Answer(
            False,
            f"whoever holds this host holds its witnesses, too, as they are asked on it: {', '.join(sorted(times))}",
        )
    said = f"{len(times)} of {num_witnesses} witnesses cosigned the first {checkpoint.size:,} records"
    come = find_come(times.values(), now)
    if len(come) < settings.witness_quorum:
        return Answer(False, f"{said}, but {len(times) - len(come)} of them at a time that has not come")
    said_at_s = come[settings.witness_quorum - 1]
    age_s = int(now - said_at_s)
    if age_s > settings.witness_max_age_s:
        return Answer(
            False, f"{said}, but {age_s:,} s ago, and audit.witness_max_age_s is {settings.witness_max_age_s:,}"
        )
    return Answer(True, f"{said}, at {format_time(said_at_s * 1000)}")
