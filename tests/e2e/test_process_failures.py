"""Kill any process: the rest say so within a second, it comes back, open requests end clearly, the log stays whole."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import openai.types.responses
import psutil
import pytest

from appliance.cli.main import EXIT_ROLLBACK_NOT_EXCLUDED
from audit.checkpoint import parse_checkpoint
from audit.entry import parse_canonical
from audit.note import parse_note
from audit.reader import LogReader
from tests.support.appliance import START_TIMEOUT_S, STOP_TIMEOUT_S, Appliance, running_appliance
from tests.support.commands import run_casemate
from tests.support.controls import control
from tests.support.processes import has_ended
from tests.support.sdk import open_sdk
from tests.support.waiting import shortest, wait_until

MODEL = "casemate-demo"
LONG = {"prompt": "Once upon a time", "max_tokens": 450, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that the tests of this module break, one process at a time."""
    with running_appliance(
        tmp_path_factory.mktemp("fragile"),
        workers=2,
        engine_extra="watchdog_timeout_s = 10.0",  # A shorter one ends engines of a machine that is busy.
        gateway_extra="response_retention_s = 600",
    ) as running:
        yield running


def verify_log(appliance: Appliance) -> None:
    """The log is consistent; without a witness a rollback is not excluded, which is exit status 3."""
    log = appliance.state / "audit" / "log"
    key = appliance.state / "audit" / "log.vkey"
    run_casemate("audit", "verify", str(log), "--key", str(key), status=EXIT_ROLLBACK_NOT_EXCLUDED)


def kinds_in(appliance: Appliance) -> set[str]:
    """Of all records of a log that is published."""
    return {own["kind"] for own in records_in(appliance)}


def records_in(appliance: Appliance) -> list[dict[str, Any]]:
    """What is ours in each of them."""
    reader = LogReader(appliance.state / "audit" / "log")
    size = parse_checkpoint(parse_note(reader.checkpoint_note()).text).size
    records = (parse_canonical(reader.read_entry(index, size)) for index in range(size))
    return [record["unmapped"]["casemate"] for record in records]


@control("SC-7(18)", "SC-24")
@pytest.mark.parametrize("role", ["engine/0", "auditor/0", "policy/0", "authority/0", "gateway/1"])
def test_a_killed_process_is_noticed_within_a_second_and_comes_back(fragile: Appliance, role: str) -> None:
    """Health is false within a second of SIGKILL and true again after the restart; the log verifies."""

    def kill() -> float:
        fragile.wait_ready()
        os.kill(fragile.pids()[role], signal.SIGKILL)
        took_s = wait_until(lambda: fragile.status("/health") != 200, poll_s=0.02)
        fragile.wait_ready()
        return took_s

    assert shortest(kill, 1.0) <= 1.0
    with open_sdk(fragile) as sdk:
        assert sdk.completions.create(model=MODEL, prompt="Hello", max_tokens=2).usage is not None
    verify_log(fragile)


@pytest.mark.parametrize(("role", "limit_s"), [("engine/0", 2.0), ("auditor/0", 1.0)])
def test_open_streams_end_with_a_clear_error(fragile: Appliance, role: str, limit_s: float) -> None:
    """A stream whose engine or auditor dies is cut with an error event, not left hanging."""

    def cut() -> float:
        fragile.wait_ready()
        pid = fragile.pids()[role]
        with open_sdk(fragile) as sdk:
            stream = sdk.completions.create(model=MODEL, stream=True, **LONG)  # type: ignore[call-overload]
            chunks = iter(stream)
            next(chunks)
            os.kill(pid, signal.SIGKILL)  # At once: a little later the whole answer may have come.
            started = time.monotonic()
            fault: openai.APIError | None = None
            try:
                for _chunk in chunks:
                    pass
            except openai.APIError as ended:
                fault = ended
            took_s = time.monotonic() - started
        if fault is None:
            return math.inf  # The whole answer had come before.
        assert "engine" in str(fault) or "audit" in str(fault)
        return took_s

    assert shortest(cut, limit_s) <= limit_s
    fragile.wait_ready()
    verify_log(fragile)


def test_a_response_made_in_the_background_is_any_workers_to_give(fragile: Appliance) -> None:
    """Begun on a connection that is lost; its events, from where they broke, are the same on several new ones, and as kept."""
    fragile.wait_ready()
    with ExitStack() as stack:
        first, *others = (stack.enter_context(open_sdk(fragile)) for _ in range(5))
        begun = first.responses.create(model=MODEL, input="What is Casemate?", background=True, stream=True)
        seen = [next(iter(begun)) for _ in range(3)]
        begun.close()
        response_id = seen[0].response.id  # type: ignore[union-attr]
        resumed = [sdk.responses.retrieve(response_id, stream=True, starting_after=2) for sdk in others]
        rest = [list(events) for events in resumed]
        assert all(events == rest[0] for events in rest)
        whole = [*seen, *rest[0]]
        assert [event.sequence_number for event in whole] == list(range(len(whole)))
        last = whole[-1].response  # type: ignore[union-attr]
        assert last.status in ("completed", "incomplete"), last
        text = "".join(event.delta for event in whole if event.type == "response.output_text.delta")
        over = [sdk.responses.retrieve(response_id) for sdk in others]
        assert [response.output_text for response in over] == [text] * len(others)
        assert [sdk.responses.cancel(response_id) for sdk in others] == over


def test_a_response_made_in_the_background_ends_with_its_worker(fragile: Appliance) -> None:
    """The workers are killed while it is made, and others come: it has failed, and a new one is made."""

    def end_early() -> openai.types.responses.Response:
        fragile.wait_ready()
        workers = [pid for name, pid in fragile.pids().items() if name.startswith("gateway/")]
        with open_sdk(fragile) as sdk:
            begun = sdk.responses.create(model=MODEL, input="What is Casemate?", background=True)
            for worker in workers:  # At once: a little later the whole answer may have come.
                os.kill(worker, signal.SIGKILL)
        assert begun.status == "in_progress"
        fragile.wait_ready()
        with open_sdk(fragile) as sdk:
            return sdk.responses.retrieve(begun.id)

    lost = next((found for found in (end_early() for _ in range(3)) if found.status != "completed"), None)
    assert lost is not None, "none was ended early"
    assert (lost.status, lost.output) == ("failed", [])
    assert lost.error is not None
    assert lost.error.message.startswith("worker_lost")
    with open_sdk(fragile) as sdk:
        again = sdk.responses.create(model=MODEL, input="And?", previous_response_id=lost.id)
        assert again.status in ("completed", "incomplete")
    verify_log(fragile)


@control("SC-24")
def test_an_engine_that_hangs_is_found_by_the_watchdog(fragile: Appliance) -> None:
    """SIGSTOP stands for a step that never ends: the process is killed and started again."""

    def hang() -> float:
        fragile.wait_ready()
        before = fragile.pids()["engine/0"]
        os.kill(before, signal.SIGSTOP)
        took_s = wait_until(lambda: fragile.status("/ready") != 200, poll_s=0.02)
        wait_until(lambda: not psutil.pid_exists(before))
        fragile.wait_ready()
        assert fragile.pids()["engine/0"] != before
        return took_s

    assert shortest(hang, 3.0) <= 3.0


def test_processes_end_when_their_supervisor_is_killed(fragile: Appliance) -> None:
    """Nobody could restart them: they end by themselves, and the log verifies and goes on at the next start."""
    fragile.wait_ready()
    with open_sdk(fragile) as sdk:
        sdk.completions.create(model=MODEL, prompt="Hello", max_tokens=2)
    children = [pid for name, pid in fragile.pids().items() if name != "supervisor"]
    supervisor = fragile.pids()["supervisor"]
    fragile.stop(signal.SIGKILL)
    wait_until(lambda: all(map(has_ended, children)))
    verify_log(fragile)
    fragile.start()
    verify_log(fragile)
    lost = [own for own in records_in(fragile) if (own["kind"], own.get("role")) == ("process_crashed", "supervisor")]
    assert [own["pid"] for own in lost] == [supervisor]


def test_drain_finishes_open_requests_and_exits_zero(tmp_path: Path) -> None:
    """SIGTERM while a stream runs: the stream ends as it would have, new requests are refused, exit status 0.

    Until then the small processes of this appliance take less than 400 MB. Confined processes hide their memory from everybody
    but root, so anybody else measures unconfined ones.
    """
    extra = "" if os.getuid() == 0 else "[confinement]\nenabled = false\n"
    extra += f"[supervisor]\ndrain_timeout_s = {START_TIMEOUT_S}"
    with running_appliance(tmp_path / "drain", extra=extra) as appliance, open_sdk(appliance) as sdk:
        for _ in range(20):
            sdk.completions.create(model=MODEL, prompt="Hello", max_tokens=4)
        sizes = find_sizes(appliance)
        assert sum(sizes.values()) < 400e6, sizes
        stream = sdk.completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=200, stream=True, extra_body={"ignore_eos": True},
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = iter(stream)
        next(chunks)
        assert appliance.process is not None
        appliance.process.send_signal(signal.SIGTERM)
        usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
        assert usages[-1].completion_tokens == 200
        assert appliance.process.wait(STOP_TIMEOUT_S) == 0  # A second signal would cut the drain short.
        verify_log(appliance)
        assert {"model_unloaded", "process_stopped", "log_stopped"} <= kinds_in(appliance)
        assert "process_crashed" not in kinds_in(appliance)
        told = [own["kind"] for own in records_in(appliance) if own.get("role") == "supervisor"]
        assert told[:1] + told[-1:] == ["process_started", "process_stopped"]


def find_sizes(appliance: Appliance) -> dict[str, int]:
    """Proportional set sizes of supervisor, gateway worker, policy, auditor, authority, compiler and reader, in bytes.

    The engine is not among them: it holds torch, and the model.
    """
    return {
        name: psutil.Process(pid).memory_full_info().pss
        for name, pid in appliance.pids().items()
        if not name.startswith("engine")
    }


def test_a_port_in_use_and_a_second_appliance_are_refused_by_name(appliance: Appliance, tmp_path: Path) -> None:
    """One clear line that names the key or the folder, and exit status 78."""
    second = Appliance(tmp_path / "second", gateway_port=appliance.gateway_port)
    twin = Appliance(tmp_path / "twin", state_dir=appliance.state)
    for late in (second, twin):
        late.start(wait=False)
    for late in (second, twin):
        assert late.process is not None
        assert late.process.wait(START_TIMEOUT_S) == 78
    assert f"gateway.port: 127.0.0.1 port {appliance.gateway_port} is in use" in second.log()
    assert "another casemate runs on" in twin.log()
