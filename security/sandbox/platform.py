"""What this system can enforce, and what follows where it cannot.

Probed once, by a process that is not confined yet; a confined one could not try any more, and is told by its launcher.
"""

import platform as machine
from typing import Any, NamedTuple

from security.sandbox import landlock, namespaces, seccomp


class Platform(NamedTuple):
    """What of the sandbox works here."""

    landlock_abi: int
    """0: none."""
    no_empty_network: str
    """Why a process cannot be given an empty network namespace; empty if it can."""
    has_filter: bool

    def describe_missing(self) -> list[str]:
        """What is not enforced here, each with its consequence; empty if everything is."""
        missing = []
        if self.landlock_abi == 0:
            missing.append(
                "no Landlock: a captured process can open every file of its user, the keys of others included"
            )
        elif self.landlock_abi < landlock.ABI_REFER:
            missing.append("Landlock ABI 1: processes that write are not confined to their folders")
        if self.landlock_abi < landlock.ABI_NETWORK:
            missing.append(
                f"Landlock ABI {self.landlock_abi}, rules for TCP need 4: the gateway can connect to any address"
            )
        if self.no_empty_network:
            missing.append(
                f"no network namespaces ({self.no_empty_network}): that engine, auditor and policy have no network "
                "rests on their system call filter alone"
            )
        if not self.has_filter:
            missing.append(f"no system call filter ({machine.machine()}): the kernel's whole surface is open")
        return missing

    def encode(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()


_known: list[Platform] = []


def probe_platform() -> Platform:
    """Find out, at most once in a process; costs a fork and a network namespace."""
    if not _known:
        _known.append(Platform(landlock.probe_abi(), namespaces.probe_empty_network(), seccomp.is_supported()))
    return _known[0]


def assume_platform(platform: Platform) -> None:
    """Take what was probed before this process was confined."""
    _known[:] = [platform]
