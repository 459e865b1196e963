"""`casemate bench`: measures a server as its clients see it, or parts of this one.

Results are JSON lines on standard output; what goes on meanwhile is told on standard error.
"""

import argparse
import asyncio
import json
import statistics
from collections.abc import Sequence

import msgspec

from appliance.cli.progress import Progress
from appliance.errors import CommandFailed
from appliance.logging import configure_logging


def add_bench_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of `bench`."""
    bench = subparsers.add_parser("bench", help="measure a server, or parts of this one")
    commands = bench.add_subparsers(metavar="WHAT", required=True)
    host = commands.add_parser("host", help="what an engine step costs the host, the device aside")
    host.add_argument("--rows", type=int, default=512, help="sequences that decode (default: %(default)s)")
    host.add_argument("--steps", type=int, default=400, help="steps to measure (default: %(default)s)")
    host.set_defaults(handler=_measure_host)
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
    gateway.set_defaults(handler=_measure_gateway)


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


def _measure_gateway(arguments: argparse.Namespace) -> int:
    from appliance.bench.gateway import measure, scenarios

    configure_logging("bench")
    known = scenarios(arguments.rate, arguments.seconds, arguments.streams)
    for name in arguments.scenario or known:
        if name not in known:
            raise CommandFailed(f"there is no scenario {name!r}: {', '.join(known)}")
        with Progress("bench gateway") as progress:
            result = asyncio.run(measure(known[name], workers=arguments.workers, on_progress=progress.say))
        print(json.dumps(result), flush=True)
    return 0


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * statistics.median(ordered), 3),
        "p99": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 3),
    }
