"""Workers, one of them captured, an auditor that comes and goes, and an engine: whatever their order, nothing leaves unrecorded."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.inference.holding import HoldLimits
from appliance.messages.audit import Ticket
from appliance.messages.engine import Cancel, Submit
from tests.unit.appliance.inference.test_inference_holding import KEY, House, Worker, make_submit, make_ticket, oracle

LIMITS = HoldLimits(wait_s=5.0, max_requests=4, max_prompt_tokens=80, max_output_tokens=12)
workers = st.integers(0, 1)


class HoldingMachine(RuleBasedStateMachine):
    """Each request has a number of its own, and each intent; tickets are on their way from the auditor for a while."""

    @initialize(overlap=st.booleans(), queue=st.sampled_from([1, 20]))
    def start(self, overlap: bool, queue: int) -> None:
        self.house = House(LIMITS, num_pages=40, overlap_schedule=overlap, max_queued_requests=queue)
        self.workers = [Worker(0), Worker(1)]
        self.gone: list[Worker] = []
        self.key = KEY
        self.submits: list[tuple[Worker, Submit]] = []
        self.under_way: list[Ticket] = []
        self.recorded: set[int] = set()
        """Numbers of requests for which a ticket that holds was handed over while its auditor was there."""
        self.num_intents = 0
        self.lives: list[int] = []
        """Where in the counts that were told the life of each lost auditor ended."""

    def _new_submit(self, long: bool, n: int) -> Submit:
        prompt = tuple(range(2, 20)) * (3 if long else 1)
        number = len(self.submits) + 1
        scored = {"prompt_logprobs": 1} if number % 5 == 0 else {}
        return make_submit(number, prompt=prompt, n=n, max_tokens=1 + number % 9, **scored)

    @rule(worker=workers, long=st.booleans(), n=st.sampled_from([1, 1, 2]), records=st.booleans(), first=st.booleans())
    def ask(self, worker: int, long: bool, n: int, records: bool, first: bool) -> None:
        submit = self._new_submit(long, n)
        asking = self.workers[worker]
        if records:
            self.num_intents += 1
            ticket = make_ticket(submit, self.num_intents, worker=worker, key=self.key)
            self.under_way.append(ticket)
            if first:
                self.let_tickets_arrive()
        self.submits.append((asking, submit))
        self.house.submit(asking, submit)

    @rule()
    def let_tickets_arrive(self) -> None:
        tickets, self.under_way = self.under_way, []
        for ticket in tickets:
            self.recorded.add(ticket.request_id)
            self.house.accept(ticket)

    @rule(data=st.data(), kind=st.sampled_from(["worker", "request_id", "mac", "index"]))
    def bring_a_ticket_of_something_else(self, data: st.DataObject, kind: str) -> None:
        if not self.under_way:
            return
        ticket = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        changes: dict[str, Any] = {
            "worker": 1 - ticket.worker,
            "request_id": ticket.request_id - 1 or 2,
            "mac": bytes(32),
            "index": ticket.index + 1000,
        }
        self.house.accept(msgspec.structs.replace(ticket, **{kind: changes[kind]}))

    @rule(data=st.data(), whole=st.booleans())
    def cancel(self, data: st.DataObject, whole: bool) -> None:
        if not self.submits:
            return
        worker, submit = self.submits[data.draw(st.integers(0, len(self.submits) - 1))]
        if worker not in self.gone:
            for choice in [None] if whole else range(submit.n):
                self.house.send(self.house.service.cancel(worker, Cancel(submit.request_id, choice, 0)))

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        self.house.step(count)

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.house.now += seconds
        self.house.send(self.house.service.expire())

    @rule(worker=workers)
    def lose_a_worker(self, worker: int) -> None:
        lost = self.workers[worker]
        self.house.service.lose_worker(lost)
        self.gone.append(lost)
        self.workers[worker] = Worker(worker)

    @rule()
    def lose_the_auditor(self) -> None:
        self.under_way.clear()
        self.lives.append(len(self.house.counts))
        self.house.send(self.house.service.lose_auditor())
        self.key = bytes([self.key[0] + 1 & 255]) * 32
        self.house.send(self.house.service.set_key(self.key))

    @invariant()
    def nothing_left_unrecorded(self) -> None:
        for worker in [*self.workers, *self.gone]:
            told = {request_id for request_id, _ in [*worker.tokens, *worker.finishes]}
            told |= {one.request_id for one in [*worker.prompts, *worker.summaries]}
            assert told <= self.recorded
            own = {submit.request_id for asking, submit in self.submits if asking is worker}
            assert told <= own
        assert all(count.intent_index <= self.num_intents for count in self.house.counts)

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        self.house.drain()
        self.house.now += 6.0
        self.house.drain()
        service = self.house.service
        assert service.num_open == 0
        texts = {submit.request_id: submit for _, submit in self.submits}
        for worker in [*self.workers, *self.gone]:
            for (request_id, choice), tokens in worker.tokens.items():
                text = oracle(texts[request_id], choice)
                assert tokens == text[: len(tokens)], "what was held is another text"
        assert len({count.intent_index for count in self.house.counts}) == len(set(self.house.counts))
        for begun, ended in pairwise([0, *self.lives, len(self.house.counts)]):
            life = self.house.counts[begun:ended]
            assert len(set(life)) == len(life), "an auditor was told twice"
        for worker in self.workers:
            self._verify_room(worker)

    def _verify_room(self, worker: Worker) -> None:
        """All that was held has given its place back."""
        for number in range(LIMITS.max_requests):
            self.house.submit(worker, make_submit(1_000 + number))
        assert not [refusal for refusal in worker.refusals if refusal.request_id >= 1_000]
        holding = self.house.service._workers.of(worker).holding
        assert (holding._num_requests, holding._num_output_tokens, holding._num_spoken) == (LIMITS.max_requests, 0, 0)
        for number in range(LIMITS.max_requests):
            self.house.send(self.house.service.cancel(worker, Cancel(1_000 + number)))
        self.house.drain()
        assert (holding._num_requests, holding._num_bytes, holding._num_computing, holding._num_prompt_tokens) == (
            0,
        ) * 4


HoldingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestHolding = HoldingMachine.TestCase
