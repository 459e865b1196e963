"""`casemate serve`: run the appliance in the foreground until SIGTERM or Ctrl-C."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from appliance.cli.caller import actor
from appliance.cli.progress import Progress
from appliance.cli.refusals import noting_refusal
from appliance.cli.state_lock import hold_state
from appliance.config import Configuration, load_default_configuration
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file, find_notify_socket
from appliance.logging import configure_logging
from appliance.messages.control import ProcessState
from appliance.supervisor.announcements import Announcer
from appliance.supervisor.provision import provision
from appliance.supervisor.supervisor import Supervisor


def add_serve_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`."""
    serve = subparsers.add_parser("serve", help="run the appliance in the foreground", description=__doc__)
    serve.add_argument("--config", help="configuration file (TOML); without one, the demo model on this machine")
    serve.set_defaults(handler=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    configure_logging("supervisor")
    configuration, raw, directory = _read_configuration(find_configuration_file(arguments.config))
    with (
        hold_state(configuration.state_path),
        Progress("starting") as progress,
        Announcer(find_notify_socket()) as announcer,
        noting_refusal(configuration.state_path, raw) as note_ready,
    ):
        provision(configuration)

        def observe(states: list[ProcessState]) -> None:
            progress.say(_words(states))
            announcer.tell_states(states)

        async def on_ready(facts: dict[str, dict[str, str]]) -> None:
            note_ready()
            progress.done()
            print(_banner(configuration, facts), flush=True)
            announcer.tell_ready()

        supervisor = Supervisor(configuration, raw, directory, observe=observe, started_by=actor())
        asyncio.run(_run(supervisor, announcer, on_ready))
    return 0


async def _run(
    supervisor: Supervisor, announcer: Announcer, on_ready: Callable[[dict[str, dict[str, str]]], Awaitable[None]]
) -> None:
    alive = asyncio.create_task(announcer.keep_alive())
    try:
        await supervisor.run(on_ready)
    finally:
        alive.cancel()


def _read_configuration(path: Path | None) -> tuple[Configuration, bytes, Path]:
    if path is None:
        configuration, raw = load_default_configuration()
        return configuration, raw, Path.cwd()
    configuration, raw = load_configuration(path)
    return configuration, raw, path.absolute().parent


def _words(states: list[ProcessState]) -> str:
    waiting = [f"{state.role}/{state.instance}" for state in states if state.state != "ready"]
    return f"waiting for {', '.join(waiting)}" if waiting else "all processes are ready"


def _banner(configuration: Configuration, facts: dict[str, dict[str, str]]) -> str:
    lines = [f"casemate is ready ({configuration.mode} mode)"]
    for process in sorted(facts):
        lines.extend(f"  {process:<12} {name}: {value}" for name, value in facts[process].items())
    lines.append("Stop it with Ctrl-C; open requests finish first.")
    return "\n".join(lines)
