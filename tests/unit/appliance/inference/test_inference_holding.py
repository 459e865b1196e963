"""Before its ticket a request may compute, and nothing of it leaves: with the real scheduler, over pages of token ids.

`PagedTextRunner` and its oracle are those of the engine's own tests: a text that was held, or computed twice, is the same text.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import pytest

from appliance.inference.holding import MAX_COMPUTING, HoldLimits
from appliance.inference.service import InferenceService
from appliance.inference.tickets import MAX_EARLY_TICKETS, TicketGate
from appliance.messages.audit import CountTokens, Ticket
from appliance.messages.engine import AbortIntent, Cancel, RequestRefused, StepTokens, Submit
from runtime.engine.loop import Engine
from runtime.request import Finish, GenerationRequest, PromptDelivery, RequestSummary, SamplingParams
from runtime.settings import EngineSettings
from tests.support.controls import control
from tests.support.tickets import ticket_for
from tests.unit.runtime.engine.paged_text import EOS, CycleGrammars, PagedTextRunner, expected_text

KEY = bytes(range(32))
LIMITS = HoldLimits(wait_s=60.0, max_requests=8, max_prompt_tokens=200, max_output_tokens=24)
PROMPT = (3, 5, 7, 9, 11, 13)


@dataclass(eq=False)
class Worker:
    """The link to a gateway worker, and what was sent over it."""

    peer_instance: int = 0
    tokens: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """By request and choice."""
    finishes: dict[tuple[int, int], Finish] = field(default_factory=dict)
    prompts: list[PromptDelivery] = field(default_factory=list)
    summaries: list[RequestSummary] = field(default_factory=list)
    refusals: list[RequestRefused] = field(default_factory=list)

    def take(self, message: StepTokens | RequestRefused) -> None:
        """Keep account, in the order in which a gateway reads a message."""
        if isinstance(message, RequestRefused):
            self.refusals.append(message)
            return
        self.prompts += message.prompts
        for request_id, choice, token in message.plain:
            assert self.tokens[request_id, choice], "an answer begins with a plain token"
            self.tokens[request_id, choice].append(token)
        for delivery in message.tokens:
            key = (delivery.request_id, delivery.choice)
            assert key not in self.finishes, "a delivery after the end"
            self.tokens.setdefault(key, []).extend(delivery.token_ids)
            if delivery.finish is not None:
                self.finishes[key] = delivery.finish
        self.summaries += message.summaries

    @property
    def was_told_nothing(self) -> bool:
        """No word of any kind."""
        return not (self.tokens or self.finishes or self.prompts or self.summaries or self.refusals)


class House:
    """An engine with its tickets and a clock, as the process joins them."""

    def __init__(self, limits: HoldLimits = LIMITS, num_pages: int = 64, **settings: object) -> None:
        self.now = 100.0
        engine_settings = EngineSettings(
            **{"model_path": "none", "chunked_prefill_size": 16, "max_running_requests": 8, **settings}  # type: ignore[arg-type]
        )
        runner = PagedTextRunner(num_pages)
        self.engine = Engine(runner, engine_settings, [EOS], 128, lambda: self.now, CycleGrammars())
        self.gate = TicketGate("demo", lambda: round(self.now * 1000))
        self.gate.set_key(KEY)
        self.service = InferenceService(self.engine, self.gate, lambda: self.now, limits)
        self.counts: list[CountTokens] = []

    def send(self, messages: Iterable[tuple[object, StepTokens | RequestRefused]]) -> None:
        for worker, message in messages:
            assert isinstance(worker, Worker)
            worker.take(message)

    def submit(self, worker: Worker, submit: Submit) -> None:
        refused = self.service.submit(worker, submit)
        if refused is not None:
            worker.take(refused)

    def accept(self, ticket: Ticket) -> None:
        self.send(self.service.accept(ticket))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            if self.engine.has_work:
                self.send(self.service.sort_by_worker(self.engine.step()))
                self.engine.check_integrity()
            self.send(self.service.expire())
        self.counts += self.service.take_counts()

    def drain(self) -> None:
        """Step until the engine has nothing left; all pages are back then."""
        for _ in range(1000):
            if not self.engine.has_work:
                break
            self.step()
        self.step()
        stats = self.engine.stats()
        assert not self.engine.has_work
        assert stats.num_free_pages + stats.num_evictable_pages == stats.num_pages

    @property
    def told_counts(self) -> tuple[int, int, int]:
        """Prompt, cached and generated tokens, as the engine's status tells them."""
        stats, untold = self.engine.stats(), self.service.untold
        return (
            stats.prompt_tokens - untold.prompt_tokens,
            stats.cached_tokens - untold.cached_tokens,
            stats.generated_tokens - untold.output_tokens,
        )


@pytest.fixture
def house() -> House:
    return House()


def make_submit(request_id: int = 7, prompt: tuple[int, ...] = PROMPT, n: int = 1, **sampling: object) -> Submit:
    """A request of twelve tokens, unless told otherwise."""
    params = SamplingParams(**{"max_tokens": 12, "ignore_eos": True, "seed": request_id, **sampling})  # type: ignore[arg-type]
    return Submit(request_id, struct.pack(f"<{len(prompt)}I", *prompt), params, n, b"tenant", 0, 500_000)


def make_ticket(submit: Submit, index: int = 0, worker: int = 0, key: bytes = KEY) -> Ticket:
    """The ticket that holds for it."""
    limit = submit.n * submit.sampling.max_tokens
    return ticket_for(submit, key=key, index=index, worker=worker, token_limit=limit, expires_at_ms=1_000_000)


def oracle(submit: Submit, choice: int = 0) -> list[int]:
    """The text that this request has."""
    prompt = struct.unpack(f"<{len(submit.prompt) // 4}I", submit.prompt)
    asked = GenerationRequest(request_id=1, prompt=prompt, sampling=submit.sampling, n=submit.n)
    return expected_text(asked, choice)[0]


@control("3.5.4", "IA-2(8)", "SC-3")
@pytest.mark.parametrize("n", [1, 3])
def test_nothing_leaves_before_the_ticket_and_all_of_it_at_once_with_it(house: House, n: int) -> None:
    """The prompt is computed and tokens are chosen meanwhile; they are those that would have come, in their order."""
    worker, submit = Worker(), make_submit(n=n, logprobs=2 if n == 1 else -1)
    house.submit(worker, submit)
    house.step(5)
    assert house.engine.stats().generated_tokens > n
    assert worker.was_told_nothing
    assert house.told_counts == (0, 0, 0)
    house.accept(make_ticket(submit))
    assert len(worker.prompts) == 1
    assert all(worker.tokens[7, choice] for choice in range(n))
    house.drain()
    assert [worker.tokens[7, choice] for choice in range(n)] == [oracle(submit, choice) for choice in range(n)]
    assert [(count.intent_index, count.output_tokens, count.delivered_tokens) for count in house.counts] == [
        (0, 12 * n, 12 * n)
    ]
    assert house.told_counts == (6, 0, 12 * n)
    assert house.service.num_open == 0


def test_an_answer_that_is_through_before_its_ticket_is_told_and_counted_with_it(house: House) -> None:
    """On a disk that takes 100 ms a short answer is."""
    worker, submit = Worker(), make_submit(max_tokens=4)
    house.submit(worker, submit)
    house.drain()
    assert worker.was_told_nothing
    assert house.counts == []
    assert house.service.num_held == 1
    house.accept(make_ticket(submit, 41))
    assert house.service.num_held == 0
    house.step()
    assert worker.tokens[7, 0] == oracle(submit)
    assert worker.finishes[7, 0].reason == "length"
    assert (house.counts[0].intent_index, len(worker.summaries), house.service.num_open) == (41, 1, 0)


def test_a_ticket_may_come_first(house: House) -> None:
    """Auditor and worker have links of their own."""
    worker, submit = Worker(), make_submit()
    house.accept(make_ticket(submit))
    house.submit(worker, submit)
    house.drain()
    assert worker.tokens[7, 0] == oracle(submit)


def test_tickets_that_come_first_are_bounded(house: House) -> None:
    """Of each worker: those of one push out none of another's, and the oldest go."""
    first, kept, other = make_submit(1), make_submit(2), make_submit(1)
    house.accept(make_ticket(first, 1))
    house.accept(make_ticket(other, 2, worker=1))
    house.accept(make_ticket(kept, 3))
    for number in range(MAX_EARLY_TICKETS - 1):
        house.accept(make_ticket(make_submit(100 + number), 100 + number))
    workers = Worker(0), Worker(1)
    house.submit(workers[0], first)
    house.submit(workers[0], kept)
    house.submit(workers[1], other)
    house.drain()
    assert workers[0].tokens.keys() == {(2, 0)}
    assert workers[1].tokens.keys() == {(1, 0)}


@control("3.5.4", "IA-2(8)", "SC-3")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mac": bytes(32)}, "MAC"),
        ({"index": 4}, "MAC"),
        ({"token_limit": 13}, "MAC"),
        ({"token_limit": 11}, "more"),
        ({"model": "other"}, "model"),
        ({"expires_at_ms": 99_999}, "MAC"),
    ],
)
def test_a_ticket_that_does_not_hold_ends_the_request(house: House, changes: dict[str, object], reason: str) -> None:
    """Nothing of it is told but that; it is counted for the auditor's alarm, and its pages come back."""
    worker, submit = Worker(), make_submit()
    house.submit(worker, submit)
    house.step(4)
    house.accept(msgspec.structs.replace(make_ticket(submit), **changes))
    house.drain()
    (refusal,) = worker.refusals
    assert (refusal.code, refusal.request_id) == ("bad_ticket", 7)
    assert reason in refusal.message
    assert not worker.tokens
    assert not worker.summaries
    told = house.service.take_refusals()
    assert told is not None
    assert told.num_refused == 1
    assert (house.counts, house.service.num_open, house.told_counts) == ([], 0, (0, 0, 0))


def test_a_ticket_for_another_prompt_ends_the_request(house: House) -> None:
    """What was recorded is what is answered."""
    worker, submit = Worker(), make_submit()
    house.submit(worker, submit)
    house.accept(make_ticket(make_submit(prompt=(8, 8, 8))))
    assert [refusal.code for refusal in worker.refusals] == ["bad_ticket"]


def test_an_expired_ticket_ends_the_request(house: House) -> None:
    """However long it was on its way."""
    worker, submit = Worker(), make_submit()
    house.submit(worker, submit)
    ticket = make_ticket(submit)
    house.now = 1_000.0
    house.accept(ticket)
    assert "expired" in worker.refusals[0].message


@control("3.5.4", "IA-2(8)", "SC-3")
def test_no_worker_has_another_workers_request_let_go(house: House) -> None:
    """Neither by recording an intent under the other's number, nor is its own ticket good there."""
    victim, thief, submit = Worker(0), Worker(1), make_submit()
    house.submit(victim, submit)
    house.accept(make_ticket(submit, 1, worker=1))  # The thief's intent, under the victim's number.
    house.accept(make_ticket(make_submit(8), 2, worker=0))  # The victim's, of another request.
    house.step(5)
    assert victim.was_told_nothing
    house.submit(thief, make_submit(8))
    house.step(5)
    assert thief.was_told_nothing
    house.accept(make_ticket(submit, 3, worker=0, key=bytes(32)))
    assert [refusal.code for refusal in victim.refusals] == ["bad_ticket"]


def test_a_ticket_is_spent_once(house: House) -> None:
    """A second one of the same intent is refused, and so is a second that names the same request ahead of it."""
    worker, first, second = Worker(), make_submit(1), make_submit(2)
    house.submit(worker, first)
    house.submit(worker, second)
    house.accept(make_ticket(first, 5))
    house.accept(make_ticket(second, 5))
    assert [refusal.request_id for refusal in worker.refusals] == [2]
    house.accept(make_ticket(make_submit(3), 6))
    house.accept(make_ticket(make_submit(3), 7))
    told = house.service.take_refusals()
    assert told is not None
    assert told.num_refused == 2


def test_a_request_whose_ticket_never_comes_ends_in_time(house: House) -> None:
    """It is refused, which is told to the auditor, and everything that it took is free again."""
    worker, submit, later = Worker(), make_submit(max_tokens=100), make_submit(8)
    house.submit(worker, submit)
    house.step(3)
    house.now += 59.0
    house.submit(worker, later)
    house.step()
    assert worker.was_told_nothing
    house.now += 1.0
    house.drain()
    assert [(refusal.request_id, refusal.code) for refusal in worker.refusals] == [(7, "bad_ticket")]
    told = house.service.take_refusals()
    assert told is not None
    assert "no ticket came" in told.reason
    assert house.service.num_open == 1
    house.accept(make_ticket(submit))  # Too late: it is nobody's.
    assert not worker.tokens
    assert house.counts == []


def test_a_request_that_is_withdrawn_leaves_nothing(house: House) -> None:
    """Its worker learnt that no intent is recorded: no alarm, no count; the place is free at once, and the worker is told so."""
    worker = Worker()
    for request_id in range(LIMITS.max_requests):
        house.submit(worker, make_submit(request_id))
    house.submit(worker, make_submit(99))
    assert [refusal.code for refusal in worker.refusals] == ["queue_full"]
    for request_id in range(LIMITS.max_requests):
        house.send(house.service.cancel(worker, Cancel(request_id, keep_tokens=0)))
    house.drain()
    assert [refusal.code for refusal in worker.refusals[1:]] == ["withdrawn"] * LIMITS.max_requests
    assert (house.service.num_open, house.counts, house.service.take_refusals()) == (0, [], None)
    assert house.told_counts == (0, 0, 0)
    house.submit(worker, make_submit(100))
    house.accept(make_ticket(make_submit(100)))
    house.drain()
    assert worker.tokens[100, 0] == oracle(make_submit(100))


@pytest.mark.parametrize("steps", [0, 3])
def test_a_request_whose_choices_are_cancelled_is_counted_with_its_ticket(house: House, steps: int) -> None:
    """The client left, the intent is recorded: the counts belong to it, and the worker hears the end."""
    worker, submit = Worker(), make_submit(n=2)
    house.submit(worker, submit)
    house.step(steps)
    for choice in range(2):
        assert house.service.cancel(worker, Cancel(7, choice, 0)) == []
    house.step(3)
    assert worker.was_told_nothing
    house.accept(make_ticket(submit, 3))
    house.drain()
    (count,) = house.counts
    assert (count.intent_index, count.prompt_tokens, count.output_tokens) == (3, 6, 0)
    assert [finish.reason for finish in worker.finishes.values()] == ["cancelled", "cancelled"]
    assert (len(worker.summaries), house.service.num_open) == (1, 0)


@control("3.3.4", "AU-5", "SC-5")
def test_what_one_worker_may_have_without_tickets_is_bounded() -> None:
    """A captured one that never records fills neither the memory nor the engine, and another worker goes on."""
    house = House(HoldLimits(max_requests=100, max_prompt_tokens=64), num_pages=200)
    captured, honest = Worker(0), Worker(1)
    for request_id in range(150):
        house.submit(captured, make_submit(request_id, prompt=tuple(range(2, 18)), max_tokens=50))
    assert [refusal.code for refusal in captured.refusals] == ["queue_full"] * 50
    stats = house.engine.stats()
    assert stats.num_waiting + stats.num_running == 4
    submit = make_submit(1)
    house.submit(honest, submit)
    house.accept(make_ticket(submit, 0, worker=1))
    house.step(30)
    assert honest.tokens[1, 0] == oracle(submit)
    house.now += 60.0
    house.drain()
    assert house.service.num_open == 0


def test_few_of_many_small_requests_compute_before_their_tickets() -> None:
    """However small their prompts are."""
    house = House(HoldLimits(max_requests=1000), num_pages=200)
    worker = Worker()
    for request_id in range(200):
        house.submit(worker, make_submit(request_id))
    assert house.engine.stats().num_waiting == MAX_COMPUTING


def test_one_that_waits_aside_computes_when_its_ticket_has_come(house: House) -> None:
    """Too much is under way, or it wants logprobs of its prompt, which are too large to hold."""
    worker = Worker()
    scored, long = make_submit(1, prompt_logprobs=2), make_submit(2, prompt=tuple(range(2, 22)) * 5)
    house.submit(worker, make_submit(0, prompt=tuple(range(2, 22)) * 5, max_tokens=1))
    for submit in (scored, long, make_submit(3, prompt=(9,) * 30)):
        house.submit(worker, submit)
    stats = house.engine.stats()
    assert stats.num_waiting == 2
    house.accept(make_ticket(scored, 1))
    house.accept(make_ticket(long, 2))
    house.drain()
    assert worker.tokens[1, 0] == oracle(scored)
    assert worker.tokens[2, 0] == oracle(long)
    assert [prompt.logprobs is not None for prompt in worker.prompts if prompt.request_id == 1] == [True]


@pytest.mark.parametrize("comes_early", [True, False])
def test_what_outgrows_its_bound_is_computed_anew(comes_early: bool) -> None:
    """A disk that stalls for seconds: no honest request fails by it, and its text is the same."""
    house = House(overlap_schedule=comes_early)
    worker, submit, other = Worker(), make_submit(1, max_tokens=60), make_submit(2, max_tokens=10)
    house.submit(worker, submit)
    house.submit(worker, other)
    while house.engine.stats().num_running == 2 or house.engine.stats().generated_tokens < 5:
        house.step()
    assert worker.was_told_nothing
    if not comes_early:
        house.drain()
    house.accept(make_ticket(submit, 1))
    house.accept(make_ticket(other, 2))
    house.drain()
    assert worker.tokens[1, 0] == oracle(submit)
    assert worker.tokens[2, 0] == oracle(other)
    assert sorted((count.intent_index, count.output_tokens) for count in house.counts) == [(1, 60), (2, 10)]
    assert house.told_counts[2] == 70


@control("3.3.4", "AU-5", "SC-7(18)")
@pytest.mark.parametrize("new_key", [None, bytes(32)])
def test_with_the_auditor_goes_whatever_waits_for_its_tickets(house: House, new_key: bytes | None) -> None:
    """Lost, or another life of it with another key: their workers are told, and a ticket that comes later is worth nothing."""
    worker, aside = Worker(), make_submit(2, prompt_logprobs=1)
    house.submit(worker, make_submit(1))
    house.submit(worker, aside)
    house.step(3)
    house.send(house.service.lose_auditor() if new_key is None else house.service.set_key(new_key))
    house.drain()
    assert [refusal.code for refusal in worker.refusals] == ["engine_unavailable"] * 2
    assert not worker.tokens
    assert (house.service.num_open, house.counts, house.service.take_refusals()) == (0, [], None)
    if new_key is None:
        house.submit(worker, make_submit(3))
        assert worker.refusals[-1].code == "engine_unavailable"


def test_with_a_worker_goes_whatever_it_had_without_tickets(house: House) -> None:
    """Its next life, under the same number, is not taken for it."""
    lost, again = Worker(), Worker()
    house.accept(make_ticket(make_submit(3), 3))
    house.submit(lost, make_submit(1))
    house.submit(lost, make_submit(2, prompt_logprobs=1))
    house.step(3)
    house.service.lose_worker(lost)
    house.drain()
    assert (house.service.num_open, lost.was_told_nothing) == (0, True)
    house.submit(again, make_submit(3))
    house.accept(make_ticket(make_submit(1), 1))
    house.step(5)
    assert again.was_told_nothing


def test_a_request_that_cannot_be_served_is_refused_with_its_ticket(house: House) -> None:
    """Not before: what the engine says of a request it says of one that is recorded."""
    worker, submit = Worker(), make_submit(max_tokens=126)
    house.submit(worker, submit)
    house.step()
    assert worker.was_told_nothing
    house.accept(make_ticket(submit))
    assert [refusal.code for refusal in worker.refusals] == ["context_length_exceeded"]
    assert house.service.num_open == 0


def test_a_request_is_aborted_by_its_intent_once_that_is_known(house: House) -> None:
    """Before, there is no such intent."""
    worker, submit = Worker(), make_submit(max_tokens=60)
    house.submit(worker, submit)
    house.step(3)
    house.accept(make_ticket(submit, 9))
    house.service.abort(AbortIntent(9))
    house.drain()
    assert worker.finishes[7, 0] == Finish("cancelled", None, "aborted")
    assert house.counts[0].reason == "aborted"


def test_a_request_of_an_open_number_is_refused_though_it_is_held(house: House) -> None:
    """Its own goes on."""
    worker, submit = Worker(), make_submit()
    house.submit(worker, submit)
    house.submit(worker, submit)
    assert [refusal.code for refusal in worker.refusals] == ["duplicate_request"]
    house.accept(make_ticket(submit))
    house.drain()
    assert worker.tokens[7, 0] == oracle(submit)


def test_the_time_of_a_request_runs_while_it_waits(house: House) -> None:
    """Its client's deadline is not moved by a slow disk."""
    worker, submit = Worker(), make_submit(prompt_logprobs=0)
    submit = msgspec.structs.replace(submit, timeout_ms=1000)
    house.submit(worker, submit)
    house.now += 2.0
    house.accept(make_ticket(submit))
    house.drain()
    assert worker.finishes[7, 0].reason == "deadline"
