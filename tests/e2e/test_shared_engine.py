"""An engine of two ranks, beside one of a single rank: it answers as that one, each rank is confined by itself, and what ends one
ends, and restarts, both. Each engine has a name and tickets of its own.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.support.appliance import DEMO_MODEL, Appliance, running_appliance
from tests.support.controls import control
from tests.support.processes import has_ended
from tests.support.sdk import open_sdk
from tests.support.waiting import wait_until

MODEL = "casemate-demo"
SINGLE = "single"
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    single = f"[[engines]]\nmodel_path = {json.dumps(str(DEMO_MODEL))}\nserved_model_name = {json.dumps(SINGLE)}"
    ranks = f"tp_size = 2\nwatchdog_timeout_s = 10.0\n{single}"
    with running_appliance(tmp_path_factory.mktemp("shared"), engine_extra=ranks) as running:
        yield running


def find_ranks(appliance: Appliance) -> list[psutil.Process]:
    """The engine's process, then its children; the other engine has none."""
    engines = [psutil.Process(pid) for name, pid in appliance.pids().items() if name.startswith("engine/")]
    (first,) = (engine for engine in engines if engine.children())
    return [first, *first.children()]


def ask(appliance: Appliance, model: str = MODEL) -> openai.types.Completion:
    with open_sdk(appliance) as sdk:
        return sdk.completions.create(
            model=model, prompt=PROMPT, max_tokens=24, temperature=0.0, extra_body={"ignore_eos": True}
        )


def test_two_ranks_answer_as_one(shared: Appliance) -> None:
    """The same text as of one rank, with every token counted once."""
    shared.wait_ready()
    answer, expected = ask(shared), ask(shared, SINGLE)
    assert answer.choices[0].text == expected.choices[0].text
    assert answer.usage is not None
    assert answer.usage == expected.usage


def test_each_model_is_answered_by_its_own_engine(shared: Appliance) -> None:
    """Both names are listed; a ticket for one engine is no good at the other, so a mix-up would be refused."""
    shared.wait_ready()
    with open_sdk(shared) as sdk:
        assert sorted(model.id for model in sdk.models.list()) == sorted([MODEL, SINGLE])
    assert [ask(shared, model).model for model in (MODEL, SINGLE)] == [MODEL, SINGLE]


def test_ranks_are_shown(shared: Appliance) -> None:
    """To whoever may read metrics: how many there are, and what each computes on."""
    shared.wait_ready()
    token = shared.token(shared.create_client("watcher", "--role", "operator"))
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{shared.url}/get_server_info", headers=headers, verify=shared.client.tls, timeout=30)
    states = {state["tp_size"]: state for state in answer.json()["internal_states"]}
    assert states.keys() == {1, 2}
    state = states[2]
    assert [(rank["rank"], rank["device"]) for rank in state["ranks"]] == [(0, "cpu"), (1, "cpu")]


@control("SC-39", "SC-7(21)", "AC-6")
def test_each_rank_is_confined_by_itself(shared: Appliance) -> None:
    """A network with nothing in it and a system call filter of its own; the second rank has no socket but those to the first."""
    shared.wait_ready()
    ranks = find_ranks(shared)
    assert len(ranks) == 2
    networks = {os.stat(f"/proc/{rank.pid}/ns/net").st_ino for rank in ranks}
    assert len(networks | {os.stat("/proc/self/ns/net").st_ino}) == 3
    for rank in ranks:
        status = Path(f"/proc/{rank.pid}/status").read_text()
        assert "Seccomp:\t2\n" in status
        assert "NoNewPrivs:\t1\n" in status
        assert "CapEff:\t0000000000000000\n" in status
    targets = [os.readlink(entry) for entry in Path(f"/proc/{ranks[1].pid}/fd").iterdir()]
    assert sum(target.startswith("socket:") for target in targets) == 2


def test_a_signal_to_all_ends_no_answer(shared: Appliance) -> None:
    """Every process drains at SIGTERM; a rank that ended at once would take the open answers with it."""
    shared.wait_ready()
    ranks = find_ranks(shared)
    os.kill(ranks[1].pid, signal.SIGTERM)
    assert len(ask(shared).choices[0].text) > 0
    assert find_ranks(shared) == ranks


@pytest.mark.parametrize("killed", [0, 1])
def test_ranks_end_and_come_back_together(shared: Appliance, killed: int) -> None:
    """Whichever is killed: the other does not stay behind, health says so, and afterwards both are new."""
    shared.wait_ready()
    ranks = find_ranks(shared)
    assert len(ranks) == 2
    os.kill(ranks[killed].pid, signal.SIGKILL)
    wait_until(lambda: shared.status("/health") != 200)
    wait_until(lambda: all(has_ended(rank.pid) for rank in ranks))
    shared.wait_ready()
    assert len(ask(shared).choices[0].text) > 0
    assert {rank.pid for rank in find_ranks(shared)}.isdisjoint(rank.pid for rank in ranks)


@pytest.mark.long
def test_a_rank_that_hangs_is_noticed_by_the_watchdog(shared: Appliance) -> None:
    """A stopped rank stops the step; the supervisor ends the engine, and both ranks with it."""
    shared.wait_ready()
    ranks = find_ranks(shared)
    os.kill(ranks[1].pid, signal.SIGSTOP)
    with pytest.raises(openai.OpenAIError):
        ask(shared)
    wait_until(lambda: all(has_ended(rank.pid) for rank in ranks))
    shared.wait_ready()
    assert len(ask(shared).choices[0].text) > 0
