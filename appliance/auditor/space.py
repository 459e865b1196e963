"""An early warning: the disk of the log has little space left, or few files that can be made, but records are still taken."""

from pathlib import Path

from appliance.auditor.ledger import Clock
from audit.storage import Disk

LOOK_INTERVAL_S = 5.0
BYTES_PER_FILE = 90_000
"""The log makes a file for so many bytes of records, or for more (docs/audit.md, *How much space*)."""
_ENOUGH = 1.1
"""Above the bound by a tenth before it is well again, so that a disk at the bound does not tell every few seconds."""


class SpaceWatch:
    """Asks the file system now and then."""

    def __init__(self, folder: Path, warning_bytes: int, clock: Clock, disk: Disk | None = None) -> None:
        self._folder = folder
        self._warning_bytes = warning_bytes
        self._warning_files = warning_bytes // BYTES_PER_FILE
        self._clock = clock
        self._disk = disk or Disk()
        self._next_look_s = 0.0
        self.free_bytes = -1
        """As last seen; -1 before the first look."""
        self.free_files = -1
        self.is_low = False

    @property
    def words(self) -> str:
        """What is left."""
        return f"the log's disk has {self.free_bytes} bytes left, and {self.free_files} files that can be made"

    def look(self) -> bool:
        """Ask, where it is time. Gives whether space has just become low.

        Raises: StorageFailed.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + LOOK_INTERVAL_S
        self.free_bytes = self._disk.free_bytes(self._folder)
        self.free_files = self._disk.free_files(self._folder)
        was_low, share = self.is_low, _ENOUGH if self.is_low else 1
        self.is_low = self.free_bytes < self._warning_bytes * share or self.free_files < self._warning_files * share
        return self.is_low and not was_low
