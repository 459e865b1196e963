"""What a schedule is worth, by simulation: `python -m tests.bench.schedule [WORKLOAD…] [--mixed ROWS…] [--drafts N --chance P]`.

The real engine loop and scheduler run the workloads of the load generator over a runner that computes nothing and says when
its steps would have ended on an H200: products by the rows of a step, attention by the keys that are read, as in "Where a
step's time goes" of docs/engine-speed.md. Nothing else takes time, so the figures are for comparing schedules with each other.
With `--drafts` the engine speculates by chains of so many drafts, each of which is right with the chance P, given that those
before it were: from a cold start, so with all that it needs to learn what pays.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from appliance.bench.workloads import WORKLOADS, Workload
from runtime.batch import ChainResult, SpeculationBatch, StepBatch, StepResult
from runtime.engine.loop import Engine
from runtime.request import GenerationRequest, SamplingParams
from runtime.settings import EngineSettings
from runtime.step_sizes import E4M3_MIXED_SIZES, MIXED_SIZES, STEP_SIZES, smallest_holding

VOCAB_SIZE = 128_256
_END = 1
_ROWS = (1, 8, 16, 32, 64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 8192)
_STEP_MS = {
    "bf16": (3.9, 4.0, 4.3, 4.4, 5.0, 5.8, 6.5, 7.4, 8.9, 9.7, 12.3, 15.6, 17.9, 23.3, 29.5, 34.5, 46.5, 190.0),
    "fp8": (2.5, 2.7, 2.8, 2.9, 3.1, 4.2, 4.9, 5.2, 6.4, 6.7, 7.7, 10.0, 11.6, 14.3, 18.5, 21.6, 28.3, 120.0),
}
"""By the weights, without attention."""
_MIXED_MS = 0.3
"""Of a step with decodes and prompts, whose attentions are launched one by one."""
_KV_BYTES, _BYTES_PER_MS = 131_072, 4.2e9
_PREFILL_FLOP = 4 * 32 * 128 * 32
"""For each pair of query and key: 32 heads of 128 in 32 layers."""
_FLOP_PER_MS = 5e11
_HOST_S = 0.0003
_DRAFT_MS, _DRAFT_ROW_MS = 0.25, 0.0035
"""Of the head, for a draft, and for each answer that it is for."""
_ENTRY_MS = 0.0009
"""Of the head, for each row that it reads."""


def step_seconds(batch: StepBatch, weights: str) -> float:
    """Of a Llama-3.1-8B shape."""
    lengths, contexts = np.diff(batch.query_starts), batch.context_lengths.astype(np.float64)
    is_decode = lengths == 1
    drafting = 0.0
    if (speculation := batch.speculation) is not None:
        is_decode |= np.arange(len(lengths)) < speculation.num_decodes
        entries = 0 if speculation.deferred is not None else int(lengths.sum())
        entries += 0 if speculation.late is None else len(speculation.late.places)
        drafting = entries * _ENTRY_MS + speculation.num_steps * (_DRAFT_MS + _DRAFT_ROW_MS * len(speculation.drafts))
    rows, queries, keys = int(lengths.sum()), lengths[~is_decode], contexts[~is_decode]
    padded = smallest_holding(STEP_SIZES, rows) or rows
    others = float(np.interp(padded if len(queries) else rows, _ROWS, _STEP_MS[weights]))
    decoding = contexts[is_decode].sum() * _KV_BYTES / _BYTES_PER_MS
    prefilling = (queries * (keys - queries / 2)).sum() * _PREFILL_FLOP / _FLOP_PER_MS
    mixed = _MIXED_MS if len(queries) and is_decode.any() else 0.0
    return (others + float(decoding) + float(prefilling) + mixed + drafting) / 1e3


@dataclass(frozen=True, slots=True)
class _TimedStep:
    num_samples: int
    busy_s: float
    chains: ChainResult | None

    def result(self) -> StepResult:
        """Tokens that end nothing."""
        return StepResult(
            token_ids=np.full(self.num_samples, 1000, np.int64),
            is_finite=np.ones(self.num_samples, np.bool_),
            logprobs=None,
            prompt_logprobs=None,
            busy_s=self.busy_s,
            chains=self.chains,
        )


class TimedRunner:
    """A `ModelRunner` whose clock is its own: steps run one after the other, each as long as it would."""

    vocab_size = VOCAB_SIZE

    def __init__(self, num_pages: int, weights: str, chance: float) -> None:
        """`chance`: that a draft is right, where those before it are."""
        self.num_pages = num_pages
        self._chance, self._random = chance, np.random.default_rng(1)
        self.mixed_sizes = E4M3_MIXED_SIZES if weights == "fp8" else MIXED_SIZES
        self._weights = weights
        self.now = 0.0
        self.num_steps = self.num_mixed = 0
        self._ended: list[float] = []

    def launch(self, batch: StepBatch) -> _TimedStep:
        """See `ModelRunner.launch`."""
        starts = max(self.now, self._ended[-1]) if self._ended else self.now
        seconds = step_seconds(batch, self._weights)
        self._ended.append(starts + seconds)
        self.num_steps += 1
        self.num_mixed += len(batch.token_ids) > len(batch.context_lengths)
        speculation = batch.speculation
        return _TimedStep(
            len(batch.sample_rows), seconds, None if speculation is None else self._chains(batch, speculation)
        )

    def _chains(self, batch: StepBatch, speculation: SpeculationBatch) -> ChainResult:
        num_chains, num_decodes = len(speculation.drafts), speculation.num_decodes
        verified = speculation.num_drafts[:num_decodes]
        right = self._random.random((num_decodes, max(1, int(verified.max(initial=0))))) < self._chance
        num_tokens = np.ones(num_chains, np.int32)
        num_tokens[:num_decodes] += np.minimum(right.cumprod(axis=1).sum(axis=1), verified).astype(np.int32)
        return ChainResult(num_tokens, np.full((num_chains, speculation.num_steps), 1000, np.int64))

    def wait(self) -> None:
        """Until the step before the last launched one has ended and was read."""
        if len(self._ended) > 1:
            self.now = max(self.now, self._ended[-2]) + _HOST_S


def simulate(name: str, workload: Workload, mixed_prefill_size: int, weights: str, drafts: int, chance: float) -> str:
    """One workload as a closed loop; a line of the table."""
    runner = TimedRunner(28_000, weights, chance)
    speculation = {
        "speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "none", "speculative_num_steps": drafts,
        "speculative_eagle_topk": 1, "speculative_num_draft_tokens": drafts + 1,
    }  # fmt: skip
    settings = EngineSettings(
        model_path="none", device="cuda", max_running_requests=512, mixed_prefill_size=mixed_prefill_size,
        **(speculation if drafts else {}),  # type: ignore[arg-type]
    )  # fmt: skip
    engine = Engine(runner, settings, [_END], 16_384, lambda: runner.now)
    random = np.random.default_rng(0)
    heads = random.integers(10, 100_000, (workload.num_groups, workload.shared_tokens))
    own = workload.prompt_tokens - workload.shared_tokens
    sent: list[float] = []
    first: dict[int, float] = {}
    num_ended = 0

    def send() -> None:
        number = len(sent)
        if number == workload.num_requests:
            return
        prompt = np.concatenate((heads[number % len(heads)], random.integers(10, 100_000, own))).tolist()
        sampling = SamplingParams(max_tokens=workload.output_tokens, temperature=0.0, ignore_eos=True)
        engine.submit(GenerationRequest(request_id=number, prompt=prompt, sampling=sampling))
        sent.append(runner.now)

    for _ in range(workload.concurrency):
        send()
    while num_ended < workload.num_requests:
        output = engine.step()
        runner.wait()
        first |= {delivery.request_id: runner.now for delivery in output.prompts}
        num_ended += len(output.summaries)
        for _ in output.summaries:
            send()
    ttft_ms = 1e3 * np.array([first[number] - at for number, at in enumerate(sent)])
    rate = workload.num_requests / runner.now
    return (
        f"{name:8} {mixed_prefill_size:6d} {rate * workload.output_tokens:10.0f} {rate * workload.prompt_tokens:10.0f} "
        f"{np.median(ttft_ms):9.0f} {np.percentile(ttft_ms, 99):9.0f} {runner.num_steps:7d} {runner.num_mixed:7d}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.schedule", description=__doc__)
    parser.add_argument("workload", nargs="*", default=["chat", "prefix", "summ", "heavy", "decode", "bs8"])
    parser.add_argument("--mixed", type=int, nargs="+", default=[2048], help="mixed_prefill_size")
    parser.add_argument("--weights", choices=tuple(_STEP_MS), default="bf16")
    parser.add_argument("--drafts", type=int, default=0, help="of a chain; 0: no speculation (default)")
    parser.add_argument("--chance", type=float, default=0.0, help="that a draft is right (default: 0)")
    options = parser.parse_args()
    print("workload  mixed   output/s   prompt/s  TTFT p50       p99   steps   mixed")
    for name in options.workload:
        for mixed in options.mixed:
            line = simulate(name, WORKLOADS[name], mixed, options.weights, options.drafts, options.chance)
            print(line, flush=True)


if __name__ == "__main__":
    main()
