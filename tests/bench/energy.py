"""What a step and its parts cost in energy: `python -m tests.bench.energy MODEL --kernels DIR [--quantization fp8]`.

Each line is one thing done over and over until the card's clock has settled: milliseconds, watts and joules a time by NVML's
counter of energy, and the multiprocessors' clock. First products of a whole model's layers by cuBLAS, with weights from a normal
distribution and from a narrow uniform one; then our attention over all layers; then whole steps, as the engine runs them.
Watts differ by a tenth from line to line: the counter moves ten times a second.

Needs `nvidia-ml-py` beside what an engine needs.
"""

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
import torch

from runtime.attention.pages import allocate_pages
from runtime.attention.triton import TritonAttention, TritonPlan
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launcher import JitLauncher
from runtime.runner.device_building import build_device_runner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from tests.bench.steps import step
from tests.support.attention_steps import device_tables, host_tables, send_tables

NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 32, 8, 128
PRODUCTS = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
"""(outputs, inputs) of a layer."""
ROWS = (64, 256, 512, 1024)
DECODES = [(60, 1150), (252, 1280), (510, 384)]
STEPS = [(60, 1150, 0), (60, 1150, 196), (252, 1280, 0), (510, 384, 0), (252, 1280, 772), (0, 0, 8192)]
SETTLING_S, MEASURED_S = 0.7, 1.0


@dataclass(frozen=True)
class Cost:
    """Of one time."""

    ms: float
    watts: float
    megahertz: float

    @property
    def joules(self) -> float:
        return self.watts * self.ms / 1e3

    def show(self, name: str, rest: str = "") -> None:
        print(
            f"{name:44} {self.ms:8.3f} ms {self.watts:4.0f} W {self.megahertz:5.0f} MHz {self.joules:7.3f} J  {rest}",
            flush=True,
        )


def cost_of(run: Callable[[], object]) -> Cost:
    """Run for SETTLING_S, then measure for MEASURED_S."""
    card = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())

    def run_until(end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            run()
            count += 1
        return count

    run_until(time.perf_counter() + SETTLING_S)
    clocks: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.04):
            clocks.append(pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, before = time.perf_counter(), pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    count = run_until(began + MEASURED_S)
    elapsed, spent = time.perf_counter() - began, pynvml.nvmlDeviceGetTotalEnergyConsumption(card) - before
    ended.set()
    watcher.join()
    return Cost(1e3 * elapsed / count, spent / 1e3 / elapsed, statistics.median(clocks))


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """`run` as the replay of a graph, to its end."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def show_products(*, uniform: bool) -> None:
    """All layers' products of several numbers of rows."""

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.uniform_(-1e-3, 1e-3) if uniform else tensor.normal_(0.0, 0.02)

    cuda, bf16 = torch.device("cuda"), torch.bfloat16
    weights = [fill(torch.empty(shape, device=cuda, dtype=bf16)) for _ in range(NUM_LAYERS) for shape in PRODUCTS]
    for rows in ROWS:
        inputs = {k: torch.randn(rows, k, device=cuda, dtype=bf16) for k in {k for _, k in PRODUCTS}}

        def multiply(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for weight in weights:
                inputs[weight.shape[1]] @ weight.t()

        cost = cost_of(captured(multiply))
        products = 2 * rows * NUM_LAYERS * sum(n * k for n, k in PRODUCTS)
        rest = f"{products / cost.ms / 1e9:4.0f} TFLOP/s, {1e12 * cost.joules / products:.2f} pJ each"
        cost.show(f"products, {rows} rows, {'uniform' if uniform else 'normal'} weights", rest)


def show_attention() -> None:
    """Decodes over contexts of their own, through all layers."""
    for count, context in DECODES:
        num_pages = count * -(-context // PAGE_SIZE)
        host = host_tables([(context, 1)] * count, 1 + np.random.default_rng(0).permutation(num_pages))
        tables = device_tables(count, num_pages, torch.device("cuda"))
        send_tables(host, tables)
        pages = allocate_pages(
            num_layers=NUM_LAYERS, num_pages=num_pages + 1, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM,
            device=torch.device("cuda"), dtype=torch.bfloat16,
        ).normal_()  # fmt: skip
        attention = TritonAttention(
            pages, num_heads=NUM_HEADS, layer_windows=(None,) * NUM_LAYERS, launcher=JitLauncher(), max_decodes=count,
            num_multiprocessors=torch.cuda.get_device_properties(0).multi_processor_count,
        )  # fmt: skip
        query = torch.randn(count, NUM_HEADS, HEAD_DIM, device="cuda").bfloat16()
        out, plan = torch.empty_like(query), attention.plan_capture(tables, count)

        def attend(plan: TritonPlan = plan, query: torch.Tensor = query, out: torch.Tensor = out) -> None:
            for layer in range(NUM_LAYERS):
                plan.attend(layer, query, out)

        cost = cost_of(captured(attend))
        read = NUM_LAYERS * count * context * 2 * NUM_KV_HEADS * HEAD_DIM * 2
        cost.show(
            f"attention, {count} x {context}",
            f"{read / cost.ms / 1e9:.2f} TB/s, {1e12 * cost.joules / read:.0f} pJ a byte",
        )
        del pages, attention, plan
        gc.collect()


def show_steps(model: Path, kernels: str, quantization: Literal["auto", "fp8"]) -> None:
    """Whole steps, one in flight while the next is launched."""
    settings = EngineSettings(
        model_path=str(model), device="cuda", dtype="bfloat16", load_format="dummy", kernels_path=kernels,
        max_running_requests=512, context_length=16_384, quantization=quantization,
    )  # fmt: skip
    runner = build_device_runner(model, settings, choose_kernels(settings, print), advance=lambda: None).runner
    for num_decodes, context, chunk in STEPS:
        batch = step(runner, num_decodes, context, chunk)
        waiting = [runner.launch(batch)]

        def run() -> None:
            waiting.append(runner.launch(batch))  # noqa: B023
            waiting.pop(0).result()  # noqa: B023

        cost_of(run).show(f"step, {num_decodes} x {context} + {chunk} of a prompt")
        waiting[0].result()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.energy", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kernels", default="")
    parser.add_argument("--quantization", default="auto", choices=("auto", "fp8"))
    options = parser.parse_args()
    pynvml.nvmlInit()
    print(torch.cuda.get_device_name())
    for uniform in (False, True):
        show_products(uniform=uniform)
        gc.collect()
        torch.cuda.empty_cache()
    show_attention()
    torch.cuda.empty_cache()
    show_steps(options.model, options.kernels, options.quantization)


if __name__ == "__main__":
    main()
