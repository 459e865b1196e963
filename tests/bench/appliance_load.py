"""Drive a load generator at a whole appliance: `python -m tests.bench.appliance_load --model DIR … -- COMMAND…`.

Starts `casemate serve` with one engine, registers a client, gets a token, and runs COMMAND with the environment variables
URL, TOKEN, NAME and SSL_CERT_FILE. Prints how long the start took, how much CPU time each process used, and for how much of the
time the device was busy with how many steps. The whole path is measured: TLS, token, quota, durable audit, engine.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.appliance import Appliance


def cpu_seconds(pids: dict[str, int]) -> dict[str, float]:
    """User and system time of each process so far."""
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}


def engine_totals(appliance: Appliance, token: str) -> tuple[float, float, float]:
    """Seconds that the device was busy so far, steps in CUDA graphs and steps outside."""
    connection = http.client.HTTPSConnection("127.0.0.1", appliance.gateway_port, context=appliance.client.tls)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    text = connection.getresponse().read().decode()
    connection.close()

    def total(stem: str, label: str = "") -> float:
        lines = [line for line in text.splitlines() if line.startswith(f"casemate_{stem}{{") and label in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    passes = "cuda_graph_passes_total"
    return total("forward_execution_seconds_total"), total(passes, '"cuda_graph"'), total(passes, '"none"')


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.appliance_load", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--workers", type=int, default=1, help="gateway workers")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="KEY=VALUE", help="a key of [[engines]], in TOML"
    )
    parser.add_argument("--unconfined", action="store_true", help="without the sandbox, for compilers and profilers")
    parser.add_argument("--ready-timeout", type=float, default=600, metavar="S", help="longest start")
    parser.add_argument("--log", type=Path, help="copy the appliance's log there")
    parser.add_argument("command", nargs="+", help="the load generator")
    options = parser.parse_args()
    no_limits = "[policy]\nmax_concurrent_requests_per_client = 0\n"
    confinement = "[confinement]\nenabled = false\n" if options.unconfined else ""
    with tempfile.TemporaryDirectory() as folder:
        appliance = Appliance(
            Path(folder),
            workers=options.workers,
            model=options.model.resolve(),
            extra=no_limits + confinement,
            engine_extra="\n".join(options.engine),
        )
        try:
            started = time.monotonic()
            appliance.start(wait=False)
            appliance.wait_ready(options.ready_timeout)
            print(f"ready after {time.monotonic() - started:.1f} s", flush=True)
            pids = appliance.pids()
            scraper = appliance.token(appliance.create_client("scraper", "--role", "operator"))
            totals = engine_totals(appliance, scraper)
            before, began = cpu_seconds(pids), time.monotonic()
            environment = {
                **os.environ,
                "URL": appliance.url,
                "TOKEN": appliance.token(),
                "NAME": "casemate-demo",
                "SSL_CERT_FILE": str(appliance.ca_file),
            }
            status = subprocess.run(options.command, env=environment, check=False).returncode
            wall = time.monotonic() - began
            for name, used in cpu_seconds(pids).items():
                print(f"  {name:<12} {100 * (used - before[name]) / wall:6.1f} % of a core")
            time.sleep(0.5)  # The engine tells its state four times a second.
            busy_s, captured, others = (
                now - then for now, then in zip(engine_totals(appliance, scraper), totals, strict=True)
            )
            print(
                f"  device busy {100 * busy_s / wall:.1f} % of {wall:.1f} s; {captured:.0f} steps in graphs, {others:.0f} outside"
            )
            return status
        except AssertionError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            appliance.stop()
            if options.log:
                options.log.write_text(appliance.log_file.read_text(errors="replace"))


if __name__ == "__main__":
    raise SystemExit(main())
