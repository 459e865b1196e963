"""The witnesses' last word, as the auditor sees it: a file beside the log, brought by `casemate audit cosign` or a courier.

At a start it is the one thing that can show the auditor that its own folder went back to an earlier state (a restored backup, a
reverted disk): then it refuses to write, as a second history would begin. While running, it says how old the word is.
"""

from collections.abc import Sequence

from appliance.auditor.ledger import Clock
from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import CosignerKey, parse_cosigner_key, verify_cosignatures
from audit.courier import load_cosigned
from audit.errors import AuditRejected, EntryNotFound, KeyUnusable, MalformedNote, StateMismatch

LOOK_INTERVAL_S = 5.0


def parse_witnesses(texts: Sequence[str]) -> list[CosignerKey]:
    """The keys in `audit.witnesses`.

    Raises: KeyUnusable.
    """
    try:
        return [parse_cosigner_key(text) for text in texts]
    except MalformedNote as error:
        raise KeyUnusable(f"audit.witnesses: {error}") from error


class WitnessWatch:
    """Reads the cosigned checkpoint now and then."""

    def __init__(self, writer: LogWriter, witnesses: Sequence[CosignerKey], max_age_s: int, clock: Clock) -> None:
        self._writer = writer
        self._folder = writer.folder.parent
        self._witnesses = witnesses
        self._max_age_s = max_age_s
        self._clock = clock
        self._started_ms = clock.utc_ms()
        self._next_look_s = 0.0
        self.note = b""
        """The last word that counted, as it is."""
        self.alarm = ""
        """Why nobody else vouches for this history now; empty where somebody does, or nobody is configured."""

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
        if checkpoint.size <= self._writer.checkpoint.size and self._root(checkpoint.size) != checkpoint.root:
            raise StateMismatch(f"{self._folder / 'cosigned'}: a witness has cosigned another history")

    def look(self) -> None:
        """Look how old the last word is, where it is time and witnesses are configured."""
        now_s = self._clock.monotonic_s()
        if not self._witnesses or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_INTERVAL_S
        try:
            _, said_at_ms = self._hear()
        except (EntryNotFound, AuditRejected) as error:
            said_at_ms = self._started_ms
            reason = f": {error}" if isinstance(error, AuditRejected) else ""
        else:
            reason = ""
        age_s = (self._clock.utc_ms() - said_at_ms) // 1000
        self.alarm = f"no witness has cosigned for {age_s} s{reason}" if age_s > self._max_age_s or reason else ""

    def _hear(self) -> tuple[Checkpoint, int]:
        note = load_cosigned(self._folder)
        key = self._writer.key
        checkpoint = verify_checkpoint(note, [key], key.name)
        times = verify_cosignatures(note, self._witnesses)
        if not times:
            raise EntryNotFound("no configured witness has cosigned")
        self.note = note
        return checkpoint, max(times.values()) * 1000

    def _root(self, size: int) -> bytes:
        return self._writer.root_of(size)
