"""What a system can enforce, as it was found (`platform`): the launcher takes it from its plan, and needs nothing that finds it."""

import os
from typing import Any, NamedTuple

from security.sandbox import landlock


class Platform(NamedTuple):
    """What of the sandbox works here."""

    landlock_abi: int
    """0: none."""
    no_empty_network: str
    """Why a process cannot be given an empty network namespace; empty if it can."""
    has_filter: bool
    no_private_root: str
    """Why a process cannot be given a file system of its own; empty if it can."""
    no_own_users: str
    """Why the processes are all one user; empty if each role has its own."""

    def describe_missing(self) -> list[str]:
        """What is not enforced here, each with its consequence; empty if everything is. Users are told apart from this."""
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
        if self.no_private_root:
            missing.append(
                f"no private mounts ({self.no_private_root}): processes share /tmp, /run and /proc with the host, and that "
                "they open nothing there rests on Landlock alone"
            )
        if not self.has_filter:
            missing.append(f"no system call filter ({os.uname().machine}): the kernel's whole surface is open")
        return missing

    def encode(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()
