"""How long a round of speculation takes on this GPU: `python -m tests.bench.speculative MODEL [--steps 7] [--kernels DIR]`.

A round is one step of a speculating engine: the target verifies a chain of drafts, the head reads what it computed and drafts
the next chain, all in captured graphs. MODEL is a folder with a `config.json` (weights are random); the head is of the
published shape for it, with random weights too, so hardly a draft is accepted: the time of a round is that of a token. For each
batch size: milliseconds of the device, of the host to launch, wall time a round with one in flight; beside it a step of that engine
while it makes no drafts, which keeps what the head would need, and a plain step of an engine without a head.
"""

import argparse
import gc
import json
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.batch import SpeculationBatch, StepBatch
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from runtime.speculative.source import HeadSource
from tests.bench.steps import measure, profile, rates, step
from tests.support.step_batches import sampling_batch

BATCHES = [1, 2, 4, 8, 16, 32, 64]
CONTEXT = 400


def head_config(model: dict[str, Any], draft_vocab_size: int) -> dict[str, Any]:
    """The published shape: one layer of the target's sizes, a vocabulary of 32,000."""
    names = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "vocab_size",
    )
    return {name: model[name] for name in names} | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "num_hidden_layers": 1,
        "head_dim": model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"],
        "draft_vocab_size": min(draft_vocab_size, model["vocab_size"]),
    }


def verification(runner: DeviceRunner, num_sequences: int, context: int, num_steps: int) -> StepBatch:
    """A step that verifies a chain for each sequence, as the overlapped loop sends it: continuing the step before.

    With `num_steps` 0 it is one of an engine that makes no drafts for now.
    """
    room = context + 4 * num_steps
    plain = step(runner, num_sequences, room, 0)
    num_queries = num_steps + 1
    firsts = np.full(num_sequences, context - num_queries, np.int64)
    positions = (firsts[:, None] + np.arange(num_queries)).reshape(-1)
    rows = np.repeat(np.arange(num_sequences), num_queries)
    count = len(positions)
    starts = (np.arange(num_sequences + 1) * num_queries).astype(np.int32)
    speculation = SpeculationBatch(
        num_decodes=num_sequences,
        num_pages=np.full(num_sequences, plain.page_tables.shape[1], np.int32),
        chain_starts=starts,
        continued=np.arange(num_sequences, dtype=np.int32),
        num_drafts=np.full(num_sequences, num_steps, np.int32),
        next_ids=np.full(count, -1, np.int64),
        num_steps=num_steps,
        drafts=np.full(num_sequences, num_steps > 0),
        deferred=None if num_steps else np.arange(num_sequences, dtype=np.int32),
    )
    return replace(
        plain,
        token_ids=np.zeros(count, np.int64),
        previous_rows=np.full(count, -1, np.int32),
        positions=positions,
        slots=plain.page_tables[rows, positions // 16].astype(np.int64) * 16 + positions % 16,
        query_starts=starts,
        context_lengths=np.full(num_sequences, context, np.int32),
        sample_rows=np.arange(count, dtype=np.int32),
        sampling=sampling_batch(count),
        speculation=speculation,
    )


def build(model: Path, options: argparse.Namespace, **given: Any) -> DeviceRunner:
    """A runner with random weights."""
    settings = EngineSettings(
        model_path=str(model), device="cuda", dtype="bfloat16", load_format="dummy", kernels_path=options.kernels,
        max_running_requests=max(options.batches), context_length=4096, chunked_prefill_size=2048,
        max_total_tokens=max(65_536, max(options.batches) * (CONTEXT + 64)),
        quantization=options.quantization, attention_backend=options.backend, **given,
    )  # fmt: skip
    head = HeadSource(Path(settings.speculative_draft_model_path), is_dummy=True) if given else None
    return build_device_runner(model, settings, choose_kernels(settings, print), advance=lambda: None, head=head).runner


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speculative", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kernels", default="")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--draft-vocab-size", type=int, default=32_000)
    parser.add_argument("--profile", type=int, default=0, metavar="ROWS")
    parser.add_argument("--plain", action="store_true", help="time plain steps as well")
    options = parser.parse_args()
    print(rates(), flush=True)
    print("batch | device ms  launch ms  wall ms  graph", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        config = head_config(json.loads((options.model / "config.json").read_text()), options.draft_vocab_size)
        Path(folder, "config.json").write_text(json.dumps(config))
        speculating = build(
            options.model, options, speculative_algorithm="EAGLE3", speculative_draft_model_path=folder,
            speculative_num_steps=options.steps, speculative_eagle_topk=1,
            speculative_num_draft_tokens=options.steps + 1,
        )  # fmt: skip
        for count, num_steps in product(options.batches, (options.steps, 0)):
            batch = verification(speculating, count, CONTEXT, num_steps)
            first = replace(batch, speculation=replace(batch.speculation, continued=np.full(count, -1, np.int32)))
            speculating.launch(first).result()
            device, launch, wall, size = measure(speculating, batch, 30)
            name = f"round of {num_steps}" if num_steps else "no drafts"
            print(f"{count:5d} | {device:9.3f} {launch:10.3f} {wall:8.3f} {size:6d}  {name}", flush=True)
            if options.profile and num_steps and count in (1, 8):
                profile(speculating, batch, options.profile)
        del speculating, batch, first
    if options.plain:
        gc.collect()  # Its graphs and pages are in circles, and the next runner takes what is free.
        torch.cuda.empty_cache()
        plain = build(options.model, options)
        for count in options.batches:
            device, launch, wall, size = measure(plain, step(plain, count, CONTEXT, 0), 30)
            print(f"{count:5d} | {device:9.3f} {launch:10.3f} {wall:8.3f} {size:6d}  plain", flush=True)


if __name__ == "__main__":
    main()
