"""Where a step's time goes on this GPU: `python -m tests.bench.steps MODEL [--kernels DIR]`.

Builds the runner that an engine would have (dummy weights) and times single steps without scheduler or HTTP: decodes of
several batch sizes and contexts, and prompt chunks. For each: milliseconds of the device (events around the step), and of the
host to launch it. `--only rows` times chunks of many lengths, to see at which a row costs least; `--only shared`
decodes of which some have most of their context in common, and with `--apart` each of them reads it for itself. With
`--profile` the kernels that take the most time follow. First the copy and product rates of this boot, and what the start is
made of.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from runtime.attention import triton
from runtime.batch import StepBatch
from runtime.identifiers import PAGE_SIZE
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from tests.support.step_batches import sampling_batch

DECODES = [(1, 384), (2, 384), (4, 384), (8, 640), (16, 640), (64, 1150), (256, 1280), (512, 384)]
CHUNKS = [
    (0, 16), (0, 128), (7, 512), (0, 512), (64, 192), (64, 320), (64, 448), (64, 512), (64, 704), (64, 960), (64, 1024),
    (256, 768), (256, 1024), (0, 2048), (0, 8192),
]  # fmt: skip
ROWS = [*range(64, 1217, 64), 1536, 2048, 3072, 4096, 8192]

SHARED = [
    *(((64, 2304, 0), sharing) for sharing in (1, 2, 4, 16, 64)), ((64, 2304, 256), 4), ((64, 640, 0), 4),
    ((16, 2304, 0), 4), ((256, 1280, 0), 4), ((256, 1280, 0), 64),
]  # fmt: skip
"""Cases, and how many sequences each have most of their context in common."""


def step(runner: DeviceRunner, num_decodes: int, context: int, chunk: int, sharing: int = 1) -> StepBatch:
    """Decodes over `context` tokens each in pages of their own, and a prompt of `chunk` tokens.

    Args:
        sharing: so many sequences have seven eighths of their pages in common.
    """
    pages_each = -(-context // PAGE_SIZE) if num_decodes else 0
    width = max(pages_each, -(-chunk // PAGE_SIZE))
    random = np.random.default_rng(0)
    order = random.permutation(runner.num_pages - 1)[: num_decodes * pages_each + -(-chunk // PAGE_SIZE)] + 1
    tables = np.zeros((num_decodes + (chunk > 0), width), np.int32)
    tables[:num_decodes, :pages_each] = order[: num_decodes * pages_each].reshape(num_decodes, -1 if num_decodes else 0)
    common = pages_each * 7 // 8
    tables[:num_decodes, :common] = tables[np.arange(num_decodes) // sharing * sharing, :common]
    lengths, contexts = [1] * num_decodes, [context] * num_decodes
    positions = [np.full(num_decodes, context - 1)]
    if chunk:
        tables[-1, : -(-chunk // PAGE_SIZE)] = order[num_decodes * pages_each :]
        lengths, contexts, positions = [*lengths, chunk], [*contexts, chunk], [*positions, np.arange(chunk)]
    rows = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate(positions)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return StepBatch(
        token_ids=random.integers(0, runner.vocab_size, len(position)),
        previous_rows=np.full(len(position), -1, np.int32),
        positions=position.astype(np.int64),
        slots=tables[rows, position // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + position % PAGE_SIZE,
        query_starts=starts,
        context_lengths=np.array(contexts, np.int32),
        page_tables=tables,
        sample_rows=starts[1:] - 1,
        sampling=sampling_batch(len(lengths)),
        page_copies=np.zeros((0, 2), np.int32),
    )


def measure(runner: DeviceRunner, batch: StepBatch, repeats: int) -> tuple[float, float, float, int]:
    """Medians in ms: device, host to launch, wall per step with one in flight; and the graph's size."""
    busy, launching = [], []
    previous = None
    for _ in range(3):
        runner.launch(batch).result()
    began = time.perf_counter()
    for _ in range(repeats):
        start = time.perf_counter()
        launched = runner.launch(batch)
        launching.append(1e3 * (time.perf_counter() - start))
        if previous is not None:
            busy.append(1e3 * previous.result().busy_s)
        previous = launched
    assert previous is not None
    size = previous.result().captured_size
    wall = 1e3 * (time.perf_counter() - began) / repeats
    return statistics.median(busy), statistics.median(launching), wall, size


def profile(runner: DeviceRunner, batch: StepBatch, rows: int) -> None:
    """Print the kernels of one step by the time that they take."""
    runner.launch(batch).result()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            runner.launch(batch).result()
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    for event in events[:rows]:
        print(f"    {event.self_device_time_total / 3e3:8.3f} ms {event.count // 3:5d} x  {event.key[:90]}")


def rates() -> str:
    """Copy and product rates of this boot."""
    source = torch.randn(1 << 30, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    left = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")

    def timed(run: object) -> float:
        assert callable(run)
        times = []
        for _ in range(10):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times)

    copy = 4 * source.numel() / timed(lambda: target.copy_(source)) / 1e12
    product = 2 * 8192**3 / timed(lambda: left @ left) / 1e12
    return f"{torch.cuda.get_device_name()}: copy {copy:.2f} TB/s, product of 8192^3 {product:.0f} TFLOP/s"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steps", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kernels", default="")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--graphs", type=int, default=512)
    parser.add_argument("--pieces", type=int, default=2048, help="piecewise_cuda_graph_max_tokens")
    parser.add_argument("--profile", type=int, default=0, metavar="ROWS")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--only", choices=("decode", "prefill", "rows", "shared"))
    options = parser.parse_args()
    if options.apart:
        for name in ("DEFAULT_BLOCKS", "E4M3_BLOCKS"):
            setattr(triton, name, replace(getattr(triton, name), shared_rows=0))
    print(rates(), flush=True)
    settings = EngineSettings(
        model_path=str(options.model), device="cuda", dtype="bfloat16", attention_backend=options.backend,
        load_format="dummy", kernels_path=options.kernels, max_running_requests=512, context_length=16_384,
        cuda_graph_max_bs=options.graphs, quantization=options.quantization,
        piecewise_cuda_graph_max_tokens=options.pieces, kv_cache_dtype=options.kv_cache_dtype,
    )  # fmt: skip
    stamps = [time.perf_counter()]
    built = build_device_runner(
        options.model, settings, choose_kernels(settings, print), advance=lambda: stamps.append(time.perf_counter())
    )
    ended = time.perf_counter()
    parts = f"weights {stamps[1] - stamps[0]:.1f}, trial {stamps[2] - stamps[1]:.1f}, {len(stamps) - 3} sizes of graphs"
    print(f"built in {ended - stamps[0]:.1f} s: {parts} {ended - stamps[2]:.1f}", *built.memory.lines(), sep="\n  ")
    runner = built.runner
    print("decodes context chunk | device ms  launch ms  wall ms  graph  us a row", flush=True)
    cases = [(n, context, 0) for n, context in DECODES] if options.only in (None, "decode") else []
    cases += [(n, 1150, chunk) for n, chunk in CHUNKS] if options.only in (None, "prefill") else []
    cases += [(0, 0, chunk) for chunk in ROWS] if options.only == "rows" else []
    shares = [1] * len(cases)
    if options.only == "shared":
        cases, shares = [case for case, _ in SHARED], [sharing for _, sharing in SHARED]
    for (num_decodes, context, chunk), sharing in zip(cases, shares, strict=True):
        batch = step(runner, num_decodes, context, chunk, sharing)
        device, launch, wall, size = measure(runner, batch, 8 if chunk else 30)
        each = 1e3 * device / (num_decodes + chunk)
        print(
            f"{num_decodes:7d} {context:7d} {chunk:5d} | {device:9.3f} {launch:10.3f} {wall:8.3f} {size:6d} {each:9.2f}",
            flush=True,
        )
        if options.profile:
            profile(runner, batch, options.profile)


if __name__ == "__main__":
    main()
