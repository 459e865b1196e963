"""`casemate bench gateway`: what everything around the engine costs, on one machine, with TLS, tokens, quota and durable audit.

A whole appliance runs, in a folder of its own: supervisor, gateway workers, policy, authority and auditor as ever, and in the
engine's place a process that answers at a set rate. The load comes from processes of this command; what they and every
process of the appliance computed meanwhile is told with each figure, as they share the machine's cores. Of the open loop the same
requests then go at the same times to the same engine directly, and the difference of the times to the first token is told.
"""

import asyncio
import contextlib
import gc
import json
import secrets
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import appliance.demo
from appliance.authority.addresses import issuer_of, resource_of
from appliance.authority.credentials import find_tls_identity
from appliance.bench.children import Usage, usage_by_role
from appliance.bench.connection import Answer
from appliance.bench.direct import DirectEngine
from appliance.bench.figures import first_token_s, spread_ms, summarize
from appliance.bench.fleet import Outcome, run_fleet
from appliance.bench.target import Target
from appliance.bench.workloads import Planned, Workload, arrival_times, plan_requests
from appliance.config import Configuration
from appliance.config.disk import load_configuration
from appliance.demo.client import ApplianceClient, Credentials
from appliance.policy.registration import register_service
from appliance.supervisor.provision import provision
from appliance.supervisor.supervisor import Supervisor

MODEL = "paced"
_PORTS = range(12_000, 32_000)
"""Below those that Linux gives to outgoing connections: one of these, anybody's, could take it before the appliance has started."""
_VOCAB_SIZE = 1000


@dataclass(frozen=True)
class Scenario:
    """One measurement."""

    name: str
    workload: Workload
    step_ms: float
    """Pace of the engine."""
    requests_per_s: float = 0.0
    """Open loop; 0: closed loop."""
    opens_ahead: bool = True
    """Open loop: whether the clients' connections are there before."""
    processes: int = 1
    """That make the load."""
    compares: bool = False
    """With the engine spoken to directly."""
    watches_memory: bool = False
    """All the time; it costs 15 ms of a core every half second, which a request may have to wait for."""


def scenarios(rate: float, seconds: float, idle_streams: int) -> dict[str, Scenario]:
    """Those that the command knows.

    `requests`: open loop at a rate, four tokens each. `saturation`: closed loop, as many as get through. `streams`: 512 streams of
    50 tokens a second each. `burst`: 512 requests at once. `idle`: streams that have had their first token and wait.
    """
    short = Workload(num_requests=int(rate * seconds), concurrency=64, prompt_tokens=64, output_tokens=4)
    full = Workload(num_requests=int(1500 * seconds), concurrency=64, prompt_tokens=64, output_tokens=1)
    tokens = int(seconds / 0.02)
    streams = Workload(num_requests=512, concurrency=512, prompt_tokens=128, output_tokens=tokens)
    idle = Workload(num_requests=idle_streams, concurrency=idle_streams, prompt_tokens=16, output_tokens=2)
    burst = Workload(num_requests=512, concurrency=512, prompt_tokens=128, output_tokens=8)
    return {
        "requests": Scenario("requests", short, step_ms=5, requests_per_s=rate, compares=True),
        "saturation": Scenario("saturation", full, step_ms=5),
        "streams": Scenario("streams", streams, step_ms=20),
        "burst": Scenario("burst", burst, step_ms=20),
        "idle": Scenario(
            "idle", idle, step_ms=10_000 + 5 * idle_streams, requests_per_s=300, opens_ahead=False, watches_memory=True
        ),
    }


async def measure(
    scenario: Scenario,
    *,
    workers: int,
    niceness: int = 0,
    folder: str | None = None,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Run one scenario on an appliance of its own.

    Args:
        niceness: `supervisor.foreground_niceness`.
        folder: where its state is for the while; None: where temporary files are. The log is synced to that disk.
    Raises: StartRefused, CommandFailed.
    """
    on_progress("starting an appliance")
    async with _running(scenario.step_ms, workers, niceness, folder) as target:
        on_progress("warming up")
        warm = Workload(num_requests=32, concurrency=8, prompt_tokens=16, output_tokens=1)
        await run_fleet(target, plan_requests(warm, _VOCAB_SIZE, 0), num_processes=1, concurrency=8)
        before = usage_by_role()
        plan = plan_requests(scenario.workload, _VOCAB_SIZE, 1)
        due_s = arrival_times(len(plan), scenario.requests_per_s, 2) if scenario.requests_per_s else None
        memory = asyncio.create_task(_watch_memory()) if scenario.watches_memory else None
        outcome = await run_fleet(
            target,
            plan,
            num_processes=scenario.processes,
            concurrency=scenario.workload.concurrency,
            due_s=due_s,
            opens_ahead=due_s is not None and scenario.opens_ahead,
            on_progress=lambda answers, errors: on_progress(f"{scenario.name}: {answers} answers, {errors} errors"),
        )
        result = _result(outcome, before, usage_by_role())
        if memory is not None:
            memory.cancel()
            result |= _memory(outcome, await memory)
    if scenario.compares and due_s is not None:
        on_progress("the same, spoken to directly")
        direct = await asyncio.to_thread(_measure_direct, scenario.step_ms, folder, plan, due_s)
        result |= _added(outcome.answers, direct)
    return {"scenario": scenario.name, "workers": workers, "niceness": niceness, **result}


def _measure_direct(
    step_ms: float, parent: str | None, plan: Sequence[Planned], due_s: Sequence[float]
) -> list[Answer]:
    with tempfile.TemporaryDirectory(prefix="casemate-bench-", dir=parent) as folder:
        engine = DirectEngine(_engine_program(step_ms), *_configure(Path(folder), 1, 0))
        gc.disable()  # As in the processes of the other load.
        try:
            return engine.run(plan, due_s)
        finally:
            gc.enable()
            engine.close()


def _added(answers: Sequence[Answer], direct: Sequence[Answer]) -> dict[str, Any]:
    """The appliance's percentiles less the engine's own."""
    whole = spread_ms(first_token_s(answer) for answer in answers if not answer.error)
    bare = spread_ms(first_token_s(answer) for answer in direct)
    added = {name: round(whole[name] - bare[name], 2) for name in bare if name in whole}
    return {"direct_ttft_ms": bare, "added_ttft_ms": added}


def _result(outcome: Outcome, before: dict[str, Usage], after: dict[str, Usage]) -> dict[str, Any]:
    summary = summarize(outcome.answers)
    wall_s = outcome.ended_at - outcome.began_at
    cores = {role: (usage.cpu_s - before[role].cpu_s) / wall_s for role, usage in after.items() if role in before}
    cores["load"] = outcome.load_cpu_s / wall_s
    summary["cores"] = {role: round(share, 3) for role, share in sorted(cores.items())}
    appliance_cores = sum(share for role, share in cores.items() if role not in ("load", "engine", "self"))
    summary["core_ms_per_request"] = round(1000 * appliance_cores * wall_s / max(1, len(outcome.answers)), 3)
    gateway_cpu_s = after["gateway"].cpu_s - before["gateway"].cpu_s
    num_tokens = sum(len(answer.arrivals) for answer in outcome.answers)
    if gateway_cpu_s:
        summary["events_per_gateway_core_s"] = round(num_tokens / gateway_cpu_s)
        summary["requests_per_gateway_core_s"] = round(len(outcome.answers) / gateway_cpu_s)
    return summary


async def _watch_memory() -> list[tuple[float, int]]:
    """What the gateway workers have, time and again until cancelled."""
    samples: list[tuple[float, int]] = []
    try:
        while True:
            samples.append((time.perf_counter(), usage_by_role()["gateway"].pss_bytes))
            await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        return samples


def _memory(outcome: Outcome, samples: list[tuple[float, int]]) -> dict[str, float]:
    """The most at any time, and what it was mostly while all streams were open and had nothing to do.

    Not the most of that time: before the first client hears of an end, the worker may be ending thousands of streams already.
    """
    served = [answer for answer in outcome.answers if answer.arrivals]
    began = max((answer.arrivals[0] for answer in served), default=0.0)
    ended = min((answer.arrivals[-1] for answer in served), default=0.0)
    idle = [size for at, size in samples if began < at < ended]
    return {
        "gateway_peak_pss_mb": round(max(size for _, size in samples) / 1e6, 1),
        "gateway_idle_pss_mb": round(statistics.median(idle) / 1e6, 1) if idle else 0.0,
    }


@asynccontextmanager
async def _running(step_ms: float, workers: int, niceness: int, parent: str | None) -> AsyncIterator[Target]:
    """An appliance that is ready, and a client's token for it."""
    with tempfile.TemporaryDirectory(prefix="casemate-bench-", dir=parent) as folder:
        configuration, raw = _configure(Path(folder), workers, niceness)
        provision(configuration)
        supervisor = Supervisor(configuration, raw, Path(folder), programs={"engine": _engine_program(step_ms)})
        ready = asyncio.Event()

        async def on_ready(_facts: dict[str, dict[str, str]]) -> None:
            ready.set()

        running = asyncio.create_task(supervisor.run(on_ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if running.done():
                await running
            yield await asyncio.to_thread(_target, configuration)
        finally:
            if not running.done():
                signal.raise_signal(signal.SIGTERM)
            await running


def _engine_program(step_ms: float) -> tuple[str, ...]:
    return ("-m", "appliance.bench.paced_engine", "--step-ms", str(step_ms))


def _target(configuration: Configuration) -> Target:
    credentials = Credentials(*register_service(configuration, "load", actor="casemate bench"))
    url = f"https://127.0.0.1:{configuration.gateway.port}"
    ca_file = find_tls_identity(configuration).ca_certificate
    assert ca_file is not None
    client = ApplianceClient(url, issuer_of(configuration), ca_file)
    token = client.get_token(credentials, resource_of(configuration))
    return Target(url=url, model=MODEL, token=token["access_token"], ca_file=str(ca_file))


def _configure(folder: Path, workers: int, niceness: int) -> tuple[Configuration, bytes]:
    model = Path(appliance.demo.__file__).parent / "model"
    gateway_port, authority_port = _free_ports(2)
    file = folder / "casemate.toml"
    file.write_text(
        f"""
state_dir = "state"
[gateway]
port = {gateway_port}
workers = {workers}
[supervisor]
foreground_niceness = {niceness}
[authority]
port = {authority_port}
[policy]
max_concurrent_requests_per_client = 0
[[engines]]
model_path = {json.dumps(str(model))}
served_model_name = "{MODEL}"
"""
    )
    return load_configuration(file)


def _free_ports(count: int) -> list[int]:
    """Different ones of the loopback device that nobody uses now."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
