"""A real appliance for end-to-end tests: every process, TLS, the demo model, on free loopback ports."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from appliance.demo.client import ApplianceClient, Credentials
from tests.support.commands import run_casemate
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DEMO_MODEL = ROOT / "appliance" / "demo" / "model"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 90.0


@dataclass
class Appliance:
    """One running `casemate serve`. Use `running_appliance`."""

    directory: Path
    gateway_port: int = field(default_factory=free_port)
    authority_port: int = field(default_factory=free_port)
    head: str = ""
    """Keys above the first section."""
    extra: str = ""
    gateway_extra: str = ""
    workers: int = 1
    model: Path = DEMO_MODEL
    engine_extra: str = ""
    state_dir: str | Path = "state"
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.directory / self.state_dir

    @property
    def config_file(self) -> Path:
        return self.directory / "casemate.toml"

    @property
    def log_file(self) -> Path:
        return self.directory / "casemate.log"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.gateway_port}"

    @property
    def ca_file(self) -> Path:
        return self.state / "tls" / "ca.pem"

    @property
    def client(self) -> ApplianceClient:
        return ApplianceClient(self.url, f"https://127.0.0.1:{self.authority_port}", self.ca_file)

    def write_config(self) -> None:
        self.config_file.write_text(
            f"""
state_dir = {json.dumps(str(self.state_dir))}
{self.head}
[gateway]
port = {self.gateway_port}
workers = {self.workers}
{self.gateway_extra}
[authority]
port = {self.authority_port}
{self.extra}
[[engines]]
model_path = {json.dumps(str(self.model))}
served_model_name = "casemate-demo"
{self.engine_extra}
"""
        )

    def start(self, *, wait: bool = True) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.write_config()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance.cli.main", "serve", "--config", str(self.config_file)],
                stdout=log, stderr=log, cwd=self.directory, env={**os.environ, "PYTHONSAFEPATH": "1"},
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until `/ready` says yes on every connection of several: each is another worker's, if there are some."""
        started_s = time.monotonic()
        while not self.is_ready():
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log()}")
            assert time.monotonic() - started_s < timeout_s, f"not ready after {timeout_s} s:\n{self.log()}"
            time.sleep(0.05)

    def is_ready(self) -> bool:
        # The kernel draws whose a connection is: of two workers one is missed once in 32,768 times.
        num_asked = 1 if self.workers == 1 else 8 * self.workers
        return self.ca_file.exists() and all(self.status("/ready") == 200 for _ in range(num_asked))

    def status(self, path: str) -> int:
        """HTTP status of a GET without a token; 0 when the connection fails."""
        import http.client

        connection = http.client.HTTPSConnection("127.0.0.1", self.gateway_port, timeout=10, context=self.client.tls)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")[-6000:]

    def pids(self) -> dict[str, int]:
        """Process ids by `role/instance`, `supervisor` among them."""
        assert self.process is not None
        found = {"supervisor": self.process.pid}
        counters: dict[str, int] = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if "appliance.processes" in command:
                    role = command[command.index("appliance.processes") + 1]
                    number = counters.get(role, 0)
                    counters[role] = number + 1
                    found[f"{role}/{number}"] = child.pid
        return found

    def create_client(self, name: str = "tester", *options: str) -> Credentials:
        """By the command, in this process."""
        words = ["client", "create", name, "--json", "--config", str(self.config_file), *options]
        document = json.loads(run_casemate(*words))
        return Credentials(document["client_id"], document["client_secret"])

    def create_user(self, login: str, *options: str) -> dict[str, Any]:
        """A person, with the first password and the secret of their one-time codes."""
        words = ["user", "create", login, "--json", "--config", str(self.config_file), *options]
        document: dict[str, Any] = json.loads(run_casemate(*words))
        return document

    def token(self, credentials: Credentials | None = None) -> str:
        document: dict[str, Any] = self.client.get_token(credentials or self.create_client(), self.url)
        token: str = document["access_token"]
        return token

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Signal the supervisor and wait for the end; gives the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self.process = None
        return status


@contextlib.contextmanager
def running_appliance(directory: Path, **options: Any) -> Iterator[Appliance]:
    """Start an appliance, wait until it is ready, stop it afterwards."""
    appliance = Appliance(directory, **options)
    try:
        appliance.start()
        yield appliance
    finally:
        if appliance.process is not None:
            processes = list(appliance.pids().values()) if appliance.process.poll() is None else []
            try:
                appliance.stop()
            except subprocess.TimeoutExpired:
                for pid in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise
