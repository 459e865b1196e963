"""Who runs a command, by the kernel's word and not by a variable: who logged in, also under sudo; else the process's user.

Asked once, before the command may become somebody else (`security.sandbox.lending`): among users that are lent nobody of the host
has a name.
"""

import functools
import os
import pwd
from pathlib import Path

_NO_LOGIN = 2**32 - 1


@functools.cache
def caller() -> str:
    """Their name, or `uid N`; what it is first is what it stays."""
    uid = _login_uid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def actor() -> str:
    """The same, as the log has it."""
    return f"os:{caller()}"


def _login_uid() -> int:
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        uid = _NO_LOGIN
    return os.geteuid() if uid == _NO_LOGIN else uid
