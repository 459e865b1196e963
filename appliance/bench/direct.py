"""The stand-in engine spoken to directly over its socket: what a request waits for with nothing around the engine.

This process plays supervisor, auditor and gateway at once. It mints the tickets itself and records nothing, so what is left is
the engine's loop, one Unix socket and the load itself. The difference to the whole appliance is what the appliance adds.
"""

import hashlib
import itertools
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import msgspec

from appliance.bench.connection import Answer
from appliance.bench.workloads import Planned
from appliance.config import served_name_of
from appliance.config.schema import Configuration
from appliance.errors import CommandFailed
from appliance.gateway.flow.request import encode_prompt
from appliance.ipc.edges import ControlCodec, EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.ipc.introduction import introduce, make_link_pair, verify_introduction
from appliance.messages.audit import Ticket, TicketKey
from appliance.messages.control import Assign, Drain, GrantLink, ProcessToSupervisor, Role
from appliance.messages.engine import ModelFacts, RequestRefused, StepTokens, Submit
from audit.ticket import mint_ticket, new_ticket_key
from runtime.request import SamplingParams

_LIFETIME_MS = 600_000
_TICKETS_AHEAD = 64
_QUIET_S = 10.0
"""An engine that is silent for so long has failed."""


class DirectEngine:
    """One engine process, ready when the constructor returns.

    Args:
        program: what stands in the engine's place, after the interpreter's name.
    Raises: CommandFailed.
    """

    def __init__(self, program: Sequence[str], configuration: Configuration, raw: bytes) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, *program, "engine", "--control-fd", str(theirs.fileno())]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL
        )
        theirs.close()
        self._control = FramedSocket(ours, ControlCodec(ProcessToSupervisor))
        self._tell(Assign("engine", 0, raw, str(configuration.state_path.parent), single_user=True))
        self._key = new_ticket_key()
        self._model = served_name_of(configuration.engines[0])
        self._auditor = self._connect("auditor")
        self._auditor.queue(TicketKey(self._key))
        self._auditor.flush()
        self._link = self._connect("gateway")
        while not any(isinstance(message, ModelFacts) for message in self._receive(_QUIET_S)):
            pass

    def run(self, plan: Sequence[Planned], due_s: Sequence[float]) -> list[Answer]:
        """Send each request at its time, seconds from now, and wait for every answer; in the order of sending.

        Raises: CommandFailed when the engine refuses one, or is silent for long.
        """
        submits = [self._submit(number, planned) for number, planned in enumerate(plan)]
        tickets = iter([self._ticket(submit) for submit in submits])
        self._send_tickets(tickets, _TICKETS_AHEAD)
        answers: list[Answer] = []
        num_open = 0
        began = time.perf_counter()
        while num_open or len(answers) < len(plan):
            now = time.perf_counter()
            num_new = 0
            while len(answers) < len(plan) and began + due_s[len(answers)] <= now:
                self._link.queue(submits[len(answers)])
                answers.append(Answer(began + due_s[len(answers)]))
                num_open += 1
                num_new += 1
            self._link.flush()
            self._send_tickets(tickets, num_new)
            next_s = began + due_s[len(answers)] - time.perf_counter() if len(answers) < len(plan) else _QUIET_S
            for message in self._receive(min(max(0.0, next_s), _QUIET_S)):
                num_open -= _take(message, answers)
        return answers

    def close(self) -> None:
        """End the process."""
        self._tell(Drain(1.0))
        self._link.close()
        self._auditor.close()
        try:
            self._process.wait(timeout=_QUIET_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()

    def _submit(self, number: int, planned: Planned) -> Submit:
        prompt, limit = encode_prompt(planned.prompt), planned.output_tokens
        return Submit(number, prompt, SamplingParams(max_tokens=limit), 1, b"", 0, _LIFETIME_MS)

    def _ticket(self, submit: Submit) -> Ticket:
        limit = submit.sampling.max_tokens
        expires_at_ms = time.time_ns() // 1_000_000 + _LIFETIME_MS
        mac = mint_ticket(
            self._key,
            worker=0,
            request_id=submit.request_id,
            index=submit.request_id,
            model=self._model,
            prompt_digest=hashlib.sha256(submit.prompt).digest(),
            token_limit=limit,
            expires_at_ms=expires_at_ms,
        )
        return Ticket(0, submit.request_id, submit.request_id, self._model, limit, expires_at_ms, mac)

    def _send_tickets(self, tickets: Iterator[Ticket], count: int) -> None:
        """Tickets go ahead of their requests, so that these wait for nothing but the engine."""
        for ticket in itertools.islice(tickets, count):
            self._auditor.queue(ticket)
        self._auditor.flush()

    def _connect(self, role: Role) -> FramedSocket:
        ours, theirs = make_link_pair()
        self._tell(GrantLink(role, 0, os.getpid(), os.getuid()), theirs.detach())
        introduce(ours, role, 0)
        select.select([ours], [], [], _QUIET_S)
        verify_introduction(ours, GrantLink("engine", 0, self._process.pid, os.getuid()))
        return FramedSocket(ours, EdgeCodec(role, "engine"))

    def _receive(self, wait_s: float) -> list[StepTokens | RequestRefused | ModelFacts]:
        """What came on the gateway's link; of the others everything is read and passed over."""
        sockets = [self._link.sock, self._auditor.sock, self._control.sock]
        ready, _, _ = select.select(sockets, [], [], wait_s)
        if not ready and wait_s >= _QUIET_S:
            raise CommandFailed(f"the engine's stand-in was silent for {wait_s:g} s")
        found: list[StepTokens | RequestRefused | ModelFacts] = []
        for framed in (self._link, self._auditor, self._control):
            if framed.sock in ready:
                messages, ended = framed.receive()
                if ended:
                    raise CommandFailed("the engine's stand-in ended")
                found += messages if framed is self._link else []
        return found

    def _tell(self, message: msgspec.Struct, fd: int | None = None) -> None:
        self._control.queue(message, fd)
        self._control.flush()


def _take(message: StepTokens | RequestRefused | ModelFacts, answers: list[Answer]) -> int:
    """Note the tokens of one message; how many requests ended with it."""
    now = time.perf_counter()
    if isinstance(message, RequestRefused):
        raise CommandFailed(f"the engine's stand-in refused a request: {message.message}")
    if not isinstance(message, StepTokens):
        return 0
    for request_id, _choice, _token in message.plain:
        answers[request_id].arrivals.append(now)
    for delivery in message.tokens:
        answers[delivery.request_id].arrivals.append(now)
    for summary in message.summaries:
        answers[summary.request_id].output_tokens = summary.output_tokens
    return len(message.summaries)
