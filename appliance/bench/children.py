"""CPU time and memory of our own child processes, from /proc (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of all children of one kind together."""

    cpu_s: float
    pss_bytes: int
    """Proportional set size: what is shared is counted in parts."""


def usage_by_role() -> dict[str, Usage]:
    """What our child processes have used so far, by the role they were started with; `self` is this process."""
    found = {"self": _usage(Path("/proc/self"))}
    for folder in Path("/proc").iterdir():
        role = _role(folder) if folder.name.isdigit() else None
        if role is not None:
            usage, known = _usage(folder), found.get(role, Usage(0.0, 0))
            found[role] = Usage(known.cpu_s + usage.cpu_s, known.pss_bytes + usage.pss_bytes)
    return found


def _role(folder: Path) -> str | None:
    """None for a process that is no child of ours, or ends just now."""
    try:
        if int(_stat(folder)[1]) != os.getpid():
            return None
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return None
    if b"--control-fd" in words:
        return words[words.index(b"--control-fd") - 1].decode()
    return None


def _stat(folder: Path) -> list[str]:
    """The fields behind the process's name, from the state on."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _usage(folder: Path) -> Usage:
    try:
        fields = _stat(folder)
        lines = (folder / "smaps_rollup").read_text().splitlines()
    except OSError:
        return Usage(0.0, 0)
    pss_kb = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, pss_kb << 10)
