"""What FlashInfer's kernels reach on this GPU: `python -m tests.bench.attention FOLDER`, FOLDER holding the libraries.

Each figure is the median over replays of a graph that goes through several layers' pages, together larger than L2, in
random order of pages, with random data. Decode counts the bytes of keys and values, prefill the products of the causal
half. `plan` is the time that the host takes to plan a step. First the copy rate of this boot, to compare boots by.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.flashinfer.attention import FlashInferAttention, build_flashinfer_attention
from runtime.attention.flashinfer.calls import Cache, QueryKernel, Shape
from runtime.attention.flashinfer.libraries import LibraryName
from runtime.attention.pages import allocate_pages
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.libraries import FolderLibraries
from tests.support.attention_steps import device_tables, host_tables, send_tables

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 8, 128
DECODES = [(n, context) for n in (1, 8, 64, 256, 512) for context in (256, 2048, 8192)]
PREFILLS = [512, 2048, 8192]
CACHE_BYTES = 24 << 30
L2_BYTES = 64 << 20


def median_us(run: Callable[[], object], *, repeats: int = 20) -> float:
    """Median time of a replay of `run` captured in a graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times[3:])


class Bench:
    """A cache, a backend for each decode algorithm, and tables."""

    def __init__(self, folder: Path) -> None:
        self.libraries = FolderLibraries(folder)
        self.device = torch.device("cuda")
        page_bytes = 2 * PAGE_SIZE * NUM_KV_HEADS * HEAD_DIM * 2
        free, _ = torch.cuda.mem_get_info()
        num_pages = 512 * 8192 // PAGE_SIZE + 1
        num_pages = min(num_pages, min(CACHE_BYTES, free // 2) // page_bytes)
        self.flat = allocate_pages(
            num_layers=1, num_pages=num_pages, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM, device=self.device,
            dtype=torch.bfloat16,
        ).normal_()  # fmt: skip

    def layers(self, pages_each: int) -> Tensor:
        """As many layers as it takes to exceed L2, cut out of the one cache."""
        count = max(1, min(256, -(-2 * L2_BYTES // (pages_each * 2 * PAGE_SIZE * NUM_KV_HEADS * HEAD_DIM * 2))))
        each = min(pages_each + 1, self.flat.shape[1] // count)
        return self.flat[0, : count * each].view(count, each, *self.flat.shape[2:])

    def tables(self, lengths: list[tuple[int, int]]) -> tuple[SequenceTables, DeviceTables]:
        num_pages = sum(-(-context // PAGE_SIZE) for context, _ in lengths)
        host = host_tables(lengths, 1 + np.random.default_rng(0).permutation(num_pages))
        device = device_tables(len(lengths), num_pages, self.device)
        send_tables(host, device)
        return host, device

    def attention(self, pages: Tensor, decode: str, prefill: str, count: int, context: int) -> FlashInferAttention:
        return build_flashinfer_attention(
            pages, self.libraries, JitLauncher(), num_heads=NUM_HEADS, query_dtype=torch.bfloat16,
            layer_windows=(None,) * len(pages), max_sequences=count, max_context_length=context, decode=decode, prefill=prefill,
        )  # fmt: skip

    def decode(self, algorithm: str, count: int, context: int) -> tuple[float, float]:
        """(microseconds a layer, microseconds to refresh)."""
        host, tables = self.tables([(context, 1)] * count)
        pages = self.layers(len(host.page_ids))
        attention = self.attention(pages, algorithm, "fa2", count, context)
        query = torch.randn(count, NUM_HEADS, HEAD_DIM, device=self.device).bfloat16()
        out = torch.empty_like(query)
        plan = attention.plan_capture(tables, count)
        attention.refresh(plan, host)

        def run() -> None:
            for layer in range(len(pages)):
                plan.attend(layer, query, out)

        elapsed = median_us(run) / len(pages)
        started = time.perf_counter()
        for _ in range(50):
            attention.refresh(plan, host)
        refreshed = (time.perf_counter() - started) / 50 * 1e6
        torch.cuda.synchronize()
        return elapsed, refreshed

    def decode_fp8(self, count: int, context: int) -> float:
        """Microseconds a layer with keys and values in e4m3, handed over as bytes."""
        host, _ = self.tables([(context, 1)] * count)
        pages = self.layers(len(host.page_ids) // 2 + 1).view(torch.uint8)
        pages = pages.reshape(-1).view(len(pages), -1, 2, PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM)
        per_row = context // PAGE_SIZE
        block_tables = torch.from_numpy(host.page_ids.reshape(count, per_row)).to(self.device) % pages.shape[1]
        kernel = QueryKernel(
            LibraryName("xqa", "bf16", "e4m3", HEAD_DIM, False, NUM_HEADS // NUM_KV_HEADS),
            self.libraries,
            Shape(NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, None),
            num_multiprocessors=torch.cuda.get_device_properties(0).multi_processor_count,
            semaphores=torch.zeros(count * NUM_KV_HEADS, dtype=torch.int32, device=self.device),
            scratch=torch.empty(256 << 20, dtype=torch.uint8, device=self.device),
        )
        lengths = torch.full((count,), context, dtype=torch.int32, device=self.device)
        query = torch.randn(count, NUM_HEADS, HEAD_DIM, device=self.device).bfloat16()
        out = torch.empty_like(query)

        def run() -> None:
            for layer in pages:
                kernel.run(Cache(layer[:, 0], layer[:, 1]), block_tables, lengths, query, out)

        return median_us(run) / len(pages)

    def prefill(self, algorithm: str, length: int) -> tuple[float, float]:
        """(microseconds a layer, microseconds to plan)."""
        host, tables = self.tables([(length, length)])
        pages = self.layers(len(host.page_ids))
        attention = self.attention(pages, "fa2", algorithm, 1, length)
        query = torch.randn(length, NUM_HEADS, HEAD_DIM, device=self.device).bfloat16()
        out = torch.empty_like(query)
        started = time.perf_counter()
        plan = attention.plan(host, tables)
        plan.work_of(None)
        planned = (time.perf_counter() - started) * 1e6

        def run() -> None:
            for layer in range(min(8, len(pages))):
                plan.attend(layer, query, out)

        return median_us(run) / min(8, len(pages)), planned


def copy_rate() -> float:
    """Bytes read and written a second by a copy of 4 GiB, in TB/s."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_us(lambda: target.copy_(source)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("decode", "prefill"))
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copy {copy_rate():.2f} TB/s")
    bench = Bench(args.folder)
    if args.only != "prefill":
        print(
            "decode: sequences x tokens     fa2: us  TB/s  refresh us    xqa: us  TB/s  refresh us    xqa e4m3: us  TB/s"
        )
        for count, context in DECODES:
            if count * context // PAGE_SIZE >= bench.flat.shape[1]:
                continue
            size = 2 * count * context * NUM_KV_HEADS * HEAD_DIM * 2
            cells = [f"{count:4d} x {context:5d}                "]
            for algorithm in ("fa2", "xqa"):
                try:
                    elapsed, refreshed = bench.decode(algorithm, count, context)
                    cells.append(f"{elapsed:12.1f} {size / elapsed / 1e6:5.2f} {refreshed:10.1f}  ")
                except (EngineMisconfigured, RuntimeError) as error:
                    cells.append(f" {str(error)[:60]} ")
            try:
                elapsed = bench.decode_fp8(count, context)
                cells.append(f"{elapsed:14.1f} {size / 2 / elapsed / 1e6:5.2f}")
            except (EngineMisconfigured, RuntimeError) as error:
                cells.append(f" {str(error)[:60]}")
            print("".join(cells), flush=True)
    if args.only != "decode":
        print("prefill: tokens     fa3: us  TFLOP/s  plan us    fa2: us  TFLOP/s  plan us")
        for length in PREFILLS:
            cells = [f"{length:6d}       "]
            for algorithm in ("fa3", "fa2"):
                try:
                    elapsed, planned = bench.prefill(algorithm, length)
                    products = 2 * length * length * NUM_HEADS * HEAD_DIM
                    cells.append(f"{elapsed:12.1f} {products / elapsed / 1e6:8.1f} {planned:8.1f}  ")
                except (EngineMisconfigured, RuntimeError) as error:
                    cells.append(f" {str(error)[:60]} ")
            print("".join(cells), flush=True)


if __name__ == "__main__":
    main()
