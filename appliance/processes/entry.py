"""The life of a process of any role: from its arguments to its exit status."""

import argparse
import asyncio
import importlib
import signal
import socket
from collections.abc import Callable

import structlog

from appliance.errors import EXIT_MISCONFIGURED
from appliance.logging import configure_logging
from appliance.messages.control import CannotStart, Role
from appliance.processes.confinement import confine_after_imports
from appliance.processes.member import Member
from appliance.processes.memory import release_collector
from appliance.processes.niceness import step_back
from appliance.processes.polling import PollingMember
from appliance.processes.refusal import START_REFUSALS
from appliance.processes.running import EXIT_SUPERVISOR_GONE, run_polling
from security.sandbox.launch import Confined
from security.sandbox.platform import assume_platform

_POLLING: tuple[Role, ...] = ("engine", "auditor")
_ASYNCIO: tuple[Role, ...] = ("gateway", "policy", "authority", "compiler", "reader", "courier", "console")
_BACKGROUND: tuple[Role, ...] = ("reader", "courier", "console")
"""No request waits for them."""

log = structlog.get_logger(__name__)


def run() -> int:
    """Run one process until it is drained, cannot go on, or its supervisor is gone; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m appliance.processes")
    parser.add_argument("role", choices=(*_POLLING, *_ASYNCIO))
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--confinement", type=Confined.decode, help="what the launcher applied")
    parser.add_argument("--rank", type=parse_rank, default=(0, 1), help="RANK/RANKS of an engine that has several")
    arguments = parser.parse_args()
    configure_logging(arguments.role)
    if arguments.role in _BACKGROUND:
        step_back()  # Before the system call filter, which allows it no more.
    if arguments.confinement is not None:
        assume_platform(arguments.confinement.platform)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.rank[0]:
        return _run_rank(arguments.rank, arguments.control_fd, arguments.confinement)
    control = socket.socket(fileno=arguments.control_fd)
    control.set_inheritable(False)
    if arguments.role in _POLLING:
        module = f"appliance.processes.{arguments.role}"
        return run_polling(control, arguments.role, arguments.confinement, lambda: load_serve(module))
    with asyncio.Runner(loop_factory=_loop_factory(arguments.role)) as runner:
        return runner.run(_run_asyncio(control, arguments.role, arguments.confinement))


def parse_rank(text: str) -> tuple[int, int]:
    """As `appliance.processes.ranks` writes it: which, of how many."""
    rank, size = map(int, text.split("/"))
    return rank, size


def _run_rank(place: tuple[int, int], control_fd: int, confined: Confined | None) -> int:
    """A rank that is not the first, which has no supervisor but that one: it ends with it, when that has drained."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run_rank = importlib.import_module("appliance.processes.rank").run_rank
    status: int = run_rank(*place, control_fd, confined)
    return status


def _loop_factory(role: Role) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where requests pass: it takes 15 to 25 % less of a core for each than asyncio's own loop, most of it in TLS.

    Pinned below 0.23, whose libuv waits by io_uring whatever the environment says; our system call filter ends such a process.
    """
    if role not in ("gateway", "policy"):
        return None
    import uvloop

    return uvloop.new_event_loop


def load_serve(module: str) -> Callable[[PollingMember], None]:
    """Import a process's module, which may take a while."""
    serve: Callable[[PollingMember], None] = importlib.import_module(module).serve
    return serve


async def _run_asyncio(control: socket.socket, role: Role, confined: Confined | None) -> int:
    member = Member(control, role)
    gone = asyncio.ensure_future(member.supervisor_gone.wait())
    serving = asyncio.ensure_future(_serve(member, confined))
    try:
        await asyncio.wait({gone, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            return serving.result()
        log.error("supervisor_gone")
        serving.cancel()
        await asyncio.wait({serving}, timeout=2.0)
        return EXIT_SUPERVISOR_GONE
    finally:
        gone.cancel()
        member.close()


async def _serve(member: Member, confined: Confined | None) -> int:
    try:
        await member.assigned()
        process = importlib.import_module(f"appliance.processes.{member.role}")
        release_collector()
        confine_after_imports(confined)
        await process.serve(member)
    except START_REFUSALS as refusal:
        log.error("cannot_start", reason=str(refusal))
        member.refuse(CannotStart(str(refusal)))
        return EXIT_MISCONFIGURED
    return 0
