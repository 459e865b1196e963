"""Rules that two people set: the auditor's process takes proposals and decisions, records them, and puts them in force.

A decision is in force, and its file durable, in the same step in which its record is; before that nobody is told. That one is
under way is in the file before, so that a crash between record and file shows. Where the file cannot be written for want of space,
what is recorded holds all the same; it is an alarm, is tried again, and nobody is told that it is done.

Who proposes and confirms is what a gateway says. A captured one could say it of two people who know nothing of it; so each
decision is an alert as well, which goes another way than the gateway's answers.

The configuration's retention is that of the first start, and of no other: one person alone could change it. A file that is not what
the log said last was lost, or is of another day; until two people have decided again nothing is destroyed by it.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from appliance.auditor.alerts import raise_alert
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, Send
from appliance.auditor.vouching import TimeVoucher
from appliance.messages.audit import AppendRefused
from appliance.messages.stewardship import DecideChange, FetchRules, ProposeChange, RulesNow
from audit.changes import State, change_event, place_reader
from audit.entry import Json
from audit.errors import GovernanceRefused, NotDurable
from audit.governance import (
    Decider,
    Proposal,
    Rules,
    build_proposal,
    decide,
    find_proposal,
    load_rules,
    propose,
    save_rules,
)
from audit.storage import Disk

RETRY_INTERVAL_S = 1.0
SMALLEST_JUMP_MS = 1_000
_KINDS = {"retention": "retention_changed", "hold": "hold_placed", "lift": "hold_lifted"}

log = structlog.get_logger(__name__)


class GovernanceDesk:
    """Owner of the rules.

    Args:
        path: their file.
        retention_days: where there is no file yet.
        told: digest of the rules in force, by the log; empty where it does not say.
        changed: called when they are others.
        voucher: told that two people vouch for the clock.
    Raises: StateMismatch when the file is damaged.
    """

    def __init__(
        self,
        ledger: Ledger,
        path: Path,
        retention_days: int,
        send: Send,
        clock: Clock,
        changed: Callable[[], None],
        voucher: TimeVoucher,
        told: str = "",
        disk: Disk | None = None,
    ) -> None:
        self._ledger = ledger
        self._path = path
        self._send = send
        self._clock = clock
        self._changed = changed
        self._voucher = voucher
        self._offsets: dict[str, int] = {}
        """For each proposal that the clock is right: how it stood to the monotonic one when it was made."""
        self._disk = disk or Disk()
        self._deciding: set[str] = set()
        """Proposals whose decision is on its way to the disk."""
        self._unsaved = ""
        """Why the file does not hold what is in force; empty where it does."""
        self._next_try_s = 0.0
        self.rules = load_rules(path, retention_days)
        self._told = told
        if not path.exists() and not self.is_stale:
            self._keep_first()
        elif self.rules.retention_days != retention_days:
            log.warning("retention_is_decided", configured_days=retention_days, in_force_days=self.rules.retention_days)

    @property
    def is_stale(self) -> bool:
        """These are not the rules that the log says are in force."""
        return self._told not in ("", self.rules.digest)

    @property
    def facts(self) -> dict[str, str | int]:
        """What is in force, as a start tells it. Stale rules are not told in place of the log's."""
        digest = self._told or self.rules.digest
        return {"num_holds": len(self.rules.holds), "retention_days": self.rules.retention_days, "rules": digest}

    @property
    def alarm(self) -> str:
        """That a decision's record and the rules' file differ, after a crash or for want of space; empty where they do not."""
        if self._unsaved:
            return f"what was decided is in force until the next start only, as its file cannot be written: {self._unsaved}"
        interrupted = self.rules.deciding
        if interrupted and interrupted not in self._deciding:
            return f"the decision on {interrupted} may be recorded and is not in force: a crash came between; decide it again"
        if self.is_stale:
            return (
                f"{self._path.name} is not what the log says is in force, or no log is left that says it; holds may be missing: "
                "nothing is destroyed until auditor and administrator have decided on the retention or a hold again"
            )
        return ""

    def tell(self, peer: Peer, message: FetchRules) -> None:
        """What is in force, and what waits."""
        self._send(peer, RulesNow(message.correlation, msgspec.json.encode(self.rules)))

    def propose(self, peer: Peer, message: ProposeChange) -> None:
        """Record what somebody proposes, then let it wait. Raises: StorageFailed."""
        by = Decider(message.by.subject, message.role)
        try:
            proposal = build_proposal(
                self.rules,
                message.kind,
                by,
                self._clock.utc_ms(),
                reason=message.reason,
                retention_days=message.retention_days,
                tenant=message.tenant,
                from_day=message.from_day,
                to_day=message.to_day,
                hold_id=message.hold_id,
            )
            propose(self.rules, proposal)
        except GovernanceRefused as refused:
            self._refuse(peer, message.correlation, refused)
            return
        event = change_event(
            "rules_proposed",
            entity_type=proposal.kind,
            entity_uid=proposal.proposal_id,
            actor=by.subject,
            after=_describe(proposal),
            reason=proposal.reason,
        )
        place_reader(event, message.by.auditor)
        if proposal.kind == "time":
            self._offsets[proposal.proposal_id] = self._voucher.offset_ms
        self._add(peer, message.correlation, event, proposal, lambda _index: propose(self.rules, proposal))

    def decide(self, peer: Peer, message: DecideChange) -> None:
        """Record what somebody decides, then put it in force. Raises: StorageFailed."""
        by = Decider(message.by.subject, message.role)
        try:
            if self._deciding:
                raise GovernanceRefused("a decision is being recorded: try again")
            proposal = find_proposal(
                self.rules, message.proposal_id, by, self._clock.utc_ms(), confirms=message.confirms
            )
            if message.confirms and proposal.kind == "time":
                self._verify_same_clock(proposal)
        except GovernanceRefused as refused:
            self._refuse(peer, message.correlation, refused)
            return
        event = self._decision(proposal, by, confirms=message.confirms)
        place_reader(event, message.by.auditor)
        current = self.rules
        try:
            self._save(msgspec.structs.replace(current, deciding=proposal.proposal_id))
        except NotDurable as error:
            self.rules = current
            self._send(peer, AppendRefused(message.correlation, "not_durable", str(error)))
            return
        self._deciding.add(proposal.proposal_id)
        self._add(
            peer,
            message.correlation,
            event,
            proposal,
            lambda index: decide(self.rules, proposal, confirms=message.confirms, index=index),
        )

    def _verify_same_clock(self, proposal: Proposal) -> None:
        """Whoever proposed it looked at this very clock. Raises: GovernanceRefused."""
        offset_ms = self._offsets.get(proposal.proposal_id)
        if offset_ms is None or abs(self._voucher.offset_ms - offset_ms) >= SMALLEST_JUMP_MS:
            raise GovernanceRefused("the clock was set since, or the log's process started anew: propose it again")

    def _decision(self, proposal: Proposal, by: Decider, *, confirms: bool) -> Json:
        facts: dict[str, str | int] = {
            "proposal": proposal.proposal_id,
            "proposed_by": proposal.by.subject,
            "reason": proposal.reason,
        }
        if confirms and proposal.kind == "rotation":
            return self._ledger.describe("log_rotation_agreed", facts)
        if confirms and proposal.kind == "time":
            facts |= {"vouched_ms": self._voucher.unvouched_ms, "unvouched_ms": 0}
            return self._ledger.describe("log_time_vouched", facts)
        before: State | None = None
        if proposal.kind == "retention":
            before = {"retention_days": self.rules.retention_days}
        event = change_event(
            _KINDS[proposal.kind] if confirms else "rules_refused",
            entity_type=proposal.kind,
            entity_uid=proposal.hold.hold_id if confirms and proposal.hold else proposal.proposal_id,
            actor=by.subject,
            before=before,
            after=_describe(proposal),
            approvers=(proposal.by.subject, by.subject) if confirms else (),
            reason=proposal.reason,
        )
        if confirms:
            event["unmapped"]["casemate"]["rules"] = decide(self.rules, proposal, confirms=True, index=-1).digest
        return event

    def _add(
        self, peer: Peer, correlation: int, event: Json, proposal: Proposal, change: Callable[[int], Rules]
    ) -> None:
        told = event["unmapped"]["casemate"].get("rules")

        def in_force(index: int) -> None:
            self._deciding.discard(proposal.proposal_id)
            if (kind := event["unmapped"]["casemate"]["kind"]) not in ("rules_proposed", "rules_refused"):
                raise_alert("rules_decided", _describe_decision(kind, proposal, str(event["actor"]["user"]["uid"])))
            if kind == "log_time_vouched":
                self._voucher.vouch()
            self._told = told or self._told
            try:
                rules = msgspec.structs.replace(change(index), deciding="")
                self._save(rules)
            except GovernanceRefused as refused:  # One proposal too many, in the same commit.
                self._refuse(peer, correlation, refused)
                return
            except NotDurable as error:
                # It is recorded, so it holds; but nobody is told that it does who might find it gone after a start.
                self._try_again(error)
                self._changed()
                reason = f"it is recorded, and holds until the next start; its file is tried again: {error}"
                self._send(peer, AppendRefused(correlation, "not_durable", reason))
                return
            self._changed()
            self._send(peer, RulesNow(correlation, msgspec.json.encode(rules), proposal.proposal_id))

        def refused(reason: str) -> None:
            self._deciding.discard(proposal.proposal_id)
            try:
                self._save(msgspec.structs.replace(self.rules, deciding=""))
            except NotDurable as error:
                self._try_again(error)
            self._send(peer, AppendRefused(correlation, "not_durable", reason))

        self._ledger.add_own(event, in_force, refused)

    def look(self) -> None:
        """Write the file that could not be written, where it is time. Raises: StorageFailed."""
        now_s = self._clock.monotonic_s()
        if not self._unsaved or now_s < self._next_try_s:
            return
        try:
            self._save(self.rules)
        except NotDurable as error:
            self._try_again(error)
        else:
            self._unsaved = ""

    def _try_again(self, error: NotDurable) -> None:
        if not self._unsaved:
            log.error("rules_not_kept", reason=f"in force until the next start: {error}")
        self._unsaved = str(error)
        self._next_try_s = self._clock.monotonic_s() + RETRY_INTERVAL_S

    def _keep_first(self) -> None:
        try:
            self._save(self.rules)
        except NotDurable as error:
            self._try_again(error)

    def _save(self, rules: Rules) -> None:
        """Raises: NotDurable; the rules are in force all the same."""
        self.rules = rules
        save_rules(self._path, rules, self._disk)

    def _refuse(self, peer: Peer, correlation: int, refused: GovernanceRefused) -> None:
        self._send(peer, AppendRefused(correlation, "refused", str(refused)))


def _describe_decision(kind: str, proposal: Proposal, confirmed_by: str) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in _describe(proposal).items())
    return f"{kind} ({facts}): proposed by {proposal.by.subject}, confirmed by {confirmed_by}; did both of them do so?"


def _describe(proposal: Proposal) -> State:
    """What is changed, in names and texts."""
    state: dict[str, str | int] = {"proposal": proposal.proposal_id}
    if proposal.retention_days is not None:
        state["retention_days"] = proposal.retention_days
    if (hold := proposal.hold) is not None:
        state |= {"from_day": hold.from_day, "hold": hold.hold_id, "tenant": hold.tenant, "to_day": hold.to_day}
    return state
