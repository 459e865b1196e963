"""The engine's process: one thread, one loop around `runtime.engine`.

    poll → take requests → step → tokens to the workers, counts to the auditor → poll …

An engine of several ranks is this process and its children (`rank`), which compute what it launches.
`poll` does not wait while there is work. A step that hangs sends no heartbeat, and the supervisor ends the process.
Trust boundary: see `appliance.inference`.
"""

import time
from collections.abc import Callable
from functools import partial

import structlog

from appliance.config.schema import Configuration, served_name_of
from appliance.inference.holding import MAX_HELD_TOKENS, HoldLimits
from appliance.inference.model import LoadedModel, load_model
from appliance.inference.neighbours import Sent
from appliance.inference.rank_facts import describe_ranks
from appliance.inference.service import InferenceService
from appliance.inference.tickets import TicketGate
from appliance.ipc.rank_sockets import take_channel
from appliance.messages.audit import AppendEvent, AppendRefused, Ticket, TicketKey
from appliance.messages.control import CannotStart
from appliance.messages.engine import AbortIntent, Cancel, EngineStatus, FlushCache, Submit
from appliance.models.admission import checks_of, explain_weights, verify_read
from appliance.models.naming import naming_model
from appliance.processes.memory import settle_memory
from appliance.processes.polling import Event, LinkEnded, LinkOpened, PolledLink, PollingMember, Received
from appliance.processes.rank import EXIT_RANK_LOST, RankWatch, assign_ranks
from audit.entry import encode_event
from audit.events import configuration_event
from runtime.engine.loop import Engine
from runtime.errors import CheckpointRejected
from runtime.identifiers import PAGE_SIZE
from runtime.parallel.channel import Channel, RankLost
from runtime.parallel.leading import RanksDisagree
from runtime.settings import EngineSettings
from runtime.weights.shares import Share

log = structlog.get_logger(__name__)

_IDLE_POLL_S = 0.05
_STATUS_INTERVAL_S = 0.2
_HELD_SHARE = 8
"""Prompts that compute before their tickets have come fill at most one in so many pages."""


def serve(member: PollingMember) -> None:
    """Load the model, then run until drained.

    Raises: CheckpointRejected, EngineMisconfigured, StartRefused for what the operator must change.
    """
    settings = member.config.engines[member.instance]
    with naming_model(settings.model_path):
        _serve_ranks(member, settings)


def _serve_ranks(member: PollingMember, settings: EngineSettings) -> None:
    channel = take_channel(Share(0, settings.tp_size), member.control_fd)
    if channel is None:
        _serve(member, _load(member, settings, None, member.heartbeat))
        return
    structlog.contextvars.bind_contextvars(rank=0)
    ranks = RankWatch(channel, lambda reason: member.tell(CannotStart(reason)))

    def advance() -> None:
        member.heartbeat()
        ranks.verify()

    try:
        assign_ranks(channel, member.assignment)
        model = _load(member, settings, channel, advance)
        ranks.started()
        _serve(member, model)
    except (RankLost, RanksDisagree) as fault:
        ranks.refuse_start()
        log.error("ranks_fail", reason=str(fault))
        raise SystemExit(EXIT_RANK_LOST) from fault


def _serve(member: PollingMember, model: LoadedModel) -> None:
    settings, facts = member.config.engines[member.instance], model.facts
    engine = Engine(
        model.all_ranks, settings, facts.eos_token_ids, facts.context_length, time.monotonic, model.grammars
    )
    verify_probe(engine, settings)
    settle_memory()
    EngineProcess(member, engine, model).run()


def verify_probe(engine: Engine, settings: EngineSettings) -> None:
    """That the model computes. Raises: CheckpointRejected where not even its first token is a number."""
    if not engine.probe():
        raise CheckpointRejected(
            f"{settings.model_path}: the model computes logits that are not finite: weights are not, or numbers grow beyond what "
            f"dtype {settings.dtype!r} and kv_cache_dtype {settings.kv_cache_dtype!r} hold here (float16 ends at 65,504)"
        )


def _load(
    member: PollingMember, settings: EngineSettings, channel: Channel | None, advance: Callable[[], None]
) -> LoadedModel:
    """Admit and load the model."""
    checks = checks_of(member.config, settings)
    if checks.admitted is not None:
        log.info(
            "weights_verified_by", model=checks.admitted.name, digests=explain_weights(member.config, checks.admitted)
        )
    return load_model(
        settings,
        served_name_of(settings),
        progress=advance,
        verify=checks.weights,
        on_read=partial(verify_read, checks.admitted),
        verify_head=checks.head,
        channel=channel,
    )


def hold_limits(config: Configuration, instance: int, num_pages: int) -> HoldLimits:
    """What a gateway worker may ask of an engine before its tickets have come."""
    gateway = config.gateway
    return HoldLimits(
        wait_s=gateway.ticket_lifetime_ms / 1000,
        max_requests=config.engines[instance].max_queued_requests,
        max_prompt_tokens=num_pages * PAGE_SIZE // (_HELD_SHARE * gateway.workers),
        max_output_tokens=min(MAX_HELD_TOKENS, gateway.max_unread_tokens // 2),
    )


class EngineProcess:
    """Owner of the loop: links in, one step after the other, links out."""

    def __init__(self, member: PollingMember, engine: Engine, model: LoadedModel) -> None:
        self._member = member
        self._engine = engine
        self._model = model
        self._gate = TicketGate(model.name, lambda: time.time_ns() // 1_000_000)
        limits = hold_limits(member.config, member.instance, model.runner.num_pages)
        self._service = InferenceService(engine, self._gate, time.monotonic, limits)
        self._probe_interval_s = member.config.engines[member.instance].readiness_probe_interval_s
        self._workers: list[PolledLink] = []
        self._auditor: PolledLink | None = None
        self._next_status_at = 0.0
        self._status_at = time.monotonic()
        self._status_busy_s = 0.0

    def run(self) -> None:
        """Serve until the supervisor drains us and nothing is open."""
        facts = self._model.facts
        pages, ranks = str(self._model.runner.num_pages), describe_ranks(facts.ranks)
        self._member.ready(model=facts.name, build=facts.engine_build, pages=pages, ranks=ranks)
        drain_until = float("inf")
        while not (self._member.draining and (self._service.num_open == 0 or time.monotonic() > drain_until)):
            for event in self._member.poll(0.0 if self._engine.has_work else _IDLE_POLL_S):
                self._handle(event)
            self._member.flush()  # What tickets let go does not wait for the next step.
            if self._engine.has_work:
                self._step()
            elif time.monotonic() - self._engine.stats().last_token_at > self._probe_interval_s:
                self._engine.probe()
            self._tell()
            if self._member.draining and drain_until == float("inf"):
                drain_until = time.monotonic() + self._member.drain_timeout_s
        self._record("model_unloaded")
        self._member.flush()

    def _step(self) -> None:
        self._send(self._service.sort_by_worker(self._engine.step()))
        self._member.flush()

    def _send(self, messages: Sent) -> None:
        for worker, message in messages:
            assert isinstance(worker, PolledLink)
            self._member.send(worker, message)

    def _handle(self, event: Event) -> None:
        match event:
            case Received(link, Submit() as message):
                refused = self._service.submit(link, message)
                if refused is not None:
                    self._member.send(link, refused)
            case Received(link, Cancel() as message):
                self._send(self._service.cancel(link, message))
            case Received(_, AbortIntent() as message):
                self._service.abort(message)
            case Received(_, FlushCache()):
                log.info("cache_flushed", pages=self._engine.flush_cache())
            case Received(link, Ticket() as ticket):
                if link is self._auditor:  # Those of the auditor's former life are worth nothing, and nobody's fault.
                    self._send(self._service.accept(ticket))
            case Received(_, TicketKey(key)):
                self._send(self._service.set_key(key))
            case Received(_, AppendRefused() as refused):
                log.error("event_refused", code=refused.code, reason=refused.message)
            case LinkOpened(link):
                self._open(link)
            case LinkEnded(link):
                self._lose(link)
            case _:
                pass

    def _open(self, link: PolledLink) -> None:
        if link.peer_role == "gateway":
            self._workers.append(link)
            self._member.send(link, self._model.facts)
            self._next_status_at = 0.0
            return
        self._auditor = link
        self._record("model_loaded")

    def _record(self, kind: str) -> None:
        """Say what became of the model; without an auditor the process's own start and end are all that is recorded."""
        if self._auditor is not None:
            event = configuration_event(kind, name=self._model.name, digest=self._model.facts.engine_build)
            self._member.send(self._auditor, AppendEvent(0, encode_event(event)))

    def _lose(self, link: PolledLink) -> None:
        if link is self._auditor:
            log.error("auditor_lost", open_requests=self._service.num_open)
            self._auditor = None
            self._send(self._service.lose_auditor())
        elif link in self._workers:
            self._workers.remove(link)
            self._service.lose_worker(link)

    def _tell(self) -> None:
        """Refusals of what waited too long, counts to the auditor, and four times a second our state to the workers."""
        self._send(self._service.expire())
        if self._auditor is not None:
            for count in self._service.take_counts():
                self._member.send(self._auditor, count)
            if (refused := self._service.take_refusals()) is not None:
                log.warning("tickets_refused", num_refused=refused.num_refused, reason=refused.reason)
                self._member.send(self._auditor, refused)
        now = time.monotonic()
        if now < self._next_status_at:
            return
        self._next_status_at = now + _STATUS_INTERVAL_S
        status = self._status(now)
        for worker in self._workers[:]:
            self._member.send(worker, status)

    def _status(self, now: float) -> EngineStatus:
        stats, untold = self._engine.stats(), self._service.untold
        elapsed_s, busy_s = now - self._status_at, stats.busy_s - self._status_busy_s
        self._status_at, self._status_busy_s = now, stats.busy_s
        return EngineStatus(
            last_token_age_ms=int((now - stats.last_token_at) * 1000),
            num_running=stats.num_running,
            num_waiting=stats.num_waiting,
            num_pages=stats.num_pages,
            num_free_pages=stats.num_free_pages,
            num_evictable_pages=stats.num_evictable_pages,
            generated_tokens=stats.generated_tokens - untold.output_tokens,
            prompt_tokens=stats.prompt_tokens - untold.prompt_tokens,
            cached_tokens=stats.cached_tokens - untold.cached_tokens,
            num_retractions=stats.num_retractions,
            has_auditor=self._gate.is_open,
            num_steps=stats.num_steps,
            num_graph_steps=stats.num_graph_steps,
            captured_size=stats.captured_size,
            busy_s=stats.busy_s,
            num_verified=stats.num_verified,
            num_proposed=stats.num_proposed,
            num_accepted=stats.num_accepted,
            num_draft_steps=stats.num_draft_steps,
            draft_prefill_s=stats.draft_prefill_s,
            num_draft_prefill_tokens=stats.num_draft_prefill_tokens,
            num_late_entries=stats.num_late_entries,
            num_lost_entries=stats.num_lost_entries,
            num_awaiting_ticket=self._service.num_held,
            occupancy=min(1.0, busy_s / elapsed_s) if elapsed_s > 0 else 0.0,
        )
