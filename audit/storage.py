"""How the log reaches the disk: every write, sync, rename and removal of the auditor goes through `Disk`.

Two outcomes are told apart, as the caller does different things next. *Full* (ENOSPC, EDQUOT, EFBIG on a write): nothing
of what was asked stays, the caller may try again when there is space: NotDurable. *Anything else*, and any error of a sync at
all: what is on disk is unknown, since the kernel may have dropped the pages it could not write and will say so only once:
StorageFailed, after which the process must end.

The published files are written under another name, synced, renamed, and the folder synced; nobody ever sees half of one.
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.errors import LogInUse, NotDurable, StorageFailed

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
FOLDER_MODE = 0o750
FILE_MODE = 0o640
PRIVATE_MODE = 0o600
FREE_SHARE = 4
UNLIMITED_FILES = 1 << 50
"""What a file system has that does not count them (btrfs)."""
_FILL_BYTES = 1 << 18


class Disk:
    """The operations on files that durability rests on."""

    def open_at(self, path: Path, offset: int) -> int:
        """Open a file for writing from `offset` on."""
        with _told(path, "open"):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            os.lseek(fd, offset, os.SEEK_SET)
            return fd

    def write(self, fd: int, data: bytes, path: Path) -> None:
        """Write all of `data` where the last write ended. After NotDurable a part of it may stand there."""
        with _told(path, "write"):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def sync(self, fd: int, path: Path) -> None:
        """Make the file's data durable. Every error is StorageFailed, a full disk too."""
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise StorageFailed(f"{path}: cannot be synced: {error.strerror}") from error

    def truncate(self, fd: int, size: int, path: Path) -> None:
        """Cut a file off, durably, and write on from there. Needs no space, so every error is StorageFailed."""
        try:
            os.ftruncate(fd, size)
            os.lseek(fd, size, os.SEEK_SET)
        except OSError as error:
            raise StorageFailed(f"{path}: cannot be cut off at {size}: {error.strerror}") from error
        self.sync(fd, path)

    def write_file(self, path: Path, data: bytes, temporary: Path) -> None:
        """Put a whole file in place at once. The caller MUST sync its folder before relying on the name."""
        with _told(temporary, "open"):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            self.write(fd, data, temporary)
            self.sync(fd, temporary)
        finally:
            os.close(fd)
        self.rename(temporary, path)

    def make_private(self, path: Path) -> None:
        """Make an empty file anew that only its owner reads, for `write_file` to write."""
        with _told(path, "make"):
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE))

    def rename(self, path: Path, new_path: Path) -> None:
        """Put a file in place at once. The caller MUST sync the folder before relying on the name."""
        with _told(new_path, "rename"):
            os.rename(path, new_path)

    def make_folder(self, path: Path) -> None:
        """Make a folder with its parents, durably."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with _told(path, "make folder"):
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.sync_folders([path.parent])

    def sync_folders(self, paths: Iterable[Path]) -> None:
        """Make the names in folders durable."""
        for path in sorted(set(paths)):
            with _told(path, "open"):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            except OSError as error:
                raise StorageFailed(f"{path}: cannot be synced: {error.strerror}") from error
            finally:
                os.close(fd)

    def remove(self, path: Path) -> None:
        """Remove a file or folder that nothing needs; not durable, as it does no harm when it is back."""
        with _told(path, "remove"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def allocate(self, path: Path, size: int) -> None:
        """Set space aside in a file that nobody reads.

        Raises: NotDurable when there is not as much.
        """
        with _told(path, "allocate"):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            with _told(path, "allocate"):
                os.posix_fallocate(fd, 0, size)
        except NotDurable:
            os.ftruncate(fd, 0)
            raise
        finally:
            os.close(fd)

    def make_files(self, folder: Path, count: int) -> None:
        """Make a folder of so many empty files, unless they are there.

        Raises: NotDurable when there are not as many.
        """
        self.make_folder(folder)
        for number in range(count):
            path = folder / str(number)
            with _told(path, "open"):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))

    def fill(self, path: Path, size: int) -> None:
        """Make a file of zeroes whose blocks are on the disk, so that overwriting it changes nothing but them.

        Raises: NotDurable when that would leave less than FREE_SHARE times as much.
        """
        if self.free_bytes(path.parent) < FREE_SHARE * size:
            raise NotDurable(f"{path}: fill: less than {FREE_SHARE} times {size} bytes are free")
        self.allocate(path, size)
        self._zero(path, skips_zeroes=False)  # What is only set aside reads as zeroes, and is none.

    def blank(self, path: Path) -> None:
        """Overwrite with zeroes whatever is not zero in a file that was filled once: its blocks stay what they are."""
        self._zero(path, skips_zeroes=True)

    def _zero(self, path: Path, *, skips_zeroes: bool) -> None:
        fd = self.open_at(path, 0)
        try:
            size = os.fstat(fd).st_size
            for start in range(0, size, _FILL_BYTES):
                zeroes = bytes(min(_FILL_BYTES, size - start))
                with _told(path, "read"):
                    if skips_zeroes and os.pread(fd, len(zeroes), start) == zeroes:
                        continue
                    os.lseek(fd, start, os.SEEK_SET)
                self.write(fd, zeroes, path)
                self.sync(fd, path)  # In small steps: a long write in the device's queue would hold up every commit.
        finally:
            os.close(fd)

    def file_bytes(self, path: Path) -> int:
        """How long a file is."""
        with _told(path, "ask for its length"):
            return path.stat().st_size

    def free_bytes(self, folder: Path) -> int:
        """Space that this process could still take."""
        with _told(folder, "ask for its space"):
            state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize

    def free_files(self, folder: Path) -> int:
        """Files that this process could still make: a file system may have no more of them long before it has no space."""
        with _told(folder, "ask for its space"):
            state = os.statvfs(folder)
        return state.f_favail if state.f_files else UNLIMITED_FILES


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NotDurable(f"{path}: {what}: {error.strerror}") from error
        raise StorageFailed(f"{path}: {what}: {error.strerror}") from error


def lock_folder(path: Path) -> int:
    """Take the one writer's lock. It is held until the descriptor is closed or the process ends.

    Raises: LogInUse.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise LogInUse(f"{path}: another process writes here") from error
    return fd


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a file that a stranger may have put there: at most `max_bytes` and one more, and never a pipe, a device or a folder.

    Raises: OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether a writer has the lock now; false where there is no lock to ask."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
