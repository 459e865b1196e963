"""Which workers live, so that what a dead one was making is not waited for.

Each worker that makes something in the background locks a file of its own, named after this life of it, as long as it lives; the
kernel gives the lock back however it ends. So nobody needs to look at a clock, and a worker that only stalls is not taken for dead.
"""

import fcntl
import os
import secrets
from pathlib import Path


class WorkerLives:
    """This worker's life, and what it can see of others'. All of it is short work on files, for the thread that does such."""

    def __init__(self, beside: Path) -> None:
        """`beside`: the file for whose records this is asked; its workers' files lie beside it."""
        self._beside = beside
        self._own = secrets.token_hex(8)
        self._descriptor: int | None = None

    def claim(self) -> str:
        """The name of this life, known to be alive from now on. Files of dead ones are removed. Raises: OSError."""
        while self._descriptor is None:
            descriptor = self._lock(self._own)
            if descriptor is not None:
                self._descriptor = descriptor
                self._bury_dead()
        return self._own

    def is_alive(self, life: str) -> bool:
        """Whether a life, by its name, goes on. Raises: OSError."""
        if life == self._own and self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._path(life), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path(life).unlink(missing_ok=True)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def close(self) -> None:
        """This life ends."""
        if self._descriptor is not None:
            self._path(self._own).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, life: str) -> int | None:
        """Make and lock its file. None if somebody took it for a dead one's in between, and removed it."""
        descriptor = os.open(self._path(life), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.stat(self._path(life)).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
        return None

    def _bury_dead(self) -> None:
        prefix, suffix = f"{self._beside.name}.", ".worker"
        for path in self._beside.parent.glob(f"{prefix}*{suffix}"):
            self.is_alive(path.name.removeprefix(prefix).removesuffix(suffix))

    def _path(self, life: str) -> Path:
        return self._beside.with_name(f"{self._beside.name}.{life}.worker")
