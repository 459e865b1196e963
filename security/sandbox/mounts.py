"""A file system of its own: a process sees what its profile names, read-only but for its folders, and nothing else exists.

    (1) detach a copy of each path of the profile     (2) an empty root in memory, with a place for each
    (3) put them there, read-only unless written, and the links that lead there
    (4) make that the root, and let go of the host's

So the state of the others, `/tmp`, `/run` with its sockets, `/home` are not closed but absent, and `/proc` holds this process and a
few facts about the machine. Landlock goes on top and says the same once more, by another mechanism. A process with a GPU keeps
the whole of `/proc`, as a driver looks around there.

Needs a mount namespace that is ours alone (`namespaces`). Source: pivot_root(2), mount_setattr(2), open_tree and move_mount of
Linux 5.2; mount_setattr is of Linux 5.12.
"""

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from security.sandbox import kernel
from security.sandbox.profiles import Profile

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_FROM_EMPTY_PATH = 0x04
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x4_0000
_ATTRIBUTES = struct.Struct("=QQQQ")
_READ_ONLY, _NO_SETUID = 1, 2
_MNT_DETACH = 2
_STAGE = "/proc"
"""Where the new root stands before it is one: a folder that every system has. Nothing reads below it meanwhile."""
_MAX_LINKS = 40
"""On one way, as the kernel has it: then they go round in circles."""
_EMPTY_FOLDERS = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - made empty, so that what asks for them is told so


def enter_private_root(profile: Profile) -> list[str]:
    """Leave the host's file system for one that holds `profile`. MUST be in a mount namespace of this process alone.

    Descriptors that are open stay what they are.

    Returns: what was done, in words.
    Raises: OSError; the process MUST NOT go on then but to report it, as it may be between two roots.
    """
    written = (*profile.writes, *profile.devices)
    read = (*profile.runs, sys.executable, *profile.reads, *(("/proc",) if profile.uses_gpu else ()))
    replace_root(read, written, (*profile.lists, os.getcwd()))
    return ["a file system of its own"]


def replace_root(read: Iterable[str], written: Iterable[str], empty: Iterable[str] = ()) -> None:
    """Steps (1) to (4). Paths that do not exist are passed over. Raises: OSError."""
    folder, umask = os.getcwd(), os.umask(0o022)  # Whoever this process becomes has to find the way to what is shown.
    kernel.mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    links: dict[str, str] = {}
    access = {_resolve(path, links): False for path in read} | {_resolve(path, links): True for path in written}
    with contextlib.ExitStack() as stack:
        trees: list[tuple[str, int, bool]] = []
        for path, is_written in _without_contained(access):
            with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):  # Nothing to show.
                trees.append((path, _detach(path), is_written))
                stack.callback(os.close, trees[-1][1])
        kernel.mount("casemate", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0755,size=4m")
        for path, tree, is_written in trees:
            if not is_written:
                _set_attributes(tree, "", _READ_ONLY | _NO_SETUID, _AT_EMPTY_PATH | _AT_RECURSIVE)
            _attach(tree, path)
    for link, target in links.items():
        if not os.path.lexists(_STAGE + link):
            os.makedirs(os.path.dirname(_STAGE + link), mode=0o755, exist_ok=True)
            os.symlink(target, _STAGE + link)
    for path in (*empty, *_EMPTY_FOLDERS):
        with contextlib.suppress(OSError):  # Below something that is shown, where it is or is not.
            os.makedirs(_STAGE + _absolute(path), mode=0o755, exist_ok=True)
    if not os.path.lexists(f"{_STAGE}/proc/self"):
        os.symlink(str(os.getpid()), f"{_STAGE}/proc/self")
    _set_attributes(_AT_FDCWD, _STAGE, _READ_ONLY, 0)
    os.chdir(_STAGE)
    kernel.pivot_root(".", ".")
    kernel.unmount(".", _MNT_DETACH)  # The host's root, which lies under the new one now.
    os.chdir(folder if os.path.isdir(folder) else "/")
    os.umask(umask)


def _absolute(path: str) -> str:
    absolute = os.path.abspath(path)
    own = f"/proc/{os.getpid()}"  # "self" is a link that each process sees differently; the number is kept by exec.
    return absolute.replace("/proc/self", own, 1) if absolute.startswith("/proc/self") else absolute


def _resolve(path: str, links: dict[str, str]) -> str:
    """Where a path really leads. Each link on the way is put down with its text: the new root shows links as links."""
    done, rest, num_followed = "/", _absolute(path).split("/"), 0
    while rest:
        name = rest.pop(0)
        step = os.path.normpath(os.path.join(done, name))
        if num_followed < _MAX_LINKS and os.path.islink(step):
            num_followed += 1
            links[step] = text = os.readlink(step)
            done, rest = ("/" if text.startswith("/") else done), [*text.split("/"), *rest]
        else:
            done = step
    return done


def _without_contained(access: dict[str, bool]) -> Iterator[tuple[str, bool]]:
    """Parents before what they contain; without what a parent shows already, with at least the same access."""
    shown: dict[str, bool] = {}
    for path in sorted(access, key=lambda path: PurePosixPath(path).parts):
        above = next((shown[str(parent)] for parent in PurePosixPath(path).parents if str(parent) in shown), None)
        if above is None or (access[path] and not above):
            shown[path] = access[path]
            yield path, access[path]


def _detach(path: str) -> int:
    """A copy of the mounts at and below a path, links followed."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    return kernel.syscall(kernel.OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def _attach(tree: int, path: str) -> None:
    target = _STAGE + path
    if not os.path.lexists(target):
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.makedirs(target, mode=0o755)
        else:
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    kernel.syscall(kernel.MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_FROM_EMPTY_PATH)


def _set_attributes(folder: int, path: str, attributes: int, flags: int) -> None:
    values = _ATTRIBUTES.pack(attributes, 0, 0, 0)
    kernel.syscall(kernel.MOUNT_SETATTR, folder, os.fsencode(path), flags, values, len(values))
