"""`casemate bench`: measures a server as its clients see it, or parts of this one.

Results are JSON lines on standard output; what goes on meanwhile is told on standard error.
"""

import argparse
import asyncio
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from appliance.bench.target import Target
from appliance.bench.workloads import WORKLOADS, Workload
from appliance.cli.bench_speculation import add_speculative
from appliance.cli.progress import Progress
from appliance.demo.client import ApplianceClient, Credentials
from appliance.errors import CommandFailed
from appliance.logging import configure_logging

_KERNEL_PARTS = ("linear", "e4m3", "chain", "kernels", "attention", "cache")
"""What is measured by default; `search` beside them tries hundreds of ways."""


def add_bench_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of `bench`."""
    bench = subparsers.add_parser("bench", help="measure a server, or parts of this one")
    commands = bench.add_subparsers(metavar="WHAT", required=True)
    _add_serve(commands)
    host = commands.add_parser("host", help="what an engine step costs the host, the device aside")
    host.add_argument("--rows", type=int, default=512, help="sequences that decode (default: %(default)s)")
    host.add_argument("--steps", type=int, default=400, help="steps to measure (default: %(default)s)")
    host.set_defaults(handler=_measure_host)
    kernels = commands.add_parser("kernels", help="the kernels of this machine's GPU, each beside its reference")
    kernels.add_argument(
        "part", nargs="*", metavar="PART", help=f"{', '.join(_KERNEL_PARTS)} (default: all these), search, search_e4m3"
    )
    kernels.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        help="of `linear`, `e4m3`, `chain`, `search` (default: 1 2 4 8)",
    )
    kernels.set_defaults(handler=_measure_kernels)
    add_speculative(commands)
    gateway = commands.add_parser(
        "gateway", help="what everything around the engine costs, with a stand-in for the engine"
    )
    gateway.add_argument(
        "scenario", nargs="*", metavar="SCENARIO", help="requests, saturation, streams, burst, idle (default: all)"
    )
    gateway.add_argument("--rate", type=float, default=500.0, help="of `requests`, each second (default: %(default)g)")
    gateway.add_argument("--seconds", type=float, default=10.0, help="length of a scenario (default: %(default)g)")
    gateway.add_argument("--streams", type=int, default=10_000, help="of `idle` (default: %(default)s)")
    gateway.add_argument("--workers", type=int, default=1, help="gateway processes (default: %(default)s)")
    gateway.add_argument(
        "--niceness", type=int, default=0, help="supervisor.foreground_niceness (default: %(default)s)"
    )
    gateway.add_argument(
        "--dir", metavar="FOLDER", help="where the state is meanwhile, the log among it (default: temporary)"
    )
    gateway.set_defaults(handler=_measure_gateway)


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="a server as its clients see it: any OpenAI endpoint",
        description="Sends workloads to an OpenAI endpoint and prints a JSON line for each. Token-id prompts are streamed from"
        " /v1/completions, greedy and with ignore_eos; conversations from /v1/chat/completions.",
    )
    serve.add_argument("--url", required=True, help="the server, up to its port or to /v1")
    serve.add_argument("--model", required=True, help="name of the model")
    serve.add_argument("--workload", nargs="+", default=["chat"], metavar="NAME", help=f"of {', '.join(WORKLOADS)}")
    serve.add_argument("--requests", type=int, help="other number of requests than the workload's")
    serve.add_argument("--concurrency", type=int, help="other number of open requests")
    serve.add_argument("--prompt-tokens", type=int, help="other length of prompts")
    serve.add_argument("--output-tokens", type=int, help="other length of answers")
    serve.add_argument(
        "--allow-eos",
        action="store_true",
        help="answers may end before they have that length: ignore_eos is not sent, which some servers refuse",
    )
    serve.add_argument(
        "--rate", type=float, default=0.0, help="open loop: requests each second, as they come by chance"
    )
    serve.add_argument(
        "--vocab", type=int, default=100_000, help="token ids are drawn below this (default: %(default)s)"
    )
    serve.add_argument("--seed", type=int, default=7, help="of the prompts (default: %(default)s)")
    serve.add_argument("--processes", type=int, default=6, help="that make the load, at most (default: %(default)s)")
    serve.add_argument("--timeout", type=float, default=300.0, help="seconds for one answer (default: %(default)g)")
    serve.add_argument("--goal-ttft-ms", type=float, default=0.0, help="goodput counts requests with at most this TTFT")
    serve.add_argument("--goal-tpot-ms", type=float, default=0.0, help="and at most this time per output token")
    serve.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    serve.add_argument("--ca-file", default="", metavar="FILE", help="certificate authority of the server")
    serve.add_argument("--insecure", action="store_true", help="do not check the server's certificate")
    serve.add_argument("--token-file", type=Path, metavar="FILE", help="with a bearer token")
    serve.add_argument("--authority", metavar="URL", help="of client credentials: the token is asked for at URL/token")
    serve.add_argument("--client-id", help="of client credentials")
    serve.add_argument("--client-secret-file", type=Path, metavar="FILE", help="of client credentials")
    serve.add_argument("--resource", help="of client credentials: whom the token is for (default: the URL)")
    serve.set_defaults(handler=_measure_server)


def _measure_server(arguments: argparse.Namespace) -> int:
    from appliance.bench.page import Run, render_page
    from appliance.bench.serving import Load, measure_server

    workloads = _chosen_workloads(arguments)
    load = Load(
        vocab_size=arguments.vocab,
        seed=arguments.seed,
        processes=arguments.processes,
        requests_per_s=arguments.rate,
        timeout_s=arguments.timeout,
        ttft_goal_s=arguments.goal_ttft_ms / 1000,
        tpot_goal_s=arguments.goal_tpot_ms / 1000,
    )
    runs: list[Run] = []
    with Progress("bench serve") as progress:

        def on_run(run: Run) -> None:
            runs.append(run)
            print(json.dumps(run.summary), flush=True)

        measuring = measure_server(
            lambda: _find_target(arguments),
            workloads,
            load,
            on_progress=_show(progress),
            on_run=on_run,
        )
        asyncio.run(measuring)
    if arguments.html is not None:
        command = shlex.join(["casemate", *sys.argv[1:]])
        arguments.html.write_text(render_page(f"{arguments.model} at {arguments.url}", command, runs), encoding="utf-8")
    return 0 if all(run.summary["requests"] for run in runs) else 1


def _chosen_workloads(arguments: argparse.Namespace) -> dict[str, Workload]:
    """Raises: CommandFailed."""
    changes = {
        "num_requests": arguments.requests,
        "concurrency": arguments.concurrency,
        "prompt_tokens": arguments.prompt_tokens,
        "output_tokens": arguments.output_tokens,
    }
    wanted = {name: value for name, value in changes.items() if value is not None}
    if any(value < 1 for value in wanted.values()):
        raise CommandFailed("numbers of requests and tokens start at 1")
    chosen = {}
    for name in arguments.workload:
        if name not in WORKLOADS:
            raise CommandFailed(f"there is no workload {name!r}: {', '.join(WORKLOADS)}")
        chosen[name] = msgspec.structs.replace(WORKLOADS[name], **wanted)
        if chosen[name].prompt_tokens < chosen[name].shared_tokens:
            raise CommandFailed(f"{name}: prompts share {chosen[name].shared_tokens} tokens, so they are no shorter")
    return chosen


def _find_target(arguments: argparse.Namespace) -> Target:
    """The endpoint with a token that is good for a while. Raises: CommandFailed."""
    token = ""
    if arguments.token_file is not None:
        token = arguments.token_file.read_text().strip()
    elif arguments.authority is not None:
        if arguments.client_id is None or arguments.client_secret_file is None or not arguments.ca_file:
            raise CommandFailed("--authority needs --client-id, --client-secret-file and --ca-file")
        credentials = Credentials(arguments.client_id, arguments.client_secret_file.read_text().strip())
        client = ApplianceClient(arguments.url, arguments.authority.rstrip("/"), Path(arguments.ca_file))
        resource = arguments.resource or arguments.url.rstrip("/").removesuffix("/v1")
        token = str(client.get_token(credentials, resource)["access_token"])
    return Target(
        url=arguments.url,
        model=arguments.model,
        token=token,
        ca_file=arguments.ca_file,
        verify=not arguments.insecure,
        ignores_eos=not arguments.allow_eos,
    )


def _show(progress: Progress) -> Callable[[str, int, int, int], None]:
    """A bar that grows; where no terminal redraws it, a line for each tenth."""
    told: tuple[str, int] = ("", -1)

    def show(name: str, answers: int, errors: int, total: int) -> None:
        nonlocal told
        tenth = 10 * answers // max(1, total)
        if sys.stderr.isatty() or (name, tenth) != told:
            told = (name, tenth)
            filled = 30 * answers // max(1, total)
            failed = f", {errors} errors" if errors else ""
            progress.say(f"{name} [{'#' * filled}{'.' * (30 - filled)}] {answers}/{total}{failed}")

    return show


def _measure_host(arguments: argparse.Namespace) -> int:
    from appliance.inference.outgoing import Outgoing
    from appliance.messages.engine import REQUEST_ID_BITS
    from runtime.bench.host_time import measure_host_time
    from runtime.scheduling.delivery import StepOutput

    encoder = msgspec.msgpack.Encoder()

    def send(output: StepOutput) -> None:
        outgoing = Outgoing()
        for number, packed in output.plain.split(REQUEST_ID_BITS):
            outgoing.to(number).plain = packed
        for _, message in outgoing.messages():
            encoder.encode(message)

    with Progress("measuring the host's part of a step"):
        times = measure_host_time(arguments.rows, arguments.steps, send=send)
    result = {
        "rows": arguments.rows,
        "steps": arguments.steps,
        "plan_ms": _percentiles(times.plan),
        "collect_ms": _percentiles(times.collect),
        "send_ms": _percentiles(times.send),
    }
    print(json.dumps(result))
    return 0


def _measure_kernels(arguments: argparse.Namespace) -> int:
    from runtime.bench.parts import PARTS, describe_device, measure_part, measure_walls
    from runtime.kernels.launcher import JitLauncher

    walls = measure_walls()
    if walls is None:
        raise CommandFailed("this machine has no GPU that torch can use")
    for name in arguments.part:
        if name not in PARTS:
            raise CommandFailed(f"there is no part {name!r}: {', '.join(PARTS)}")
    print(json.dumps(describe_device(walls)), flush=True)
    with Progress("measuring kernels") as progress:
        for name in arguments.part or _KERNEL_PARTS:
            progress.say(name)
            for line in measure_part(name, JitLauncher(), arguments.rows, walls):
                print(json.dumps(line), flush=True)
    return 0


def _measure_gateway(arguments: argparse.Namespace) -> int:
    from appliance.bench.gateway import measure, scenarios

    configure_logging("bench")
    known = scenarios(arguments.rate, arguments.seconds, arguments.streams)
    for name in arguments.scenario or known:
        if name not in known:
            raise CommandFailed(f"there is no scenario {name!r}: {', '.join(known)}")
        with Progress("bench gateway") as progress:
            running = measure(
                known[name],
                workers=arguments.workers,
                niceness=arguments.niceness,
                folder=arguments.dir,
                on_progress=progress.say,
            )
            result = asyncio.run(running)
        print(json.dumps(result), flush=True)
    return 0


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * statistics.median(ordered), 3),
        "p99": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 3),
    }
