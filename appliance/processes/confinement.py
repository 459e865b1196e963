"""The second stage of a process's confinement, when its modules are there and before it does anything."""

import structlog

from appliance.errors import StartRefused
from security.sandbox.launch import Confined
from security.sandbox.seccomp import confine_self

log = structlog.get_logger(__name__)


def confine_after_imports(confined: Confined | None) -> None:
    """Put on the system call filter, and say which confinement this process runs under.

    Raises: StartRefused if a step of either stage failed that the platform can do, and the configuration insists.
    """
    if confined is None:
        log.warning("not_confined", reason="confinement.enabled is false")
        return
    applied, failed = list(confined.applied), list(confined.failed)
    if confined.platform.has_filter:
        try:
            confine_self(confined.role, confined.network, uses_gpu=confined.uses_gpu, connects=confined.connects)
            applied.append("system calls")
        except OSError as error:
            failed.append(f"system calls: {error}")
    if failed and confined.strict:
        raise StartRefused(f"confinement failed: {'; '.join(failed)}")
    (log.error if failed else log.info)("confined", applied=applied, failed=failed)
