"""What auditor and administrator decide together: how long bodies are kept, what is held, that the log is rotated, that the clock
is right.

Neither alone: one proposes, a person of the *other* role confirms, within a week. An auditor alone could keep for ever what a
law says must go, an administrator alone could let evidence lapse. Both steps are records; this module has the rules and the
state, and writes nothing but the state's file.

What always holds: a proposal is decided once; who confirms is another person of the other role; a period under a hold is not
destroyed, whatever the retention says.

A file can be lost, or put back from another day. So decisions and starts are recorded with the digest of what is in force since
(`rules`), and nothing is destroyed by a file that is not what the log said last.
"""

import datetime
import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from audit.entry import encode_canonical
from audit.errors import GovernanceRefused, StateMismatch
from audit.storage import Disk

RULES = "rules.json"
"""Beside the log's folder."""
PROPOSAL_LIFETIME_MS = 7 * 86_400_000
MAX_PROPOSALS = 64
MAX_HOLDS = 1_000
MAX_FILE_BYTES = 8 << 20
"""More than all holds and proposals take whose texts are as long as they may be, each character escaped."""

Kind = Literal["retention", "hold", "lift", "rotation", "time"]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Day = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
GoverningRole = Literal["auditor", "admin"]


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A period that nothing is destroyed of."""

    hold_id: Text
    tenant: Text
    """Empty: all."""
    from_day: Day
    to_day: Day
    """The last one held."""
    reason: Text

    def covers(self, tenant: str, day: str) -> bool:
        """Whether a tenant's day is held."""
        return self.tenant in ("", tenant) and self.from_day <= day <= self.to_day


class Decider(msgspec.Struct, frozen=True):
    """A person, and the role in which they decide."""

    subject: Text
    role: GoverningRole


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody wants changed."""

    proposal_id: Text
    kind: Kind
    by: Decider
    at_ms: int
    reason: Text
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None = None
    hold: Hold | None = None
    """To be placed; of one to be lifted the whole."""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in force, and what waits for its second person."""

    retention_days: int
    holds: tuple[Hold, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    deciding: str = ""
    """A proposal whose decision is being recorded; found at a start, a crash came between record and deed."""
    rotation_index: int = -1
    """Index of the record by which the rotation of this log was agreed; -1 for not."""

    @property
    def digest(self) -> str:
        """SHA-256 over `holds` and `retention_days` as an object in canonical JSON: what is in force. In hexadecimal."""
        in_force = {"holds": [msgspec.to_builtins(hold) for hold in self.holds], "retention_days": self.retention_days}
        return hashlib.sha256(encode_canonical(in_force)).hexdigest()

    def is_held(self, tenant: str | None, day: str) -> bool:
        """Whether a hold covers a tenant's day; None: of whom is not known, and a hold for anybody's counts."""
        return any(hold.covers(hold.tenant if tenant is None else tenant, day) for hold in self.holds)

    def first_kept_day(self, now_ms: int) -> str:
        """Bodies of days before this one have lived long enough."""
        today = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date()
        return (today - datetime.timedelta(days=self.retention_days)).isoformat()


def build_proposal(
    rules: Rules,
    kind: Kind,
    by: Decider,
    now_ms: int,
    *,
    reason: str,
    retention_days: int | None = None,
    tenant: str = "",
    from_day: str = "",
    to_day: str = "",
    hold_id: str = "",
) -> Proposal:
    """Check what somebody proposes.

    Raises: GovernanceRefused.
    """
    hold: Hold | None = None
    match kind:
        case "retention":
            if retention_days is None or not 1 <= retention_days <= 36_500:
                raise GovernanceRefused("retention: expected a number of days from 1 to 36500")
        case "hold":
            hold = Hold(f"hold-{secrets.token_hex(8)}", tenant, _day(from_day), _day(to_day), reason)
            if hold.from_day > hold.to_day:
                raise GovernanceRefused("hold: its first day is behind its last one")
        case "lift":
            hold = next((one for one in rules.holds if one.hold_id == hold_id), None)
            if hold is None:
                raise GovernanceRefused(f"hold {hold_id!r}: there is none")
    if not reason:
        raise GovernanceRefused("a proposal needs a reason")
    days = retention_days if kind == "retention" else None
    return Proposal(f"change-{secrets.token_hex(8)}", kind, by, now_ms, reason, days, hold)


def propose(rules: Rules, proposal: Proposal) -> Rules:
    """Let a proposal wait for its second person; those that waited too long are forgotten.

    Raises: GovernanceRefused.
    """
    waiting = tuple(one for one in rules.proposals if proposal.at_ms - one.at_ms < PROPOSAL_LIFETIME_MS)
    if len(waiting) >= MAX_PROPOSALS or (proposal.kind == "hold" and len(rules.holds) >= MAX_HOLDS):
        raise GovernanceRefused("too many proposals wait, or too many holds are placed")
    return msgspec.structs.replace(rules, proposals=(*waiting, proposal))


def find_proposal(rules: Rules, proposal_id: str, by: Decider, now_ms: int, *, confirms: bool) -> Proposal:
    """The proposal that `by` decides, if they may: to confirm, another person of the other role.

    Raises: GovernanceRefused.
    """
    found = next((one for one in rules.proposals if one.proposal_id == proposal_id), None)
    if found is None or now_ms - found.at_ms >= PROPOSAL_LIFETIME_MS:
        raise GovernanceRefused("there is no such proposal, or it waited longer than a week")
    if confirms and (found.by.role == by.role or found.by.subject == by.subject):
        other = "an administrator" if found.by.role == "auditor" else "an auditor"
        raise GovernanceRefused(f"this proposal is confirmed by {other}, and by another person than proposed it")
    return found


def decide(rules: Rules, proposal: Proposal, *, confirms: bool, index: int) -> Rules:
    """Put a proposal in force, or drop it. `index` is of the record that says so, which MUST be durable."""
    rest = tuple(one for one in rules.proposals if one.proposal_id != proposal.proposal_id)
    rules = msgspec.structs.replace(rules, proposals=rest)
    if not confirms:
        return rules
    match proposal.kind:
        case "retention":
            assert proposal.retention_days is not None
            return msgspec.structs.replace(rules, retention_days=proposal.retention_days)
        case "hold":
            assert proposal.hold is not None
            return msgspec.structs.replace(rules, holds=(*rules.holds, proposal.hold))
        case "lift":
            return msgspec.structs.replace(rules, holds=tuple(one for one in rules.holds if one != proposal.hold))
        case "rotation":
            return msgspec.structs.replace(rules, rotation_index=index)
        case "time":
            return rules


def load_rules(path: Path, retention_days: int) -> Rules:
    """What was decided last; without a file the configuration's retention, and no holds.

    Raises: StateMismatch when the file is damaged: what is held must not be guessed.
    """
    try:
        data = path.read_bytes()[: MAX_FILE_BYTES + 1]
    except FileNotFoundError:
        return Rules(retention_days)
    try:
        return msgspec.json.decode(data, type=Rules)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateMismatch(f"{path}: is damaged: {error}") from error


def save_rules(path: Path, rules: Rules, disk: Disk) -> None:
    """Durably. Raises: NotDurable, StorageFailed."""
    disk.write_file(path, msgspec.json.encode(rules), path.with_name(f"{path.name}.tmp"))
    disk.sync_folders([path.parent])


def forget_rotation(path: Path, disk: Disk) -> None:
    """A log that was rotated away takes its agreement with it; retention and holds stay for the next.

    Raises: NotDurable, StorageFailed, StateMismatch.
    """
    if path.exists():
        rules = msgspec.structs.replace(load_rules(path, 1), rotation_index=-1)
        save_rules(path, rules, disk)


def _day(text: str) -> str:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise GovernanceRefused(f"expected a day such as 2026-11-25, got {text[:32]!r}") from None
    return day.isoformat()
