"""What a long prompt costs the host before its pass begins, and after it: `python -m tests.bench.long_prompt [--ids N…]`.

Every stage that handles the ids as a whole, each timed by itself over requests that come alone: in a gateway worker from the
body's bytes to the message for the engine, in the engine's process from that message to the batch, and from the step's result to
the message for the worker. Sockets, TLS, policy, the auditor and the device are left out. Between two requests the caches are
driven out, as the device's pass and other processes do it.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from appliance.gateway.api.completion_request import parse_completion_request
from appliance.gateway.api.validation import verify_prompt
from appliance.gateway.body import parse_object
from appliance.gateway.flow.request import encode_prompt
from appliance.gateway.settings import GatewaySettings
from appliance.inference.service import InferenceService
from appliance.inference.tickets import TicketGate
from appliance.ipc.edges import EdgeCodec
from appliance.messages.audit import Ticket
from appliance.messages.engine import ModelFacts, Submit
from audit.ticket import mint_ticket
from runtime.batch import StepBatch, StepResult
from runtime.engine.loop import Engine
from runtime.request import SamplingParams
from runtime.settings import EngineSettings
from runtime.step_sizes import MIXED_SIZES, MixedSizes

VOCAB_SIZE = 128_256
CONTEXT_LENGTH = 131_072
_END = 1
_KEY = bytes(32)
_FACTS = ModelFacts("model", VOCAB_SIZE, CONTEXT_LENGTH, [_END], "bench")
_SETTINGS = GatewaySettings()


class Stages:
    """Seconds of each stage, one for each request."""

    def __init__(self) -> None:
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self._began = 0.0

    def begin(self, at: float | None = None) -> None:
        """The next stage begins now, or began at that time."""
        self._began = time.perf_counter() if at is None else at

    def end(self, stage: str, at: float | None = None) -> None:
        """It ended, now or at that time, and the next one begins."""
        now = time.perf_counter() if at is None else at
        self.times[stage].append(now - self._began)
        self._began = now

    def table(self) -> str:
        """Medians and ninth deciles in ms."""
        lines = [
            f"  {stage:<34}{1e3 * statistics.median(times):8.3f}{1e3 * sorted(times)[len(times) * 9 // 10]:8.3f}"
            for stage, times in self.times.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _ReadStep:
    runner: "NotingRunner"
    num_samples: int

    def result(self) -> StepResult:
        """Tokens that end nothing."""
        self.runner.read_at = time.perf_counter()
        return StepResult(np.full(self.num_samples, 1000), np.ones(self.num_samples, np.bool_), None, None)


@dataclass
class NotingRunner:
    """A `ModelRunner` that computes nothing and notes when its steps are launched and read."""

    num_pages: int
    vocab_size: int = VOCAB_SIZE
    mixed_sizes: MixedSizes = MIXED_SIZES
    launched_at: float = 0.0
    read_at: float = 0.0

    def launch(self, batch: StepBatch) -> _ReadStep:
        """Only note it."""
        self.launched_at = time.perf_counter()
        return _ReadStep(self, len(batch.sample_rows))


class Worker:
    """The engine's link to the only worker."""

    peer_instance = 0


class LongPrompts:
    """A worker's and an engine's part, one request after the other."""

    def __init__(self, policy: Literal["fcfs", "lpm"], num_pages: int) -> None:
        self.stages = Stages()
        self._runner = NotingRunner(num_pages)
        settings = EngineSettings(model_path="none", chunked_prefill_size=16_384, schedule_policy=policy)
        self._engine = Engine(self._runner, settings, [_END], CONTEXT_LENGTH, time.monotonic)
        gate = TicketGate("model", lambda: 0)
        gate.set_key(_KEY)
        self._service = InferenceService(self._engine, gate, time.monotonic)
        self._gateway, self._receiver = EdgeCodec("gateway", "engine"), EdgeCodec("engine", "gateway")
        self._worker = Worker()
        self._number = 0
        self._others = np.zeros(1 << 24, np.int64)

    def run(self, ids: list[int]) -> None:
        """Serve one."""
        self._number += 1
        body = json.dumps({"model": "model", "prompt": ids, "stream": True, "max_tokens": 4}).encode()
        self._others += 1
        payload, ticket = self._work_of_the_gateway(body)
        self._others += 1
        self._work_of_the_engine(payload, ticket)

    def _work_of_the_gateway(self, body: bytes) -> tuple[bytes, Ticket]:
        stages = self.stages
        stages.begin()
        value = parse_object(body)
        stages.end("gateway: parse the body")
        (prompt,) = parse_completion_request(value, _SETTINGS).prompts
        assert not isinstance(prompt, str)
        stages.end("gateway: check the request")
        verify_prompt(prompt, _FACTS, "prompt")
        stages.end("gateway: check against the model")
        packed = encode_prompt(prompt)
        stages.end("gateway: pack")
        digest = hashlib.sha256(packed).digest()
        stages.end("gateway: one digest")
        submit = Submit(self._number, packed, SamplingParams(max_tokens=4), 1, b"tenant", 0, 60_000)
        payload = self._gateway.encode(submit)
        stages.end("gateway: encode the message")
        leave = {"worker": 0, "request_id": self._number, "index": self._number, "model": "model", "token_limit": 4}
        mac = mint_ticket(_KEY, prompt_digest=digest, expires_at_ms=1000, **leave)
        return payload, Ticket(mac=mac, expires_at_ms=1000, **leave)

    def _work_of_the_engine(self, payload: bytes, ticket: Ticket) -> None:
        stages, runner = self.stages, self._runner
        stages.begin()
        submit = self._receiver.decode(payload)
        stages.end("engine: decode the message")
        assert self._service.submit(self._worker, submit) is None
        stages.end("engine: take the request")
        self._engine.step()
        stages.end("engine: plan the prompt", at=runner.launched_at)
        self._service.accept(ticket)
        self._others += 1
        stages.begin()
        output = self._engine.step()
        stepped_at = time.perf_counter()
        stages.end("engine: plan the first decode", at=runner.launched_at)
        stages.begin(at=runner.read_at)
        stages.end("engine: collect the prompt", at=stepped_at)
        for _, message in self._service.sort_by_worker(output):
            self._receiver.encode(message)
        stages.end("engine: send the first token")
        while self._engine.has_work:
            stages.begin()
            output = self._engine.step()
            self._service.sort_by_worker(output)
        stages.end("engine: end the request")


def main() -> None:
    """Print a table for each kind of prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, nargs="+", default=[16, 8192, 16_000])
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--pages", type=int, default=60_000, help="of the cache; 4000: earlier prompts must be evicted")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    policies: tuple[Literal["fcfs", "lpm"], ...] = ("fcfs", "lpm")
    for policy, count, cached in itertools.product(policies, arguments.ids, (0.0, 0.9)):
        prompts = LongPrompts(policy, arguments.pages)
        common = random.integers(10, VOCAB_SIZE, int(count * cached)).tolist()
        for number in range(arguments.requests + 3):
            if number == 3:
                prompts.stages = Stages()
            prompts.run([*common, *random.integers(10, VOCAB_SIZE, count - len(common)).tolist()])
        print(f"{policy}, {count} ids, {cached:.0%} of them cached: median and ninth decile in ms")
        print(prompts.stages.table(), flush=True)


if __name__ == "__main__":
    main()
