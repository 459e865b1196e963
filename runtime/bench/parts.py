"""What `casemate bench kernels` measures, part by part, as flat objects for JSON lines: times in µs, rates in TB/s."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch

from runtime.attention.triton import AttentionBlocks
from runtime.bench import block_search, decode_chain, linear_layers, quantized_layers
from runtime.bench.device_time import copy_bandwidth, product_rate
from runtime.bench.kernels import KernelResult, measure_decode, measure_kernels, measure_prefill
from runtime.kernels.launching import Launcher
from runtime.layers.quantized import E4M3

Line = dict[str, str | int | float]
Part = Callable[[Launcher, Sequence[int]], Iterator[Line]]
"""(launcher, numbers of rows) → lines, each as soon as it is measured."""

_DECODES = ((1, 640), (8, 640), (64, 2048), (512, 640))
_CACHE_DECODES = ((48, 16384), (64, 2048), (512, 640), (1, 32768))
_PREFILL_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Walls:
    """How fast a GPU copies and multiplies: what all times are read beside."""

    copy_tb_s: float
    bf16_tflop_s: float
    e4m3_tflop_s: float

    def share(self, line: Line, *, in_e4m3: bool) -> float:
        """How much of a line's time memory or arithmetic would take at these rates, whichever is longer: 1 is the wall."""
        product_tflop_s = self.e4m3_tflop_s if in_e4m3 else self.bf16_tflop_s
        return max(float(line["tb_s"]) / self.copy_tb_s, float(line.get("tflop_s", 0.0)) / product_tflop_s)


def measure_walls() -> Walls | None:
    """Of this machine's GPU; None: there is none."""
    if not torch.cuda.is_available():
        return None
    rates = (copy_bandwidth(), product_rate(torch.bfloat16), product_rate(E4M3))
    return Walls(*(round(rate / 1e12, 3) for rate in rates))


def describe_device(walls: Walls) -> Line:
    """The first line: the GPU and its walls."""
    return {"device": torch.cuda.get_device_name(), "torch": str(torch.__version__)} | asdict(walls)


def measure_part(name: str, launcher: Launcher, rows: Sequence[int], walls: Walls) -> Iterator[Line]:
    """The lines of one of PARTS; of single kernels with `wall_share`, see `Walls.share`."""
    for line in PARTS[name](launcher, rows):
        share: Line = {"wall_share": round(walls.share(line, in_e4m3=name == "e4m3"), 3)} if "tb_s" in line else {}
        yield {"part": name} | line | share


def _linear(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    for results in linear_layers.sweep(launcher, rows):
        for result in sorted(results, key=lambda result: result.seconds):
            line: Line = {
                "layer": result.layer.name,
                "rows": result.rows,
                "us": round(result.seconds * 1e6, 2),
                "tb_s": round(result.bytes_per_second / 1e12, 3),
                "error": result.error,
            }
            yield line | ({"kernel": "cublas"} if result.blocks is None else asdict(result.blocks))


def _e4m3(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    for results in quantized_layers.sweep(launcher, rows):
        for result in sorted(results, key=lambda result: result.seconds):
            line: Line = {
                "layer": result.layer,
                "rows": result.rows,
                "scales": "block" if result.by_block else "channel",
                "us": round(result.seconds * 1e6, 2),
                "bf16_us": round(result.bf16_seconds * 1e6, 2),
                "tb_s": round(result.bytes_per_second / 1e12, 3),
                "tflop_s": round(result.operations_per_second / 1e12, 1),
                "error": result.error,
            }
            yield line | ({"kernel": "engine"} if result.blocks is None else asdict(result.blocks))


def _chain(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    for result in decode_chain.compare(launcher, rows):
        yield {"rows": result.rows, "variant": result.variant, "us": round(result.seconds * 1e6, 1)}


def _search(launcher: Launcher, rows: Sequence[int], *, quantized: bool = False) -> Iterator[Line]:
    """What was better than all before it, the best of each product again at the end, and one that tells how many were tried."""
    for count in rows:
        best: dict[str, Line] = {}
        trials = 0
        for trial in block_search.search(launcher, count, quantized=quantized):
            trials += 1
            if trial.is_best:
                best[trial.name] = {"rows": count, "layer": trial.name, "us": round(1e6 * trial.seconds, 1)}
                best[trial.name] |= {"kernel": "cuBLAS"} if trial.blocks is None else asdict(trial.blocks)
                yield best[trial.name]
        for line in best.values():
            yield line | {"table": True}
        yield {"rows": count, "trials": trials}


def _kernels(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    for result in measure_kernels(launcher):
        yield _kernel_line(result)


def _attention(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    for tokens, warps, stages, programs in (
        (64, 4, 3, 4), (64, 4, 5, 4), (64, 4, 3, 2), (32, 4, 5, 4), (32, 2, 5, 4), (128, 4, 3, 4), (32, 4, 3, 8),
    ):  # fmt: skip
        blocks = AttentionBlocks(tokens, warps, stages, programs)
        for sequences, context in _DECODES:
            yield _kernel_line(measure_decode(launcher, sequences, context, blocks=blocks)) | {"blocks": str(blocks)}
    for queries, tokens, warps, stages in (
        (64, 64, 4, 3), (64, 128, 4, 3), (128, 64, 8, 3), (128, 128, 8, 3), (128, 64, 8, 5),
    ):  # fmt: skip
        blocks = AttentionBlocks(
            prefill_rows=queries, prefill_tokens=tokens, prefill_warps=warps, prefill_stages=stages
        )
        yield _kernel_line(measure_prefill(launcher, _PREFILL_TOKENS, blocks=blocks)) | {"blocks": str(blocks)}


def _cache(launcher: Launcher, rows: Sequence[int]) -> Iterator[Line]:
    """Keys and values in e4m3 beside bf16: decoding as it is, then with other cuts, then prompts."""
    for sequences, context in _CACHE_DECODES:
        yield _kernel_line(measure_decode(launcher, sequences, context))
        yield _kernel_line(measure_decode(launcher, sequences, context, cache_dtype=E4M3))
    for tokens, warps, stages, programs in (
        (64, 4, 5, 8), (128, 4, 3, 4), (128, 4, 3, 8), (128, 4, 5, 2), (128, 4, 5, 8), (128, 8, 3, 4), (128, 8, 5, 8),
        (64, 4, 3, 4), (256, 8, 3, 4),
    ):  # fmt: skip
        blocks = AttentionBlocks(tokens, warps, stages, programs)
        result = measure_decode(launcher, *_CACHE_DECODES[0], blocks=blocks, cache_dtype=E4M3)
        yield _kernel_line(result) | {"blocks": str(blocks)}
    for tokens in (2048, _PREFILL_TOKENS):
        yield _kernel_line(measure_prefill(launcher, tokens))
        yield _kernel_line(measure_prefill(launcher, tokens, cache_dtype=E4M3))


def _kernel_line(result: KernelResult) -> Line:
    """`torch_us` is missing where torch has nothing of the kind to be timed: JSON has no NaN."""
    reference_us = round(result.reference_seconds * 1e6, 2)
    reference: Line = {} if math.isnan(reference_us) else {"torch_us": reference_us}
    return {
        "kernel": result.name,
        "shape": result.shape,
        "us": round(result.seconds * 1e6, 2),
        **reference,
        "tb_s": round(result.moved_bytes / result.seconds / 1e12, 3),
        "tflop_s": round(result.operations / result.seconds / 1e12, 1),
        "error": result.error,
    }


PARTS: Mapping[str, Part] = {
    "linear": _linear,
    "e4m3": _e4m3,
    "chain": _chain,
    "search": _search,
    "search_e4m3": partial(_search, quantized=True),
    "kernels": _kernels,
    "attention": _attention,
    "cache": _cache,
}
