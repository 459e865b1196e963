"""All processes as one thing: start them, watch them, start them again, drain them.

    provision → listen → start all → all ready → (one ends → back-off → start it again)* → SIGTERM → drain → end

What always holds: the listeners are bound before anything starts and stay ours, so a restarting worker loses no client
that has not been accepted; the auditor is the last to end; every start and end of a process is an event in the log.
"""

import asyncio
import hashlib
import itertools
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import structlog

from appliance.auditor.witnesses import parse_witnesses
from appliance.config import Configuration
from appliance.config.child_environment import gpu_environment
from appliance.config.lacks import what_is_lacking
from appliance.config.showing import flatten_settings
from appliance.errors import LinkClosed, MalformedMessage, StartRefused
from appliance.ipc.link import open_link
from appliance.messages.control import (
    Assign,
    Drain,
    GrantListener,
    IssuerKeys,
    ProcessState,
    ProcessStates,
    RenewCertificate,
    Role,
)
from appliance.models.places import open_outbox
from appliance.statement.remembering import recall_configuration, remember_configuration
from appliance.supervisor.backoff import Backoff
from appliance.supervisor.certificates import CertificateWatch
from appliance.supervisor.child import PROGRAM, Child, State
from appliance.supervisor.confinement import confine_command, uid_of
from appliance.supervisor.issuer_files import IssuerFilesWatch
from appliance.supervisor.lifecycle import LifecycleRecorder
from appliance.supervisor.measuring import measure
from appliance.supervisor.notices import NoticeCarrier
from appliance.supervisor.own_life import OwnLife, ending_of
from appliance.supervisor.ownership import has_own_users
from appliance.supervisor.precedence import FOREGROUND, set_niceness, verify_niceness
from appliance.supervisor.rounds import HostRounds
from appliance.supervisor.wiring import Wiring, bind_listener, bind_listeners, make_own_link
from audit.changes import configuration_loaded_event
from audit.entry import Json, encode_event
from audit.event_form import SUPERVISOR
from audit.events import process_event

log = structlog.get_logger(__name__)

_TICK_S = 0.1
_BROADCAST_INTERVAL_S = 1.0
_DRAIN_ORDER: tuple[tuple[Role, ...], ...] = (
    ("gateway", "console"),
    ("authority", "engine", "policy", "compiler", "reader", "courier"),
    ("auditor",),
)
_AFTER_DRAIN_S = 3.0
"""How long a process may take to end after its drain is over, before it is killed."""


class Supervisor:
    """Owner of every process. One per state directory."""

    def __init__(
        self,
        configuration: Configuration,
        raw: bytes,
        directory: Path,
        observe: Callable[[list[ProcessState]], None] = lambda _states: None,
        programs: Mapping[Role, Sequence[str]] = MappingProxyType({}),
        started_by: str = SUPERVISOR,
    ) -> None:
        """
        Args:
            observe: told of all states whenever one changes.
            programs: for roles that something else stands in for, as in measurements: the words after the interpreter.
            started_by: who started the appliance, as the log names them.
        """
        self._configuration = configuration
        self._settings = configuration.supervisor
        self._raw = raw
        self._directory = directory
        self._observe = observe
        self._programs = programs
        self._started_by = started_by
        self._children: dict[tuple[Role, int], Child] = {}
        self._restarts: dict[tuple[Role, int], int] = {}
        self._states: dict[tuple[Role, int], ProcessState] = {}
        self._listeners: dict[Role, list[socket.socket]] = {}
        self._wiring = Wiring()
        self._recorder = LifecycleRecorder()
        self._own_life = OwnLife(configuration.state_path)
        self._keepers: dict[tuple[Role, int], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._log_is_there = asyncio.Event()
        self._refused: StartRefused | None = None
        self._was_ready = False
        self._statement = self._tpm = ""

    async def run(self, on_ready: Callable[[dict[str, dict[str, str]]], Awaitable[None]]) -> None:
        """Run until SIGTERM or SIGINT. `on_ready` is told once what each process said of itself.

        Raises: StartRefused when a process refuses the first start; everything is stopped by then.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        verify_niceness(self._settings.foreground_niceness)
        self._bind_listeners()
        self._measure()
        self._record_configuration()
        self._own_life.begin(self._record_event)
        try:
            for role, instance in self._members():
                self._keepers[role, instance] = loop.create_task(self._keep(role, instance))
            self._spawn(self._watch())
            self._spawn(CertificateWatch(self._configuration, self._renew_certificate, self._record_event).run())
            self._spawn(IssuerFilesWatch(self._configuration, self._tell_gateways, self._record_event).run())
            self._spawn(NoticeCarrier(open_outbox(self._configuration.state_path), self._recorder).run())
            self._spawn(HostRounds(self._configuration, self._recorder, self._stop_for).run())
            await self._until_ready()
            if not self._stopping.is_set():
                self._was_ready = True
                await on_ready({child.name: child.facts for child in self._children.values()})
                await self._stopping.wait()
            await self._drain()
        finally:
            self._end_everything()
        self._own_life.end()
        if self._refused is not None:
            raise self._refused

    def _stop_for(self, reason: str) -> None:
        """Serve no longer: something that must hold does not."""
        log.error("stopping", reason=reason)
        self._refused = StartRefused(reason)
        self._stopping.set()

    def _measure(self) -> None:
        measured = measure(self._configuration, self._raw)
        self._statement, self._tpm = measured.statement, measured.tpm
        self._record_event(measured.event)

    def _members(self) -> list[tuple[Role, int]]:
        """In the order in which they are started: engines, which take longest, first."""
        gateways: list[tuple[Role, int]] = [("gateway", i) for i in range(self._configuration.gateway.workers)]
        engines: list[tuple[Role, int]] = [("engine", i) for i in range(len(self._configuration.engines))]
        witnesses = parse_witnesses(self._configuration.audit.witnesses)
        couriers: list[tuple[Role, int]] = [("courier", 0)] if any(address for _, address in witnesses) else []
        always: list[tuple[Role, int]] = [
            ("auditor", 0),
            ("policy", 0),
            ("authority", 0),
            ("compiler", 0),
            ("reader", 0),
        ]
        consoles: list[tuple[Role, int]] = [("console", 0)] if self._configuration.console.enabled else []
        return [*engines, *always, *couriers, *gateways, *consoles]

    def _bind_listeners(self) -> None:
        gateway, authority = self._configuration.gateway, self._configuration.authority
        self._listeners["gateway"] = bind_listeners(gateway.host, gateway.port, "gateway.port", gateway.workers)
        self._listeners["authority"] = [bind_listener(authority.host, authority.port, "authority.port")]
        administration = self._configuration.administration
        if administration.enabled:
            key = "administration.port"
            self._listeners["policy"] = [bind_listener(administration.host, administration.port, key)]
        console = self._configuration.console
        if console.enabled:
            self._listeners["console"] = [bind_listener(console.host, console.port, "console.port")]

    def _record_configuration(self) -> None:
        lacks = tuple(lack.name for lack in what_is_lacking(self._configuration))
        digest = f"sha256:{hashlib.sha256(self._raw).hexdigest()}"
        settings, state = flatten_settings(self._configuration), self._configuration.state_path
        before = recall_configuration(state)
        event = configuration_loaded_event(
            digest=digest,
            previous_digest=before.digest,
            mode=self._configuration.mode,
            lacks=lacks,
            actor=self._started_by,
            changes=before.changes_to(settings),
        )
        self._recorder.record(encode_event(event), lambda: self._remember(digest, settings))

    def _remember(self, digest: str, settings: Mapping[str, str]) -> None:
        """What was recorded; where that fails, the next start tells the difference to the one before once more."""
        try:
            remember_configuration(self._configuration.state_path, digest, settings)
        except StartRefused as refused:
            log.error("configuration_not_remembered", reason=str(refused))

    def _record_event(self, event: Json, on_recorded: Callable[[], None] | None = None) -> None:
        self._recorder.record(encode_event(event), on_recorded)

    def _on_stop_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("stopping_at_once", reason="a second signal")
            self._end_everything()
        self._stopping.set()

    async def _keep(self, role: Role, instance: int) -> None:
        """Keep one process alive: start, wait for its end, wait out the back-off, again."""
        backoff = Backoff(self._settings)
        if role == "reader":
            await self._log_is_there.wait()  # Its sandbox knows the folders that are there when it starts.
        while not self._stopping.is_set():
            child = await self._start(role, instance)
            child.on_ready = lambda ready: self._note_ready(ready, backoff)
            status = await child.wait()
            self._wiring.remove(child)
            if self._stopping.is_set():
                kind, detail = ending_of(status, _describe_end(status), child.dismissal, child.overdue)
                self._record(child, kind, detail, status)
                return
            self._note_end(child, status)
            await child.ranks_ended()
            await asyncio.sleep(backoff.next_delay_s(time.monotonic()))
            self._restarts[role, instance] = self._restarts.get((role, instance), 0) + 1

    async def _start(self, role: Role, instance: int) -> Child:
        watchdog_s, num_ranks = self._settings.watchdog_timeout_s, 1
        environment: dict[str, str] = {}
        if role == "engine":
            engine = self._configuration.engines[instance]
            watchdog_s, num_ranks = engine.watchdog_timeout_s, engine.tp_size
            if engine.device == "cuda" and (engine.base_gpu_id or num_ranks > 1):
                environment = gpu_environment(engine.base_gpu_id, num_ranks)
        confine = partial(confine_command, self._configuration, role, instance)
        program, uid = self._programs.get(role, PROGRAM), uid_of(self._configuration, role)
        child = Child(
            role, instance, watchdog_s, self._settings.start_timeout_s, confine, program, uid, num_ranks, environment
        )
        child.on_link_lost = self._wiring.renew
        await child.start()
        if role in FOREGROUND and self._settings.foreground_niceness:
            set_niceness(child.pid, self._settings.foreground_niceness)
        self._children[role, instance] = child
        said = {"statement": self._statement, "tpm": self._tpm}
        is_single = not has_own_users(self._configuration)
        child.send(Assign(role, instance, self._raw, str(self._directory), single_user=is_single, **said))
        listeners = self._listeners.get(role, [])
        for number, listener in enumerate(listeners):
            host, port = listener.getsockname()[:2]
            granted = GrantListener(host, port, is_own=number == instance, count=len(listeners))
            child.send(granted, fd=listener.dup().detach())
        self._wiring.add(child)
        self._record(child, "process_restarted" if self._restarts.get((role, instance)) else "process_started")
        if role == "auditor":
            self._spawn(self._attend_auditor(child))
        self._set_state(child, "starting")
        return child

    async def _attend_auditor(self, child: Child) -> None:
        """Hold our own link to the auditor for as long as it lives; the auditor is started again if it refuses it."""
        sock, granted = make_own_link(child)
        try:
            link = await open_link(sock, "supervisor", 0, granted)
        except (LinkClosed, MalformedMessage) as fault:
            log.error("auditor_link_failed", reason=str(fault))
            if child.is_alive and child.state == "ready":
                child.kill()
            return
        await self._recorder.run(link)

    def _note_ready(self, child: Child, backoff: Backoff) -> None:
        backoff.note_ready(time.monotonic())
        self._set_state(child, "ready")
        if child.role == "auditor":
            self._log_is_there.set()

    def _note_end(self, child: Child, status: int) -> None:
        """A process ended that should not have."""
        reason = child.refusal or _describe_end(status)
        if child.hung_s:
            reason = f"killed by the watchdog: its main loop was silent for {child.hung_s:.0f} s"
        log.error("process_ended", child=child.name, reason=reason)
        self._record(child, "process_crashed", reason, status)
        self._set_state(child, "failed" if child.refusal else "restarting")
        if child.refusal is not None and not self._was_ready:
            self._refused = StartRefused(f"{child.name} cannot start: {child.refusal}")
            self._stopping.set()

    def _record(self, child: Child, kind: str, detail: str = "", exit_code: int | None = None) -> None:
        restarts = self._restarts.get((child.role, child.instance), 0)
        event = process_event(
            kind,
            role=child.role,
            instance=child.instance,
            pid=child.pid,
            detail=detail,
            exit_code=exit_code,
            restarts=restarts,
        )
        self._recorder.record(encode_event(event))

    def _set_state(self, child: Child, state: State) -> None:
        key = (child.role, child.instance)
        child.state = state
        self._states[key] = ProcessState(child.role, child.instance, state, self._restarts.get(key, 0))
        self._broadcast()
        self._observe(list(self._states.values()))

    def _broadcast(self) -> None:
        states = ProcessStates(list(self._states.values()))
        for child in self._children.values():
            child.send(states)

    def _renew_certificate(self, message: RenewCertificate) -> None:
        for child in self._children.values():
            if child.is_alive and child.role in self._listeners:
                child.send(message)

    def _tell_gateways(self, message: IssuerKeys) -> None:
        for child in self._children.values():
            if child.is_alive and child.role == "gateway":
                child.send(message)

    async def _watch(self) -> None:
        """Kill what is silent; tell everybody the states once a second, changes or not."""
        next_broadcast = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            for child in self._children.values():
                if child.is_alive and child.is_silent(now):
                    log.error("process_hangs", child=child.name, silent_s=round(now - child.heard_at, 1))
                    child.refusal = None
                    child.hung_s = now - child.heard_at
                    child.heard_at = now
                    child.kill()
            if now >= next_broadcast:
                next_broadcast = now + _BROADCAST_INTERVAL_S
                self._broadcast()

    async def _until_ready(self) -> None:
        while not self._stopping.is_set():
            if len(self._states) == len(self._keepers) and all(s.state == "ready" for s in self._states.values()):
                return
            await asyncio.sleep(0.02)

    async def _drain(self) -> None:
        """Gateways first, so that open requests finish while all they need is there; the auditor last."""
        deadline = time.monotonic() + self._settings.drain_timeout_s
        for roles in _DRAIN_ORDER:
            if roles == ("auditor",):
                self._record_event(self._own_life.stopping())
                await self._recorder.drain(1.0)
            members = [child for child in self._children.values() if child.role in roles]
            for child in members:
                if child.state == "starting":
                    # It serves nobody yet, and may be minutes away from hearing us.
                    child.dismissal = "it was still starting, and was ended at once"
                    child.kill()
                self._set_state(child, "draining")
                child.send(Drain(max(0.0, deadline - time.monotonic())))
            keepers = [self._keepers[child.role, child.instance] for child in members]
            if keepers:
                timeout_s = max(0.0, deadline - time.monotonic()) + _AFTER_DRAIN_S
                _, unfinished = await asyncio.wait(keepers, timeout=timeout_s)
                for child in members:
                    if self._keepers[child.role, child.instance] in unfinished:
                        child.overdue = "killed: it did not drain in time"
                        log.error("process_killed", child=child.name, reason=child.overdue)
                        child.kill()
                if unfinished:
                    await asyncio.wait(unfinished, timeout=_AFTER_DRAIN_S)

    def _end_everything(self) -> None:
        for task in (*self._tasks, *self._keepers.values()):
            task.cancel()
        for child in self._children.values():
            if child.is_alive:
                child.kill()
        for listener in itertools.chain.from_iterable(self._listeners.values()):
            listener.close()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _describe_end(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
