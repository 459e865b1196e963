"""`casemate demo`: from nothing to an authenticated, audited answer, one numbered step after the other.

It uses the appliance as anybody would: starts `casemate serve`, registers a client, gets a token from the authority, asks
through the `openai` package, and verifies its own receipt with the log's key. There is no short cut through the inside.
"""

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import openai
from openai.types import CompletionUsage

from appliance.authority.addresses import issuer_of, resource_of
from appliance.cli.progress import Progress
from appliance.config import Configuration
from appliance.demo.client import ApplianceClient, Credentials
from appliance.errors import CommandFailed
from appliance.policy.registration import register_service
from audit.receipt import VerifiedReceipt, verify_receipt
from audit.signing_key import load_verifier_key

_START_TIMEOUT_S = 120.0

THINGS_TO_TRY = r"""
The appliance stays up at {gateway} until Ctrl-C. How to get a token (good for 10 minutes):

  TOKEN=$(curl -s --cacert {ca} -u {client} \
      -d grant_type=client_credentials {authority}/token | sed 's/.*"access_token": *"\([^"]*\).*/\1/')

Three things to try:
  1. Ask something else:
     curl --cacert {ca} -H "Authorization: Bearer $TOKEN" \
         -H 'Content-Type: application/json' {gateway}/v1/chat/completions -d '{{"model": "{model}",
         "messages": [{{"role": "user", "content": "How do I verify the audit log?"}}]}}'
  2. Verify the whole log, without the appliance:
     {casemate} audit verify {log} --key {vkey}
  3. Kill the engine while it runs, and see the appliance say so, and recover:
     pkill -9 -f 'appliance.processes engine'; curl -s --cacert {ca} {gateway}/health; sleep 5;
     curl -s --cacert {ca} {gateway}/health
"""


@dataclass(frozen=True)
class Demonstration:
    """One demonstration: an appliance by its configuration file, and a question."""

    config_file: Path
    configuration: Configuration
    question: str
    keeps_running: bool

    def run(self) -> int:
        """Show everything; gives the exit status. Stops the appliance at the end, or on Ctrl-C if it stays up."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        log_path = self.configuration.state_path / "casemate.log"
        log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(log_path, "wb") as log:
            process = self._start(log)
            try:
                self._show(process, log_path)
                if self.keeps_running:
                    self._stay(process)
            except KeyboardInterrupt:
                print()
            finally:
                _stop(process)
        return 0

    def _start(self, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "appliance.cli.main", "serve", "--config", str(self.config_file)]
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603

    def _show(self, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
        started = time.monotonic()
        client = self._wait_ready(process, log_path)
        print(f"[1/5] The appliance is ready after {time.monotonic() - started:.1f} s at {client.gateway}", flush=True)
        credentials = self._register()
        print(f"[2/5] Client registered: {credentials.client_id} (role user)", flush=True)
        token = client.get_token(credentials, client.gateway)
        print(
            f"[3/5] Access token from {client.authority}: {token['scope']}, valid {token['expires_in']} s", flush=True
        )
        request_id = self._ask(client, token["access_token"])
        receipt = self._receipt(client, token["access_token"], request_id)
        print(_describe_receipt(receipt), flush=True)
        if self.keeps_running:
            print(self._things_to_try(client, credentials), flush=True)

    def _wait_ready(self, process: "subprocess.Popen[bytes]", log_path: Path) -> ApplianceClient:
        """Wait until `/ready` says that a token came out of the engine.

        Raises: CommandFailed with the appliance's own words when it ends instead.
        """
        ca_file = self.configuration.state_path / "tls" / "ca.pem"
        deadline = time.monotonic() + _START_TIMEOUT_S
        with Progress("[1/5] Starting the appliance") as progress:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise CommandFailed(f"the appliance did not start:\n{_last_words(log_path)}")
                if ca_file.exists() and process.poll() is None:
                    client = ApplianceClient(resource_of(self.configuration), issuer_of(self.configuration), ca_file)
                    if client.is_ready():
                        return client
                progress.say("supervisor, auditor, policy, authority, engine, gateway")
                time.sleep(0.1)
        raise CommandFailed(f"the appliance was not ready within {_START_TIMEOUT_S:.0f} s; its log is {log_path}")

    def _register(self) -> Credentials:
        """Register a client of role user, as `casemate client create` does."""
        return Credentials(*register_service(self.configuration, "demo", actor="casemate demo"))

    def _ask(self, client: ApplianceClient, token: str) -> str:
        """Ask through the openai package, print the answer as it comes; gives the request's id."""
        print(f"[4/5] {self.question}", flush=True)
        model = self.configuration.engines[0].served_model_name
        with openai.OpenAI(
            base_url=f"{client.gateway}/v1",
            api_key=token,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=client.tls),
        ) as sdk:
            started = time.monotonic()
            response = sdk.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": self.question}],
                temperature=0,
                max_tokens=200,
                stream=True,
                stream_options={"include_usage": True},
            )
            usage = None
            print("      ", end="")
            for chunk in response.parse():
                print("".join(choice.delta.content or "" for choice in chunk.choices), end="", flush=True)
                usage = chunk.usage or usage
            print(f"\n      ({_describe_usage(usage)} in {time.monotonic() - started:.2f} s)", flush=True)
            return response.headers["x-request-id"]

    def _receipt(self, client: ApplianceClient, token: str, request_id: str) -> VerifiedReceipt:
        """Fetch our own receipt and verify it with the log's key, which a client gets out of band."""
        key = load_verifier_key(str(self.configuration.state_path / "audit" / "log.vkey"))
        return verify_receipt(client.fetch_receipt(token, request_id), [key], key.name)

    def _stay(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        raise CommandFailed("the appliance ended by itself; its log tells why")

    def _things_to_try(self, client: ApplianceClient, credentials: Credentials) -> str:
        state = self.configuration.state_path
        return THINGS_TO_TRY.format(
            gateway=client.gateway,
            authority=client.authority,
            model=self.configuration.engines[0].served_model_name,
            client=f"{credentials.client_id}:{credentials.client_secret}",
            ca=_shell_path(state / "tls" / "ca.pem"),
            log=_shell_path(state / "audit" / "log"),
            vkey=_shell_path(state / "audit" / "log.vkey"),
            casemate=_shell_path(Path(sys.executable).parent / "casemate"),
        )


def _describe_usage(usage: CompletionUsage | None) -> str:
    """How long the answer is, and what its drafts were worth."""
    if usage is None:
        return "no count of tokens"
    details, described = usage.completion_tokens_details, f"{usage.completion_tokens} tokens"
    num_passes = getattr(details, "spec_verify_ct", None)
    if details is None or details.accepted_prediction_tokens is None or not num_passes:
        return described
    # Each pass that verified drafts gave a token of its own beside those that were right: what SGLang calls the length.
    return f"{described}, acceptance length {1 + details.accepted_prediction_tokens / num_passes:.2f},"


def _describe_receipt(receipt: VerifiedReceipt) -> str:
    intent, outcome, checkpoint = receipt.intent, receipt.outcome, receipt.checkpoints[-1]
    indices = [str(record["metadata"]["sequence"]) for record in (intent, outcome) if record is not None]
    lines = [
        f"[5/5] Audit record: leaves {' and '.join(indices)} (intent and outcome)",
        f"      who: client {intent['actor'].get('app_uid')}, model: {intent['ai_model']['name']}, time: {intent['time']} ms (UTC)",
        f"      inclusion proven under the signed checkpoint of {checkpoint.origin}, {checkpoint.size} leaves,",
        f"      root {checkpoint.root.hex()}",
    ]
    return "\n".join(lines)


def _interrupt(_number: int, _frame: object) -> None:
    """Whatever ends the demonstration, the appliance that it started must end too."""
    raise KeyboardInterrupt


def _last_words(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()
    refusals = [line.removeprefix("casemate: ") for line in lines if line.startswith("casemate:")]
    return "\n".join(refusals or lines[-5:]) + f"\n(its log: {log_path})"


def _shell_path(path: Path) -> str:
    return shlex.quote(str(path))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Drain; a second signal after a while does not wait for open requests."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                continue
