"""What the auditor watches as time passes, and what it makes of it: a record, an alert, an alarm in `/ready`.

| what | record | alert | alarm |
|---|---|---|---|
| the clock was set | `log_clock_jumped` | by more than a day | until the next start, by more than a day |
| little space on the log's disk | `log_space_low` | yes | while it lasts |
| records left out by the rations | `log_rationed`, each minute | no | no |
| no word of a witness for long | no | yes | while it lasts |
| a round of cosigning reached no quorum | `log_quorum_missed`, at most each hour | with the record | until a round reaches it |
| a witness disputes the history | `log_history_disputed` | yes | until the next start |
| counts that differ | `log_reconciled`, each minute in any case | yes | until a minute in which they agree |
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.auditor.alerts import raise_alert
from appliance.auditor.clock_watch import SUSPENDING_JUMP_MS, ClockWatch
from appliance.auditor.cosigning import Dispute
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.quorum_watch import QuorumWatch
from appliance.auditor.rations import Rations
from appliance.auditor.reconciliation import Reconciliation
from appliance.auditor.space import SpaceWatch
from appliance.auditor.vouching import TimeVoucher
from appliance.auditor.witness_watch import WitnessWatch
from audit.cosignature import CosignerKey


@dataclass(frozen=True, slots=True)
class Limits:
    """From the section `[audit]`."""

    space_warning_bytes: int = 0
    strangers_a_minute: int = 120
    tokens_a_minute: int = 600
    witnesses: tuple[CosignerKey, ...] = ()
    witness_max_age_s: int = 86_400
    witness_quorum: int = 1


class Watches:
    """All of them, over one ledger.

    Raises: StateMismatch when a witness has cosigned another or a longer history.
    """

    def __init__(self, ledger: Ledger, clock: Clock, limits: Limits, voucher: TimeVoucher) -> None:
        self._ledger = ledger
        self._voucher = voucher
        self._clock_watch = ClockWatch(clock)
        self._space = SpaceWatch(ledger.writer.folder, limits.space_warning_bytes, clock)
        self._clock_alarm = ""
        self._witness = WitnessWatch(
            ledger.writer, limits.witnesses, limits.witness_max_age_s, clock, limits.witness_quorum
        )
        self._quorum = QuorumWatch(clock)
        self._missing_quorum = ""
        self._disputes: dict[str, str] = {}
        self._witness.verify_history()
        self.rations = Rations(clock, limits.strangers_a_minute, limits.tokens_a_minute)
        self.reconciliation = Reconciliation(clock)

    @property
    def free_bytes(self) -> int:
        """Space on the log's disk, as last seen."""
        return self._space.free_bytes

    @property
    def alarms(self) -> tuple[str, ...]:
        """What a person should look at, in words."""
        space = self._space.words if self._space.is_low else ""
        witnesses = (self._witness.alarm, self._quorum.alarm, *self._disputes.values())
        alarms = (space, self._clock_alarm, self.reconciliation.alarm, *witnesses)
        return tuple(alarm for alarm in alarms if alarm)

    @property
    def cosigned(self) -> bytes:
        """The last checkpoint that witnesses have cosigned; empty where there is none."""
        return self._witness.note

    @property
    def cosigned_size(self) -> int:
        """How many records it covers."""
        return self._witness.cosigned_size

    @property
    def cosigned_age_s(self) -> int:
        """Since then; -1 where no quorum has cosigned."""
        return self._witness.age_s

    @property
    def num_quorums_missed(self) -> int:
        """Rounds of cosigning that reached no quorum, in this life."""
        return self._quorum.num_missed

    def round_ended(self, missing: Sequence[str]) -> None:
        """A round of cosigning ended; without the words that are missing there was no quorum."""
        self._quorum.round_ended(missing)
        if missing:
            self._missing_quorum = ", ".join(missing)

    def dispute(self, dispute: Dispute) -> None:
        """A witness denies this history: told once for each, an alarm until a person has looked and started anew."""
        is_new = dispute.witness not in self._disputes
        self._disputes[dispute.witness] = f"the witness {dispute.witness} disputes this log: {dispute.detail}"
        if is_new:
            facts: dict[str, str | int] = {"witness": dispute.witness}
            self._tell("log_history_disputed", facts, self._disputes[dispute.witness])

    def look(self, num_open: int) -> None:
        """Look at everything that it is time for. With the disk full nothing is recorded, and nothing forgotten.

        Raises: StorageFailed.
        """
        if self._space.look():
            left = {"free_bytes": self._space.free_bytes, "free_files": self._space.free_files}
            self._tell("log_space_low", {**left}, self._space.words)
        self._look_for_witness()
        if not self._ledger.can_append:
            return
        if num_missed := self._quorum.take_untold():
            self._tell_missed(num_missed)
        if jump_ms := self._clock_watch.find_jump():
            self._tell_jump(jump_ms)
        if (left_out := self.rations.close_window()) is not None:
            self._record("log_rationed", left_out)
        if (facts := self.reconciliation.close_minute(num_open)) is not None:
            self._tell_reconciled(facts)

    def _look_for_witness(self) -> None:
        had_alarm = bool(self._witness.alarm)
        self._witness.look()
        if self._witness.said_at_ms >= 0:
            self._voucher.hear(self._witness.said_at_ms)
        if self._witness.alarm and not had_alarm:
            raise_alert("log_not_witnessed", self._witness.alarm)

    def stop(self, num_open: int) -> None:
        """Record what is counted and not told yet."""
        if (facts := self.reconciliation.close_minute(num_open, at_once=True)) is not None:
            self._tell_reconciled(facts)
        if (left_out := self.rations.close_window(at_once=True)) is not None:
            self._record("log_rationed", left_out)

    def _tell_missed(self, num_rounds: int) -> None:
        facts: dict[str, str | int] = {"missing": self._missing_quorum, "num_rounds": num_rounds}
        detail = f"{num_rounds} rounds of cosigning reached no quorum of witnesses: no word of {self._missing_quorum}"
        self._tell("log_quorum_missed", facts, detail)

    def _tell_jump(self, jump_ms: int) -> None:
        detail = f"the clock was set {'forward' if jump_ms > 0 else 'back'} by {abs(jump_ms)} ms"
        if abs(jump_ms) < SUSPENDING_JUMP_MS and not self._clock_watch.is_far_off:
            self._record("log_clock_jumped", {"jump_ms": jump_ms}, detail)
            return
        self._clock_alarm = f"{detail}: installs are suspended until the next start"
        self._tell("log_clock_jumped", {"jump_ms": jump_ms}, self._clock_alarm)

    def _tell_reconciled(self, facts: dict[str, str | int]) -> None:
        facts |= {"unvouched_ms": self._voucher.unvouched_ms}
        if alarm := self.reconciliation.alarm:
            self._tell("log_reconciled", facts, alarm, code="log_counts_differ")
        else:
            self._record("log_reconciled", facts)

    def _tell(self, kind: str, facts: dict[str, str | int], detail: str, code: str = "") -> None:
        raise_alert(code or kind, detail)
        self._record(kind, facts, detail, is_failure=True)

    def _record(self, kind: str, facts: dict[str, str | int], detail: str = "", *, is_failure: bool = False) -> None:
        self._ledger.add_own(self._ledger.describe(kind, facts, detail, is_failure))
