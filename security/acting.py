"""Root working in somebody else's folder: as that somebody, so that no link and no journal there leads root elsewhere.

A role's user owns its folder, and can swap any name in it between a check and the opening that follows. A program that opens
files by name, as SQLite does with its journals, is therefore safe there only with no more power over files than the folder's owner.
What stays is CAP_DAC_READ_SEARCH: root's commands work where folders above the state are closed to others, and reading what
the owner could not read gives the owner nothing.

Source: capabilities(7), "Effect of user ID changes on capabilities".
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from security.errors import KeyUnusable
from security.sandbox import kernel
from security.sandbox.privileges import keep_reading_only


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """For the block be the owner of `folder`, or of the nearest one above that is there; nothing changes where we are not root.

    The way to `folder` MUST be of root's folders alone, or of the operator's. One thread only: it is the process that changes.

    Raises: KeyUnusable, where this root cannot be that user.
    """
    owner = _nearest(folder).stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    own_group, own_groups = os.getegid(), os.getgroups()
    try:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        keep_reading_only()
    except OSError as error:
        _be_root(own_group, own_groups)
        raise KeyUnusable(
            f"{folder} belongs to uid {owner.st_uid}, as whom root must act there and cannot be here ({error.strerror}): "
            f"run this as that user"
        ) from None
    try:
        yield
    finally:
        _be_root(own_group, own_groups)


def _be_root(group: int, groups: list[int]) -> None:
    os.seteuid(0)  # What was permitted is effective again with it.
    os.setegid(group)
    os.setgroups(groups)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # It went with the user, and our own /proc/self with it.


def _nearest(folder: Path) -> Path:
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
