"""The reserve: disk space set aside, so that a full disk can still be recorded.

A file of a fixed size beside the log. When the disk is full it is given up, and what it held is enough for the records that
say so. As long as it cannot be set aside anew, and as much again be left free, the log takes nothing else: on a disk that stays
full the space just given up would otherwise be taken for new space, each second anew.
"""

from contextlib import suppress
from pathlib import Path

from audit.errors import NotDurable
from audit.storage import Disk


class Reserve:
    """Space held back in one file."""

    def __init__(self, path: Path, size_bytes: int, disk: Disk | None = None) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._disk = disk or Disk()
        self.is_held = False

    def hold(self) -> None:
        """Set the space aside; where it is held already nothing happens.

        Raises: NotDurable when there is not enough; StorageFailed.
        """
        if not self.is_held:
            try:
                self._disk.allocate(self._path, self._size_bytes)
            except NotDurable:
                with suppress(NotDurable):
                    self._disk.remove(self._path)
                raise
            self.is_held = True

    def regain(self) -> None:
        """Set the space aside again after it was given up, where as much is left besides.

        Raises: NotDurable when there is not enough; StorageFailed.
        """
        free_bytes = self._disk.free_bytes(self._path.parent)
        if free_bytes < 2 * self._size_bytes:
            raise NotDurable(
                f"{self._path}: {free_bytes} bytes are free, twice the reserve of {self._size_bytes} is asked for"
            )
        self.hold()

    def release(self) -> None:
        """Give the space up.

        Raises: StorageFailed.
        """
        self._disk.remove(self._path)
        self.is_held = False
