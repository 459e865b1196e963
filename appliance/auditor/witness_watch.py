"""The witnesses' last word, as the auditor sees it: a file beside the log, brought by `casemate audit cosign` or a courier.

At a start it is the one thing that can show the auditor that its own folder went back to an earlier state (a restored backup, a
reverted disk): then it refuses to write, as a second history would begin. While running, it says how old the word is.
"""

from collections.abc import Sequence

from appliance.auditor.ledger import Clock
from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import CosignerKey, find_come, verify_cosignatures
from audit.courier import load_cosigned
from audit.errors import AuditRejected, EntryNotFound, StateMismatch

LOOK_INTERVAL_S = 5.0


class WitnessWatch:
    """Reads the cosigned checkpoint now and then. What fewer than the quorum say does not count."""

    def __init__(
        self, writer: LogWriter, witnesses: Sequence[CosignerKey], max_age_s: int, clock: Clock, quorum: int = 1
    ) -> None:
        self._quorum = quorum
        self._writer = writer
        self._folder = writer.folder.parent
        self._witnesses = witnesses
        self._max_age_s = max_age_s
        self._clock = clock
        self._started_ms = clock.utc_ms()
        self._next_look_s = 0.0
        self.said_at_ms = -1
        """When a quorum gave its last word, by the witnesses' clocks; -1 where there was none."""
        self._is_to_come = False
        """That is a time which has not come."""
        self.cosigned_size = 0
        """How many records the last word covers."""
        self.note = b""
        """The last word that counted, as it is."""
        self.alarm = ""
        """Why nobody else vouches for this history now; empty where somebody does, or nobody is configured."""

    @property
    def age_s(self) -> int:
        """Since the quorum's last word; -1 where there was none of a time that has come."""
        has_none = self.said_at_ms < 0 or self._is_to_come
        return -1 if has_none else max(0, (self._clock.utc_ms() - self.said_at_ms) // 1000)

    def verify_history(self) -> None:
        """Refuse to write a log that is not the one that was cosigned.

        Raises: StateMismatch; LogCorrupted where the tiles cannot be read.
        """
        try:
            checkpoint, _ = self._hear()
        except (EntryNotFound, AuditRejected):
            return  # There is no word yet, or none that counts: `look` says so.
        if checkpoint.size > self._writer.size:
            raise StateMismatch(
                f"{self._folder / 'cosigned'}: a witness has cosigned {checkpoint.size} records, the log has {self._writer.size}: "
                "it went back to an earlier state"
            )
        if self._root(checkpoint.size) != checkpoint.root:
            raise StateMismatch(f"{self._folder / 'cosigned'}: a witness has cosigned another history")

    def look(self) -> None:
        """Look how old the last word is, where it is time and witnesses are configured."""
        now_s = self._clock.monotonic_s()
        if not self._witnesses or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_INTERVAL_S
        reason = ""
        try:
            _, said_at_ms = self._hear()
        except (EntryNotFound, AuditRejected) as error:
            said_at_ms = self._started_ms
            reason = f": {error}" if isinstance(error, AuditRejected) else ""
        else:
            if self._is_to_come:
                said_at_ms, reason = self._started_ms, ": their last word is of a time that has not come"
        age_s = (self._clock.utc_ms() - said_at_ms) // 1000
        self.alarm = f"no witness has cosigned for {age_s} s{reason}" if age_s > self._max_age_s or reason else ""

    def _hear(self) -> tuple[Checkpoint, int]:
        note = load_cosigned(self._folder)
        key = self._writer.key
        checkpoint = verify_checkpoint(note, [key], key.name)
        times = verify_cosignatures(note, self._witnesses)
        if len(times) < self._quorum:
            raise EntryNotFound(f"{len(times)} configured witnesses have cosigned, {self._quorum} are asked for")
        come = find_come(times.values(), self._clock.utc_ms() / 1000)
        self._is_to_come = len(come) < self._quorum
        said_at_ms = (sorted(times.values(), reverse=True) if self._is_to_come else come)[self._quorum - 1] * 1000
        self.note, self.cosigned_size, self.said_at_ms = note, checkpoint.size, said_at_ms
        return checkpoint, said_at_ms

    def _root(self, size: int) -> bytes:
        return self._writer.root_of(size)
