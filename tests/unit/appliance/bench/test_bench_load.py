"""The load generator against a server whose answers are known: what it counts, what it calls an error, and when it sends."""

import itertools
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from appliance.bench.figures import first_token_s, summarize
from appliance.bench.load import Load
from appliance.bench.target import Target
from appliance.bench.workloads import WORKLOADS, Workload, arrival_times, plan_requests
from tests.support.completion_server import Server, completion, events


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def load(server: Server, workload: Workload, **options: object) -> Load:
    target = Target(url=f"http://127.0.0.1:{server.port}/v1", model="m", token="secret")
    settings = {"concurrency": workload.concurrency, "due_s": None, "timeout_s": 5.0, **options}
    return Load(target, plan_requests(workload, 100, 1), **settings)  # type: ignore[arg-type]


SMALL = Workload(num_requests=6, concurrency=2, prompt_tokens=5, output_tokens=4)


def test_counts_are_the_servers_and_times_are_ours(server: Server) -> None:
    """Tokens as `usage` says, arrivals one an event, requests over as few connections as were open at a time."""
    answers = load(server, SMALL).run()
    assert [(a.output_tokens, a.prompt_tokens, a.cached_tokens, len(a.arrivals), a.error) for a in answers] == [
        (4, 7, 4, 3, "")
    ] * 6
    assert server.num_connections == 2
    assert all(0 < first_token_s(answer) < 5 for answer in answers)
    assert b"POST /v1/completions HTTP/1.1\r\n" in server.heads[0]
    assert b"authorization: Bearer secret\r\n" in server.heads[0]
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert summarize(answers)["cached_share"] == round(4 / 7, 4)


@pytest.mark.parametrize(("ignores_eos", "beyond"), [(True, {"ignore_eos"}), (False, set())])
@pytest.mark.parametrize("name", ["tiny", "turns"])
def test_only_parameters_of_openai_are_sent_if_asked(
    server: Server, name: str, beyond: set[str], *, ignores_eos: bool
) -> None:
    """A server that refuses what it does not know can be measured; elsewhere answers have all their tokens."""
    target = Target(url=f"http://127.0.0.1:{server.port}/v1", model="m", ignores_eos=ignores_eos)
    workload = msgspec.structs.replace(WORKLOADS[name], num_requests=WORKLOADS[name].num_turns)
    Load(target, plan_requests(workload, 100, 1), concurrency=1, due_s=None, timeout_s=5.0).run()
    known = {"model", "messages", "prompt", "max_tokens", "temperature", "stream", "stream_options"}
    assert server.bodies
    assert all(set(body) - known == beyond for body in server.bodies)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_found_however_the_bytes_are_cut(server: Server, size: int) -> None:
    """One byte at a time as well as all at once."""
    whole = b"".join(completion(5))
    server.script = lambda body: [whole[start : start + size] for start in range(0, len(whole), size)]
    (answer,) = load(server, Workload(num_requests=1, concurrency=1, prompt_tokens=2, output_tokens=6)).run()
    assert (len(answer.arrivals), answer.output_tokens, answer.error) == (5, 6, "")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([b'HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 5\r\n\r\n{"a"}'], '429 {"a"}'),
        ([*completion(2)[:2], b""], "closed"),
        (events({"choices": [{"text": "x"}]}, {"error": {"message": "broken"}}), "broken"),
        (events({"choices": []}), "ended"),
        ([b"nonsense\r\n\r\n", b""], "HTTP"),
    ],
)
def test_what_is_not_a_whole_answer_is_an_error(server: Server, script: list[bytes], reason: str) -> None:
    """Refusals, broken streams, errors in mid-stream; the run goes on."""
    server.script = lambda body: script if server.is_number(2, body) else completion(3)
    answers = load(server, SMALL).run()
    failed = [answer for answer in answers if answer.error]
    assert len(answers) == 6
    assert len(failed) == 1
    assert reason in failed[0].error
    summary = summarize(answers)
    assert (summary["requests"], summary["errors"]) == (5, 1)


def test_an_answer_that_does_not_end_is_given_up(server: Server) -> None:
    """After the time limit, without holding up the others."""
    ended = threading.Event()

    def script(body: dict[str, object]) -> Iterator[bytes]:
        yield from completion(3)[:2] if server.is_number(1, body) else completion(3)
        if server.is_number(1, body):
            ended.wait(60)

    server.script = script
    answers = load(server, SMALL, timeout_s=2.0).run()
    ended.set()
    assert [answer.error for answer in answers if answer.error] == ["no end after 2 s"]
    assert len(answers) == 6


def test_open_loop_sends_at_its_times_whatever_is_open(server: Server) -> None:
    """Requests of 0.1 s each at 50/s overlap, and a late answer does not delay the next request."""

    def slow(body: dict[str, object]) -> list[bytes]:
        time.sleep(0.1)
        return completion(3)

    server.script = slow
    due_s = [0.02 * place for place in range(6)]
    began = time.perf_counter()
    answers = load(server, SMALL, due_s=due_s).run()
    starts = sorted(answer.started_at - began for answer in answers)
    assert [later - earlier for earlier, later in itertools.pairwise(starts)] == pytest.approx([0.02] * 5)
    assert server.num_connections > 2


def test_nothing_is_computed_while_nothing_is_due(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load shares its cores with what it measures: it sleeps until a request is due, and looks only when something came."""
    num_polls = 0
    poll = Load._poll

    def count(self: Load, wait_s: float) -> None:
        nonlocal num_polls
        num_polls += 1
        poll(self, wait_s)

    monkeypatch.setattr(Load, "_poll", count)
    workload = Workload(num_requests=20, concurrency=1, prompt_tokens=2, output_tokens=2)
    answers = load(server, workload, due_s=[0.0037 * place for place in range(20)]).run()
    assert not any(answer.error for answer in answers)
    # For each request its time, its connection and what the server sends; spinning took some hundred each.
    assert num_polls < 20 * 12


def test_requests_take_turns_on_the_connections_that_are_open(server: Server) -> None:
    """Each in its turn, as many clients do that send now and then; not one for all."""
    measured = load(server, SMALL)
    measured.open_ahead()
    measured._concurrency = 1
    order = list(measured._idle)
    measured.run()
    assert server.num_connections == 2
    assert list(measured._idle) == order, "after six requests it is the first one's turn again"


def test_conversation_sends_what_was_answered(server: Server) -> None:
    """Each turn has the turns before it and the server's own answers."""
    server.script = lambda body: events(
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": f"answer {len(server.bodies)}"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    )
    talk = Workload(num_requests=3, concurrency=1, prompt_tokens=30, output_tokens=2, num_turns=3)
    answers = load(server, talk).run()
    assert [len(answer.arrivals) for answer in answers] == [1, 1, 1]
    last = server.bodies[-1]["messages"]
    assert isinstance(last, list)
    assert [message["role"] for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in last if message["role"] == "assistant"] == ["answer 1", "answer 2"]
    assert b"POST /v1/chat/completions" in server.heads[0]


def test_plans_are_fixed_by_their_seed_and_share_heads() -> None:
    """Groups share exactly their beginning."""
    workload = WORKLOADS["small_prefix"]
    plan = plan_requests(workload, 1000, 7)
    assert plan == plan_requests(workload, 1000, 7)
    assert plan != plan_requests(workload, 1000, 8)
    heads = {tuple(planned.prompt[:128]) for planned in plan}
    assert len(heads) == 4
    assert len({tuple(planned.prompt) for planned in plan}) == 32
    assert {len(planned.prompt) for planned in plan} == {160}


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    """10,000 arrivals at 100/s take 100 s, to three standard deviations."""
    times = arrival_times(10_000, 100.0, 3)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(100.0, abs=3.0)
