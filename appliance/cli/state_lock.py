"""The lock of a state folder: its holder is the one appliance, or the one command, that owns everything in there.

`lock` in the folder is locked by flock, which ends with the process, however that ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import StartRefused


@contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold the state directory, which is made if it is not there; no child inherits the lock.

    Raises: StartRefused while another holds it, or where it cannot be used.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open(state / "lock", "wb")  # noqa: SIM115  (closed below, as is what cannot be locked)
    except OSError as error:
        raise StartRefused(f"state_dir: {state} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartRefused(f"state_dir: another casemate runs on {state}; stop it first") from error
        os.set_inheritable(lock.fileno(), False)
        yield
