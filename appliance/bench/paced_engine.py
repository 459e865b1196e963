"""Stands in the engine's place when the gateway is measured: it answers at a set rate and computes nothing.

    python -m appliance.bench.paced_engine --step-ms 20 engine --control-fd N

It is a process as the engine is one, on the same links, behind the same tickets, and tells the auditor its counts. A request's
first token leaves in the turn in which both it and its ticket are here; all further ones leave in steps, one token of every
request a step, packed as the engine packs them. So what a client waits for its first token is the appliance's doing alone.
"""

import argparse
import array
import itertools
import random
import signal
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

from appliance.config.schema import served_name_of
from appliance.inference.tickets import EarlyTickets, TicketGate
from appliance.logging import configure_logging
from appliance.messages.audit import AppendRefused, CountTokens, Ticket, TicketKey
from appliance.messages.engine import Cancel, EngineStatus, ModelFacts, RequestRefused, StepTokens, Submit
from appliance.processes.polling import Event, LinkEnded, LinkOpened, PolledLink, PollingMember, Received
from appliance.processes.running import run_polling
from runtime.errors import EngineUnavailable, RequestRejected
from runtime.request import Finish, PackedTokens, PromptDelivery, RequestSummary, TokenDelivery
from security.sandbox.launch import Confined
from security.sandbox.platform import assume_platform

log = structlog.get_logger(__name__)

_STATUS_INTERVAL_S = 0.2
_LENGTH = Finish("length")


class _VocabularySize(msgspec.Struct):
    vocab_size: Annotated[int, msgspec.Meta(ge=1)]


@dataclass(slots=True)
class _Open:
    """A request under way: it ends with step number `last_step`."""

    intent_index: int
    prompt_tokens: int
    first_step: int
    last_step: int


@dataclass(eq=False)
class _Worker:
    """A gateway worker's requests."""

    link: PolledLink
    held: dict[int, Submit] = field(default_factory=dict)
    """Requests whose tickets are to come."""
    open: dict[int, _Open] = field(default_factory=dict)
    ends: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Requests by the step that ends them."""


class PacedEngine:
    """Owner of the loop."""

    def __init__(self, member: PollingMember, step_s: float) -> None:
        settings = member.config.engines[member.instance]
        config = (Path(settings.model_path) / "config.json").read_bytes()
        vocab_size = msgspec.json.decode(config, type=_VocabularySize).vocab_size
        self._facts = ModelFacts(served_name_of(settings), vocab_size, 1 << 17, [0], "paced")
        self._member = member
        self._step_s = step_s
        self._gate = TicketGate(self._facts.name, lambda: time.time_ns() // 1_000_000)
        self._early = EarlyTickets()
        self._workers: dict[PolledLink, _Worker] = {}
        self._auditor: PolledLink | None = None
        self._tokens = itertools.cycle(_tokens(vocab_size))
        self._step = 0
        self._next_step_at = time.monotonic()
        self._next_status_at = 0.0

    def run(self) -> None:
        """Answer until drained."""
        self._member.ready(model=self._facts.name, step_ms=f"{1000 * self._step_s:g}")
        while not (self._member.draining and not any(worker.open for worker in self._workers.values())):
            for event in self._member.poll(max(0.0, self._next_step_at - time.monotonic())):
                self._handle(event)
            now = time.monotonic()
            if now >= self._next_step_at:
                self._next_step_at = max(self._next_step_at + self._step_s, now)
                self._step += 1
                for worker in self._workers.values():
                    self._give(worker)
            if now >= self._next_status_at:
                self._next_status_at = now + _STATUS_INTERVAL_S
                self._tell_status()
            self._member.flush()

    def _handle(self, event: Event) -> None:
        match event:
            case Received(link, Submit() as submit):
                self._submit(self._workers[link], submit)
            case Received(link, Cancel() as cancel):
                self._cancel(self._workers[link], cancel)
            case Received(_, Ticket() as ticket):
                self._accept(ticket)
            case Received(_, TicketKey(key)):
                self._gate.set_key(key)
            case Received(_, AppendRefused() as refused):
                log.error("event_refused", code=refused.code, reason=refused.message)
            case LinkOpened(link) if link.peer_role == "gateway":
                self._workers[link] = _Worker(link)
                self._member.send(link, self._facts)
                self._next_status_at = 0.0
            case LinkOpened(link):
                self._auditor = link
            case LinkEnded(link):
                self._workers.pop(link, None)
                if link is self._auditor:
                    self._auditor = None
                    self._gate.set_key(None)
            case _:
                pass

    def _submit(self, worker: _Worker, submit: Submit) -> None:
        ticket = self._early.take(worker.link.peer_instance, submit.request_id)
        if ticket is None:
            worker.held[submit.request_id] = submit
        else:
            self._begin(worker, submit, ticket)

    def _accept(self, ticket: Ticket) -> None:
        for worker in self._workers.values():
            if worker.link.peer_instance == ticket.worker and ticket.request_id in worker.held:
                self._begin(worker, worker.held.pop(ticket.request_id), ticket)
                return
        self._early.put(ticket)

    def _begin(self, worker: _Worker, submit: Submit, ticket: Ticket) -> None:
        """The first token leaves at once; a request for one token is through with it."""
        try:
            self._gate.verify(worker.link.peer_instance, submit, ticket)
        except (RequestRejected, EngineUnavailable) as refused:
            self._member.send(worker.link, RequestRefused(submit.request_id, "bad_ticket", str(refused)))
            return
        prompt_tokens, max_tokens = len(submit.prompt) // 4, submit.sampling.max_tokens
        request = _Open(ticket.index, prompt_tokens, self._step, self._step + max_tokens - 1)
        prompt = PromptDelivery(submit.request_id, prompt_tokens, 0)
        if max_tokens == 1:
            token = TokenDelivery(submit.request_id, 0, [next(self._tokens)], None, _LENGTH)
            summary = self._sum_up(submit.request_id, request, 1)
            self._member.send(worker.link, StepTokens([prompt], [token], [summary]))
            return
        worker.open[submit.request_id] = request
        worker.ends[request.last_step].append(submit.request_id)
        token = TokenDelivery(submit.request_id, 0, [next(self._tokens)])
        self._member.send(worker.link, StepTokens([prompt], [token], []))

    def _give(self, worker: _Worker) -> None:
        """One step: a token of every request, and the ends."""
        if not worker.open:
            return
        ended: list[TokenDelivery] = []
        summaries: list[RequestSummary] = []
        for request_id in worker.ends.pop(self._step, ()):
            request = worker.open.pop(request_id, None)
            if request is not None:
                ended.append(TokenDelivery(request_id, 0, [next(self._tokens)], None, _LENGTH))
                num_tokens = request.last_step - request.first_step + 1
                summaries.append(self._sum_up(request_id, request, num_tokens))
        count = len(worker.open)
        plain = PackedTokens(
            array.array("Q", worker.open).tobytes(),
            bytes(count),
            array.array("I", itertools.islice(self._tokens, count)).tobytes(),
        )
        self._member.send(worker.link, StepTokens([], ended, summaries, plain))

    def _cancel(self, worker: _Worker, cancel: Cancel) -> None:
        """A request whose ticket has not come is withdrawn, whichever way it is cancelled."""
        if worker.held.pop(cancel.request_id, None) is None:
            self._end(worker, cancel.request_id, cancel.keep_tokens)
        else:
            self._member.send(worker.link, RequestRefused(cancel.request_id, "withdrawn", "its worker withdrew it"))

    def _end(self, worker: _Worker, request_id: int, keep_tokens: int | None) -> None:
        request = worker.open.pop(request_id, None)
        if request is None:
            return
        delivered = self._step - request.first_step + 1
        kept = delivered if keep_tokens is None else min(delivered, keep_tokens)
        finish = TokenDelivery(request_id, 0, [], None, Finish("cancelled"))
        self._member.send(worker.link, StepTokens([], [finish], [self._sum_up(request_id, request, kept, delivered)]))

    def _sum_up(self, request_id: int, request: _Open, kept: int, delivered: int | None = None) -> RequestSummary:
        delivered = kept if delivered is None else delivered
        if self._auditor is not None:
            count = CountTokens(request.intent_index, request.prompt_tokens, 0, kept, "finished", delivered)
            self._member.send(self._auditor, count)
        return RequestSummary(request_id, request.prompt_tokens, 0, kept, 0, delivered)

    def _tell_status(self) -> None:
        num_open = sum(len(worker.open) for worker in self._workers.values())
        status = EngineStatus(0, num_open, 0, 1 << 16, 1 << 16, 0, 0, 0, 0, 0, self._gate.is_open)
        for worker in self._workers.values():
            self._member.send(worker.link, status)


def _tokens(vocab_size: int) -> list[int]:
    """Ids from the middle of the vocabulary, where words are."""
    rng = random.Random(0)  # noqa: S311
    return [rng.randrange(vocab_size // 4, vocab_size) for _ in range(4096)]


def main() -> int:
    """Run as the engine's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=20.0)
    parser.add_argument("role", choices=["engine"])
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--confinement", type=Confined.decode)
    arguments = parser.parse_args()
    configure_logging(arguments.role)
    if arguments.confinement is not None:
        assume_platform(arguments.confinement.platform)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=arguments.control_fd)
    control.set_inheritable(False)

    def run(member: PollingMember) -> None:
        PacedEngine(member, arguments.step_ms / 1000).run()

    return run_polling(control, arguments.role, arguments.confinement, lambda: run)


if __name__ == "__main__":
    sys.exit(main())
