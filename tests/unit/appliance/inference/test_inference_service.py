"""Requests of several workers share one engine and never see each other's tokens; every intent is counted once."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from appliance.errors import MalformedMessage
from appliance.inference.service import RETOLD_S, InferenceService
from appliance.inference.tickets import TicketGate
from appliance.ipc.edges import EdgeCodec
from appliance.ipc.frames import MAX_FRAME_BYTES
from appliance.messages.audit import Ticket
from appliance.messages.engine import Cancel, RequestRefused, Submit
from runtime.errors import EngineUnavailable, QueueFull, RequestRejected
from runtime.request import (
    Finish,
    GenerationRequest,
    PackedTokens,
    PromptDelivery,
    RequestSummary,
    SamplingParams,
    TokenDelivery,
    TokenLogprobs,
)
from tests.support.controls import control
from tests.support.tickets import ticket_for

KEY = bytes(range(32))
NOW_MS = 1_800_000_000_000


class FakePlain:
    """Plain tokens of several workers, as the engine groups them."""

    def __init__(self, *groups: tuple[int, PackedTokens]) -> None:
        self.groups = groups

    def split(self, num_bits: int) -> Iterator[tuple[int, PackedTokens]]:
        assert num_bits == 48
        return iter(self.groups)


@dataclass
class FakeOutput:
    prompts: list[PromptDelivery] = field(default_factory=list)
    plain: FakePlain = field(default_factory=FakePlain)
    tokens: list[TokenDelivery] = field(default_factory=list)
    summaries: list[RequestSummary] = field(default_factory=list)


class FakeEngine:
    """Remembers what it was asked; refuses what it is told to."""

    def __init__(self) -> None:
        self.submitted: list[GenerationRequest] = []
        self.cancelled: list[tuple[int, int | None, int | None]] = []
        self.refusal: Exception | None = None

    def submit(self, request: GenerationRequest) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(request)

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        self.cancelled.append((request_id, choice, keep_tokens))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@dataclass(eq=False)
class Worker:
    """The link to a gateway worker."""

    peer_instance: int


A, B = Worker(0), Worker(1)


@pytest.fixture
def service(engine: FakeEngine) -> InferenceService:
    gate = TicketGate("demo", lambda: NOW_MS)
    gate.set_key(KEY)
    return InferenceService(engine, gate, lambda: 100.0)


def make_submit(request_id: int, *, max_tokens: int = 8, ids: tuple[int, ...] = (1, 2, 3)) -> Submit:
    """A request."""
    prompt = struct.pack(f"<{len(ids)}I", *ids)
    sampling = SamplingParams(max_tokens=max_tokens)
    return Submit(request_id, prompt, sampling, 1, b"tenant", 0, 5000, caches_output=False)


def make_ticket(submit: Submit, index: int, *, worker: int = 0, lifetime_ms: int = 1000) -> Ticket:
    """The ticket that holds for it, up to eight tokens."""
    expires_at_ms = NOW_MS + lifetime_ms
    return ticket_for(submit, key=KEY, index=index, worker=worker, token_limit=8, expires_at_ms=expires_at_ms)


def ask(
    service: InferenceService, worker: Worker, request_id: int, index: int, lifetime_ms: int = 1000
) -> RequestRefused | None:
    """A request whose ticket is there before it; what it is refused with."""
    submit = make_submit(request_id)
    assert service.accept(make_ticket(submit, index, worker=worker.peer_instance, lifetime_ms=lifetime_ms)) == []
    return service.submit(worker, submit)


def test_a_request_reaches_the_engine_as_it_was_asked(service: InferenceService, engine: FakeEngine) -> None:
    """Ids, namespace, deadline and whether output may be cached arrive; the engine's ids are its own."""
    assert ask(service, A, 7, 0) is None
    (request,) = engine.submitted
    assert (list(request.prompt), request.namespace, request.deadline) == ([1, 2, 3], b"tenant", 105.0)
    assert not request.caches_output


def test_equal_ids_of_two_workers_do_not_meet(service: InferenceService, engine: FakeEngine) -> None:
    """Each worker gets its own tokens under its own id."""
    ask(service, A, 7, 0)
    ask(service, B, 7, 1)
    first, second = (request.request_id for request in engine.submitted)
    sorted_output = service.sort_by_worker(
        FakeOutput(tokens=[TokenDelivery(first, 0, [11]), TokenDelivery(second, 0, [22], None, Finish("length"))])
    )
    assert {worker: message.tokens[0].token_ids for worker, message in sorted_output} == {A: [11], B: [22]}
    assert {message.tokens[0].request_id for _, message in sorted_output} == {7}


def test_a_choice_that_fails_is_in_the_log_by_the_index_of_its_intent(
    service: InferenceService, engine: FakeEngine
) -> None:
    """Whoever reads of it there finds the request's records; its neighbours are not named."""
    ask(service, A, 7, 40)
    ask(service, A, 8, 41)
    first, second = (request.request_id for request in engine.submitted)
    broken = TokenDelivery(second, 1, [], None, Finish("error", None, "non_finite_logits"))
    with capture_logs() as lines:
        service.sort_by_worker(FakeOutput(tokens=[TokenDelivery(first, 0, [11], None, Finish("stop", 11)), broken]))
    assert lines == [
        {
            "event": "choice_failed",
            "log_level": "warning",
            "reason": "non_finite_logits",
            "audit_index": 41,
            "choice": 1,
        }
    ]


def test_plain_tokens_go_to_the_worker_whose_number_stands_above_their_ids(
    service: InferenceService, engine: FakeEngine
) -> None:
    """Under its own ids; a group without a living worker goes nowhere."""
    ask(service, A, 7, 0)
    ask(service, B, 7, 1)
    numbers = [request.request_id >> 48 for request in engine.submitted]
    packed = [PackedTokens(struct.pack("<Q", 7), b"\x00", struct.pack("<I", token)) for token in (11, 22, 33)]
    output = FakeOutput(plain=FakePlain((numbers[0], packed[0]), (numbers[1], packed[1]), (9999, packed[2])))
    assert {worker: list(message.plain) for worker, message in service.sort_by_worker(output)} == {
        A: [(7, 0, 11)],
        B: [(7, 0, 22)],
    }
    service.lose_worker(B)
    assert [worker for worker, _ in service.sort_by_worker(output)] == [A]


def test_a_worker_cannot_name_the_requests_of_another() -> None:
    """An id that reaches into the worker's number is no message of the edge at all."""
    codec = EdgeCodec("engine", "gateway")
    for request_id in (1 << 48, -1, (2 << 48) | 7):
        with pytest.raises(MalformedMessage):
            codec.decode(codec.encode(Cancel(request_id)))


def test_number_of_a_lost_worker_is_not_given_again_while_its_requests_are_open(
    service: InferenceService, engine: FakeEngine
) -> None:
    """Their tokens, still on their way, would be another worker's."""
    ask(service, A, 7, 0)
    service.lose_worker(A)
    service._workers._last_number = 0
    ask(service, B, 7, 1)
    lost, taken = (request.request_id for request in engine.submitted)
    assert lost != taken
    output = FakeOutput(tokens=[TokenDelivery(lost, 0, [1]), TokenDelivery(taken, 0, [2])])
    assert [(worker, message.tokens[0].token_ids) for worker, message in service.sort_by_worker(output)] == [(B, [2])]


def test_logprobs_of_many_prompts_leave_in_several_messages(service: InferenceService, engine: FakeEngine) -> None:
    """Each fits into a frame; together they have everything, prompts before tokens before summaries."""
    entry = TokenLogprobs(-1.0 / 3, list(range(1 << 20, (1 << 20) + 20)), [-1.0 / 3] * 20)
    prompts, tokens, summaries = [], [], []
    for number in range(6):
        ask(service, A, number, number)
        engine_id = engine.submitted[-1].request_id
        prompts.append(PromptDelivery(engine_id, 10_000, 0, [None, *[entry] * 10_000]))
        tokens.append(TokenDelivery(engine_id, 0, [5], [entry], Finish("length")))
        summaries.append(RequestSummary(engine_id, 10_000, 0, 1, 0))
    messages = service.sort_by_worker(FakeOutput(prompts, FakePlain(), tokens, summaries))
    codec = EdgeCodec("engine", "gateway")
    sizes = [len(codec.encode(message)) for _, message in messages]
    assert len(sizes) > 1
    assert max(sizes) <= MAX_FRAME_BYTES
    kinds = [
        kind
        for _, message in messages
        for kind, deliveries in (("p", message.prompts), ("t", message.tokens), ("s", message.summaries))
        for _ in deliveries
    ]
    assert "".join(kinds) == "p" * 6 + "t" * 6 + "s" * 6


@control("3.5.4", "IA-2(8)", "SC-3")
def test_a_ticket_is_good_once_and_for_its_own_request_only(service: InferenceService) -> None:
    """Replay, another prompt, more tokens: each is refused and nothing reaches the engine."""
    assert ask(service, A, 1, 5) is None
    replayed, longer = make_submit(2), make_submit(4, max_tokens=9)
    other_prompt, of_another = make_submit(3, ids=(9,)), make_ticket(make_submit(3), 6)
    tickets = [make_ticket(replayed, 5), of_another, make_ticket(longer, 7)]
    for ticket in tickets:
        assert service.accept(ticket) == []
    refusals = [service.submit(A, message) for message in (replayed, other_prompt, longer)]
    assert [refusal.code for refusal in refusals if refusal is not None] == ["bad_ticket"] * 3
    assert service.num_open == 1
    told = service.take_refusals()
    assert told is not None
    assert (told.num_refused, "more" in told.reason) == (3, True)
    assert service.take_refusals() is None


def test_without_an_auditor_nothing_is_taken_and_everything_open_ends(
    service: InferenceService, engine: FakeEngine
) -> None:
    """A captured gateway gains nothing by killing the auditor."""
    ask(service, A, 1, 0)
    service.lose_auditor()
    assert engine.cancelled == [(engine.submitted[0].request_id, None, None)]
    refused = ask(service, A, 2, 1)
    assert refused is not None
    assert refused.code == "engine_unavailable"


def test_what_an_auditor_was_told_just_before_it_was_lost_is_told_to_the_next(engine: FakeEngine) -> None:
    """It may have had no time to make it durable. What is older is in the log."""
    now = [100.0]
    gate = TicketGate("demo", lambda: NOW_MS)
    gate.set_key(KEY)
    service = InferenceService(engine, gate, lambda: now[0])
    for index in (1, 2, 3):
        ask(service, A, index, index)
        summary = RequestSummary(engine.submitted[-1].request_id, 3, 0, 2, 0, 9)
        service.sort_by_worker(FakeOutput(summaries=[summary]))
        if index < 3:
            assert [count.intent_index for count in service.take_counts()] == [index]
        now[0] += 0.4 * RETOLD_S
    service.lose_auditor()
    assert [count.intent_index for count in service.take_counts()] == [2, 3]
    now[0] += RETOLD_S + 1
    service.lose_auditor()
    assert service.take_counts() == []


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (RequestRejected("context_length", "too long", parameter="prompt"), "context_length"),
        (EngineUnavailable("away"), "engine_unavailable"),
        (QueueFull("full"), "queue_full"),
    ],
)
def test_a_refusal_of_the_engine_goes_to_the_worker(
    service: InferenceService, engine: FakeEngine, refusal: Exception, code: str
) -> None:
    """With its code and message, and no entry stays behind."""
    engine.refusal = refusal
    refused = ask(service, A, 1, 0)
    assert refused is not None
    assert (refused.code, refused.message, service.num_open) == (code, str(refusal), 0)


def test_a_lost_workers_requests_end_and_are_still_counted(service: InferenceService, engine: FakeEngine) -> None:
    """The auditor hears the engine's counts though nobody is left to hear the tokens."""
    ask(service, A, 1, 42)
    service.lose_worker(A)
    assert engine.cancelled == [(engine.submitted[0].request_id, None, None)]
    summary = RequestSummary(engine.submitted[0].request_id, 3, 0, 2, 0, 9)
    assert service.sort_by_worker(FakeOutput(summaries=[summary])) == []
    (count,) = service.take_counts()
    assert (count.intent_index, count.output_tokens, count.delivered_tokens) == (42, 2, 9)
    assert count.reason == "gateway_lost"
    assert service.take_counts() == []


def test_cancelling_what_has_ended_is_no_error(service: InferenceService, engine: FakeEngine) -> None:
    """A cancel that crosses the last token finds nothing, and says nothing."""
    ask(service, A, 1, 0)
    service.sort_by_worker(FakeOutput(summaries=[RequestSummary(engine.submitted[0].request_id, 3, 0, 2, 0)]))
    service.cancel(A, Cancel(1))
    service.cancel(B, Cancel(1))
    assert engine.cancelled == []


def test_a_prompt_that_is_not_whole_ids_is_refused(service: InferenceService) -> None:
    """Seven bytes are not token ids, whatever the ticket says."""
    submit = Submit(1, b"\x01\x00\x00\x00\x02\x00\x00", SamplingParams(max_tokens=1), 1, b"", 0, None)
    service.accept(make_ticket(submit, 0))
    refused = service.submit(A, submit)
    assert refused is not None
    assert refused.code == "malformed_prompt"


def test_a_ticket_is_not_good_again_after_the_clock_was_set_back(engine: FakeEngine) -> None:
    """Used, expired, forgotten; then a clock of the day before."""
    now_ms = [NOW_MS]
    gate = TicketGate("demo", lambda: now_ms[0])
    gate.set_key(KEY)
    service = InferenceService(engine, gate, lambda: 0.0)
    assert ask(service, A, 1, 0) is None
    now_ms[0] += 2000
    for number in range(2, 6):
        assert ask(service, A, number, number, 9000) is None
    now_ms[0] -= 86_400_000
    again = ask(service, A, 9, 0)
    assert again is not None
    assert again.code == "bad_ticket"


def test_used_tickets_that_live_on_are_remembered(engine: FakeEngine) -> None:
    """However many come after them, and whatever their lifetimes."""
    gate = TicketGate("demo", lambda: NOW_MS)
    gate.set_key(KEY)
    service = InferenceService(engine, gate, lambda: 0.0)
    for number in range(50):
        assert ask(service, A, number, number, 1000 + 37 * (number % 7)) is None
    for number in range(50):
        refused = ask(service, A, 100 + number, number, 1000 + 37 * (number % 7))
        assert refused is not None
        assert "used before" in refused.message
