"""Measure the kernels and print tables: `python -m tests.bench.kernels [linear] [kernels] [attention] [chain]`."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module

import torch

from runtime.attention.triton import AttentionBlocks
from runtime.bench import linear_layers
from runtime.bench.decode_chain import DecodeChain
from runtime.bench.device_time import copy_bandwidth
from runtime.bench.kernels import KernelResult, measure_decode, measure_kernels, measure_prefill
from runtime.kernels.launching import Argument, Constant, Options
from runtime.kernels.linear import GemvBlocks
from tests.support.kernel_checks import TestingLauncher

ROWS = (1, 2, 4, 8)


class CompilingLauncher:
    """Compiles, in threads, and launches nothing: tensors may be on the device `meta`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(12)
        self._running = []

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        module, name = kernel.split(".")
        function = getattr(import_module(f"runtime.kernels.triton.{module}"), name)
        types = [argument.dtype if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        self._running.append(
            self._pool.submit(
                function.warmup, *types, grid=grid, **constants,
                num_warps=options.num_warps, num_stages=options.num_stages, launch_pdl=options.launch_pdl,
            )
        )  # fmt: skip

    def wait(self) -> None:
        for future in self._running:
            future.result()


def compile_linear() -> None:
    start, compiling = time.monotonic(), CompilingLauncher()
    for layer in linear_layers.LAYERS:
        for rows in ROWS:
            case = linear_layers.LayerCase(layer, rows, "meta")
            for blocks in linear_layers.candidates(layer, rows):
                case.run(compiling, case.weights[0], blocks, pdl=True)
    compiling.wait()
    print(f"compiled {len(compiling._running)} variants in {time.monotonic() - start:.1f} s", flush=True)


def print_linear(wall: float) -> dict[int, dict[str, GemvBlocks]]:
    compile_linear()
    best: dict[int, dict[str, GemvBlocks]] = {rows: {} for rows in ROWS}
    for results in linear_layers.sweep(TestingLauncher(), ROWS):
        layer, rows = results[0].layer, results[0].rows
        for result in sorted(results, key=lambda result: result.seconds):
            cut = "cublas" if result.blocks is None else str(result.blocks)
            print(f"{layer.name:8} x{rows} {result.seconds * 1e6:8.2f} us {result.bytes_per_second / 1e12:5.2f} TB/s "
                  f"{result.bytes_per_second / wall:5.2f} err {result.error:.1e} {cut}", flush=True)  # fmt: skip
        ours = min((result for result in results if result.blocks), key=lambda result: result.seconds)
        best[rows][layer.name] = ours.blocks
        line = {"layer": layer.name, "rows": rows, "us": ours.seconds * 1e6, "cublas_us": results[0].seconds * 1e6}
        print("BEST " + json.dumps(line | asdict(ours.blocks)), flush=True)
    return best


def print_result(result: KernelResult, wall: float, note: str = "") -> None:
    print(f"{result.name:20} {result.shape:12} err {result.error:.1e} {result.seconds * 1e6:9.2f} us "
          f"torch {result.reference_seconds * 1e6:9.2f} us wall share {result.share_of_wall(wall, 989e12):.2f} "
          f"{result.moved_bytes / result.seconds / 1e12:5.2f} TB/s {result.operations / result.seconds / 1e12:6.1f} TFLOP/s {note}",
          flush=True)  # fmt: skip


def print_attention(wall: float) -> None:
    cuts = [
        AttentionBlocks(tokens, warps, stages, programs)
        for tokens, warps, stages, programs in (
            (64, 4, 3, 4), (64, 4, 5, 4), (64, 4, 3, 2), (32, 4, 5, 4), (32, 2, 5, 4), (128, 4, 3, 4), (32, 4, 3, 8),
        )
    ]  # fmt: skip
    for cut in cuts:
        for sequences, context in ((1, 640), (8, 640), (64, 2048), (512, 640)):
            print_result(measure_decode(TestingLauncher(), sequences, context, blocks=cut), wall, str(cut))
    for rows, tokens, warps, stages in (
        (64, 64, 4, 3),
        (64, 128, 4, 3),
        (128, 64, 8, 3),
        (128, 128, 8, 3),
        (128, 64, 8, 5),
    ):
        cut = AttentionBlocks(prefill_rows=rows, prefill_tokens=tokens, prefill_warps=warps, prefill_stages=stages)
        print_result(measure_prefill(TestingLauncher(), 8192, blocks=cut), wall, f"{rows} {tokens} {warps} {stages}")


def print_chain(best: Mapping[int, Mapping[str, GemvBlocks]]) -> None:
    chain = DecodeChain(TestingLauncher())
    for rows in ROWS:
        blocks = dict(best.get(rows, {}))
        times = {
            "linear pdl": chain.seconds(rows, pdl=True, blocks=blocks, only_linear=True),
            "whole pdl": chain.seconds(rows, pdl=True, blocks=blocks),
        }
        if rows == 1:
            times["linear"] = chain.seconds(rows, pdl=False, blocks=blocks, only_linear=True)
            times["whole"] = chain.seconds(rows, pdl=False, blocks=blocks)
        print(
            f"chain x{rows}: " + ", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in times.items()),
            flush=True,
        )


def main() -> None:
    asked = sys.argv[1:] or ["linear", "kernels", "attention", "chain"]
    wall = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {wall / 1e12:.2f} TB/s, torch {torch.__version__}", flush=True)
    best = print_linear(wall) if "linear" in asked else {}
    if "chain" in asked:
        print_chain(best)
    if "kernels" in asked:
        for result in measure_kernels(TestingLauncher()):
            print_result(result, wall)
    if "attention" in asked:
        print_attention(wall)


if __name__ == "__main__":
    main()
