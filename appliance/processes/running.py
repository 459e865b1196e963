"""The life of a process of one thread, from its control socket to its exit status."""

import socket
from collections.abc import Callable

import structlog

from appliance.errors import EXIT_MISCONFIGURED
from appliance.messages.control import CannotStart, Role
from appliance.processes.confinement import confine_after_imports
from appliance.processes.memory import release_collector
from appliance.processes.polling import PollingMember, SupervisorGone
from appliance.processes.refusal import START_REFUSALS
from security.sandbox.launch import Confined

EXIT_SUPERVISOR_GONE = 70

log = structlog.get_logger(__name__)


def run_polling(
    control: socket.socket,
    role: Role,
    confined: Confined | None,
    load: Callable[[], Callable[[PollingMember], None]],
) -> int:
    """Run until drained.

    Args:
        load: imports what the process runs; afterwards it is confined for good.
    """
    try:
        member = PollingMember(control, role)
        try:
            serve = load()
            release_collector()
            confine_after_imports(confined)
            serve(member)
        except START_REFUSALS as refusal:
            log.error("cannot_start", reason=str(refusal))
            member.tell(CannotStart(str(refusal)))
            return EXIT_MISCONFIGURED
        finally:
            member.close()
    except SupervisorGone:
        log.error("supervisor_gone")
        return EXIT_SUPERVISOR_GONE
    return 0
