"""An early warning: the disk of the log has little space left, but records are still taken."""

from pathlib import Path

from appliance.auditor.ledger import Clock
from audit.storage import Disk

LOOK_INTERVAL_S = 5.0
_ENOUGH = 1.1
"""Above the bound by a tenth before it is well again, so that a disk at the bound does not tell every few seconds."""


class SpaceWatch:
    """Asks the file system now and then."""

    def __init__(self, folder: Path, warning_bytes: int, clock: Clock, disk: Disk | None = None) -> None:
        self._folder = folder
        self._warning_bytes = warning_bytes
        self._clock = clock
        self._disk = disk or Disk()
        self._next_look_s = 0.0
        self.free_bytes = -1
        """As last seen; -1 before the first look."""
        self.is_low = False

    def look(self) -> bool:
        """Ask, where it is time. Gives whether space has just become low.

        Raises: StorageFailed.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + LOOK_INTERVAL_S
        self.free_bytes = self._disk.free_bytes(self._folder)
        was_low = self.is_low
        self.is_low = self.free_bytes < self._warning_bytes * (_ENOUGH if was_low else 1)
        return self.is_low and not was_low
