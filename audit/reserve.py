"""The reserve: disk space set aside, so that a full disk can still be recorded.

A file of a fixed size beside the log, and a folder of empty ones, as a file system without files left (inodes) is as full as one
without space. When the disk is full both are given up, and what they held is enough for the records that say so. As long as they
cannot be set aside anew, and as much again be left free, the log takes nothing else: on a disk that stays full what was
just given up would otherwise be taken for new space, each second anew.
"""

from contextlib import suppress
from pathlib import Path

from audit.errors import NotDurable
from audit.storage import Disk

NUM_FILES = 256
"""What is durable and not published yet takes two for each 256 records, and some for partial tiles and folders."""


class Reserve:
    """Space held back in one file, and files in a folder."""

    def __init__(self, path: Path, size_bytes: int, disk: Disk | None = None, num_files: int = NUM_FILES) -> None:
        self._path = path
        self._files = path.with_name(f"{path.name}-files")
        self._size_bytes = size_bytes
        self._num_files = num_files
        self._disk = disk or Disk()
        self.is_held = False

    def hold(self) -> None:
        """Set space and files aside; where they are held already nothing happens.

        Raises: NotDurable when there is not enough; StorageFailed.
        """
        if not self.is_held:
            try:
                self._disk.allocate(self._path, self._size_bytes)
                self._disk.make_files(self._files, self._num_files)
            except NotDurable:
                with suppress(NotDurable):
                    self.release()
                raise
            self.is_held = True

    def regain(self) -> None:
        """Set both aside again after they were given up, where as much is left besides.

        Raises: NotDurable when there is not enough; StorageFailed.
        """
        free_bytes = self._disk.free_bytes(self._path.parent)
        if free_bytes < 2 * self._size_bytes:
            raise NotDurable(
                f"{self._path}: {free_bytes} bytes are free, twice the reserve of {self._size_bytes} is asked for"
            )
        free_files = self._disk.free_files(self._path.parent)
        if free_files < 2 * self._num_files:
            raise NotDurable(
                f"{self._path}: {free_files} files can be made, twice the reserve of {self._num_files} is asked for"
            )
        self.hold()

    def release(self) -> None:
        """Give both up.

        Raises: StorageFailed.
        """
        self._disk.remove(self._path)
        if self._files.is_dir():
            self._disk.remove(self._files)
        self.is_held = False
