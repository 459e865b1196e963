"""Chunks of prompts over a cache in e4m3: `python -m tests.bench.e4m3_chunks FOLDER`, FOLDER holding FlashInfer's libraries.

For each step, microseconds of one layer with 32 query and 8 key heads of 128: our own kernel over pages in e4m3 (`ours`); contexts
gathered and converted for FlashAttention 3 (`gathered`); the same step over a cache in bf16, as an engine computes it (`bf16`); and
which of the first two an engine takes. Each is the median over replays of a graph that goes through layers of together more than
L2. First the copy and product rates of this boot.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import torch

from runtime.attention.device import DevicePlan
from runtime.attention.flashinfer import contexts
from runtime.attention.flashinfer.attention import build_flashinfer_attention
from runtime.attention.triton import TritonAttention
from runtime.kernels.launcher import JitLauncher
from runtime.layers.quantized import E4M3
from tests.bench.attention import HEAD_DIM, NUM_HEADS, Bench, median_us
from tests.bench.steps import rates

STEPS = [
    *([(16_000, new)] for new in (16, 32, 64, 128, 256, 512, 2048, 8192)),
    *([(4096, new)] for new in (32, 64, 128, 512, 4096)),
    *([(1024, new)] for new in (64, 256, 1024)),
    *([(2048, new)] * 8 for new in (16, 64, 128, 256)),
    *([(1024, 1024)] * count for count in (2, 4, 8)),
    [(512, 512)],
]


def measure(bench: Bench, lengths: list[tuple[int, int]]) -> dict[str, float]:
    """Microseconds a layer, by who computes it."""
    host, tables = bench.tables(lengths)
    pages = bench.layers(len(host.page_ids))
    scales = torch.full((len(pages), 4), 0.02, device=bench.device)
    rounded = torch.empty(pages.shape, dtype=E4M3, device=bench.device)
    for source, target in zip(pages, rounded, strict=True):
        target.copy_(source)
    query = torch.randn(int(host.query_starts[-1]), NUM_HEADS, HEAD_DIM, device=bench.device).bfloat16()
    out = torch.empty_like(query)

    def time(plan: DevicePlan) -> float:
        def run() -> None:
            for layer in range(len(pages)):
                plan.attend(layer, query, out)

        return median_us(run, repeats=7) / len(pages)

    def theirs(cache: torch.Tensor, scales: torch.Tensor | None) -> tuple[float, bool]:
        attention = build_flashinfer_attention(
            cache, bench.libraries, JitLauncher(), num_heads=NUM_HEADS, query_dtype=torch.bfloat16,
            layer_windows=(None,) * len(pages), max_sequences=len(lengths), max_context_length=16_384, decode=None, scales=scales,
        )  # fmt: skip
        chosen = attention.takes_chunks(host)
        with patch.object(contexts, "_FEW_CONTEXTS", 1 << 20):
            return time(attention.plan_chunks(host, tables)), chosen

    ours = TritonAttention(
        rounded, num_heads=NUM_HEADS, layer_windows=(None,) * len(pages), launcher=JitLauncher(), max_decodes=1,
        num_multiprocessors=132, scales=scales, pdl=True,
    )  # fmt: skip
    found = {"ours": time(ours.plan_chunks(host, tables))}
    found["gathered"], chosen = theirs(rounded, scales)
    found["bf16"], _ = theirs(pages, None)
    return found | {"chosen": float(chosen)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.e4m3_chunks", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(rates())
    bench = Bench(options.folder)
    for lengths in STEPS:
        found = measure(bench, lengths)
        context, new = lengths[0]
        figures = ", ".join(f"{name} {found[name]:.0f}" for name in ("ours", "gathered", "bf16"))
        print(
            f"{len(lengths)} x {new} of {context}: {figures} us, {'gathered' if found['chosen'] else 'ours'} by an engine"
        )


if __name__ == "__main__":
    main()
