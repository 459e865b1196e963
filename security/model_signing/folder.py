"""A model folder, held open: what lies in it, and its files by name.

Everything is reached from one descriptor, component by component and never through a symbolic link, so that what was listed
and what is opened lie in the same folder whatever is renamed meanwhile. The folder's own path may lead through links: it is
followed once.

Hard links are taken: a digest covers bytes, not names, and a file that is changed through another name no longer matches.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from security.errors import ModelFolderRejected
from security.model_signing.names import MAX_FILES, problem_of_name, show_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A regular file as it was found."""

    name: str
    size_bytes: int
    device: int
    inode: int


class ModelFolder:
    """An open folder; a context manager that closes it."""

    def __init__(self, path: Path, *, max_files: int | None = None) -> None:
        """Open it; listing ends at `max_files` files and folders (default: MAX_FILES).

        Raises: ModelFolderRejected if there is no such folder.
        """
        self.path = path
        self._max_files = MAX_FILES if max_files is None else max_files
        try:
            self._descriptor = os.open(path, _DIRECTORY)
        except (OSError, ValueError) as error:
            raise ModelFolderRejected(f"{path}: not a folder that can be opened: {_reason(error)}") from None

    def __enter__(self) -> "ModelFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def list_files(self, *, excluded: Collection[str] = ()) -> tuple[ListedFile, ...]:
        """All files, subfolders included, sorted by name; empty subfolders do not count.

        Args:
            excluded: names at the top that are passed over, with all that is in them.
        Raises: ModelFolderRejected for links, special files, names that cannot be signed, and too many files.
        """
        files: list[ListedFile] = []
        num_entries = 0
        pending = [""]
        while pending:
            prefix = pending.pop()
            for name, status in self._scan(prefix, self._max_files - num_entries):
                if name in excluded:
                    continue
                num_entries += 1
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{name}/")
                else:
                    files.append(ListedFile(name, status.st_size, status.st_dev, status.st_ino))
        return tuple(sorted(files, key=lambda file: file.name))

    def find(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of some names at the top that are there, whatever they are."""
        present = []
        for name in names:
            with contextlib.suppress(OSError):
                os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                present.append(name)
        return tuple(present)

    def _scan(self, prefix: str, most: int) -> list[tuple[str, os.stat_result]]:
        """Files and folders of one folder, at most so many."""
        found: list[tuple[str, os.stat_result]] = []
        descriptor = self._open(prefix.rstrip("/"), _DIRECTORY | os.O_NOFOLLOW) if prefix else os.dup(self._descriptor)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if len(found) >= most:
                        raise ModelFolderRejected(f"{self.path}: holds more than {self._max_files} files and folders")
                    if problem := problem_of_name(name):
                        raise ModelFolderRejected(f"{show_name(name)}: name cannot be signed: {problem}")
                    found.append((name, entry.stat(follow_symlinks=False)))
                    _verify_kind(*found[-1])
        except OSError as error:
            raise ModelFolderRejected(f"{show_name(prefix) or self.path}: cannot be listed: {_reason(error)}") from None
        finally:
            os.close(descriptor)
        return found

    def open_file(self, name: str) -> int:
        """A descriptor of a regular file, which the caller closes.

        Raises: ModelFolderRejected if it is missing, cannot be read or is not a regular file.
        """
        descriptor = self._open(name, _FILE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ModelFolderRejected(f"{show_name(name)}: not a regular file")
        return descriptor

    def _open(self, name: str, flags: int) -> int:
        """Open by name, refusing links in every component."""
        *folders, last = name.split("/")
        parent = self._descriptor
        try:
            for component in folders:
                below = os.open(component, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                if parent != self._descriptor:
                    os.close(parent)
                parent = below
            return os.open(last, flags, dir_fd=parent)
        except (OSError, ValueError) as error:
            raise ModelFolderRejected(f"{show_name(name)}: cannot be opened: {_reason(error)}") from None
        finally:
            if parent != self._descriptor:
                os.close(parent)


def _verify_kind(name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise ModelFolderRejected(f"{show_name(name)}: a symbolic link; a model folder holds only regular files")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ModelFolderRejected(
            f"{show_name(name)}: a device, pipe or socket; a model folder holds only regular files"
        )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
