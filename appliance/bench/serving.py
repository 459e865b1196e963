"""`casemate bench serve`: workloads against any OpenAI endpoint, one after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.bench.figures import summarize
from appliance.bench.fleet import run_fleet
from appliance.bench.page import Run
from appliance.bench.target import Target
from appliance.bench.workloads import Workload, arrival_times, plan_requests

_CONNECTIONS_AHEAD = 64


@dataclass(frozen=True)
class Load:
    """How workloads are sent."""

    vocab_size: int
    seed: int
    processes: int
    requests_per_s: float
    """Open loop; 0: closed loop, at the workload's concurrency."""
    timeout_s: float
    ttft_goal_s: float
    tpot_goal_s: float


async def measure_server(
    find_target: Callable[[], Target],
    workloads: dict[str, Workload],
    load: Load,
    *,
    on_progress: Callable[[str, int, int, int], None],
    on_run: Callable[[Run], None],
) -> None:
    """Run each workload.

    Args:
        find_target: called before each workload, as access tokens do not last.
        on_progress: told of name, answers, errors, and how many answers there will be.
        on_run: told of each result.
    Raises: CommandFailed.
    """
    for number, (name, workload) in enumerate(workloads.items()):
        plan = plan_requests(workload, load.vocab_size, load.seed + number)
        is_open = load.requests_per_s > 0
        concurrency = _CONNECTIONS_AHEAD if is_open else workload.concurrency
        num_requests = sum(max(1, len(planned.turns)) for planned in plan)

        def tell(answers: int, errors: int, name: str = name, total: int = num_requests) -> None:
            on_progress(name, answers, errors, total)

        tell(0, 0)
        outcome = await run_fleet(
            find_target(),
            plan,
            num_processes=min(load.processes, max(1, concurrency // 8)),
            concurrency=concurrency,
            due_s=arrival_times(len(plan), load.requests_per_s, load.seed) if is_open else None,
            timeout_s=load.timeout_s,
            opens_ahead=is_open,
            on_progress=tell,
        )
        summary = summarize(outcome.answers, ttft_goal_s=load.ttft_goal_s, tpot_goal_s=load.tpot_goal_s)
        summary["load_cores"] = round(outcome.load_cpu_s / max(1e-9, outcome.ended_at - outcome.began_at), 3)
        on_run(Run(name, {**_settings(name, workload, load), **summary}, outcome.answers))


def _settings(name: str, workload: Workload, load: Load) -> dict[str, Any]:
    settings: dict[str, Any] = {"workload": name, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    settings |= msgspec.to_builtins(workload)
    if load.requests_per_s:
        del settings["concurrency"]
        settings["offered_requests_per_s"] = load.requests_per_s
    return settings | {"seed": load.seed}
