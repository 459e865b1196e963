"""Whole decode steps over a KV cache in bf16 and in e4m3: `python -m tests.bench.cache_dtypes MODEL`.

By default 48 sequences of 16,384 tokens each, with bf16 and with FP8 weights, all dummies of MODEL's shape. Where the bf16 cache
does not fit the card, both caches are measured over fewer layers (and that is said): a step's attention grows with its layers
as its weights do. For each: milliseconds of the device (events around the step), the host's to launch it, and the e4m3 step's
share of the bf16 one. First the copy and product rates of this boot.
"""

import argparse
import gc
import json
import tempfile
from pathlib import Path

import torch

from runtime.runner.device_building import build_device_runner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from runtime.weights.config import load_model_config
from tests.bench.steps import measure, profile, rates, step

RESERVED_BYTES = 24 << 30
"""For weights, steps and graphs."""


def layers_that_fit(model: Path, tokens: int) -> int:
    """Of the model, with a bf16 cache of so many tokens."""
    config = load_model_config(model)
    _, total = torch.cuda.mem_get_info()
    return min(
        config.num_layers, (total - RESERVED_BYTES) * config.num_layers // (2 * config.kv_elements_per_token * tokens)
    )


def measure_step(
    model: Path, options: argparse.Namespace, quantization: str, kv_cache_dtype: str
) -> tuple[float, float]:
    """Milliseconds of device and host of one decode step."""
    settings = EngineSettings(
        model_path=str(model), device="cuda", dtype="bfloat16", load_format="dummy", kernels_path=options.kernels,
        attention_backend=options.backend, max_running_requests=options.sequences, context_length=options.context + 16,
        cuda_graph_max_bs=options.sequences, quantization=quantization, kv_cache_dtype=kv_cache_dtype,
        chunked_prefill_size=1024, piecewise_cuda_graph_max_tokens=0,
    )  # fmt: skip
    runner = build_device_runner(model, settings, choose_kernels(settings, print), advance=lambda: None).runner
    batch = step(runner, options.sequences, options.context, 0)
    device, launch, _, size = measure(runner, batch, options.repeats)
    assert size == options.sequences, "the step ran outside a graph"
    if options.profile:
        profile(runner, batch, options.profile)
    return device, launch


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cache_dtypes", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kernels", default="")
    parser.add_argument("--backend", default="triton")
    parser.add_argument("--sequences", type=int, default=48)
    parser.add_argument("--context", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--profile", type=int, default=0, metavar="ROWS")
    options = parser.parse_args()
    print(rates(), flush=True)
    gc.collect()
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        shape = json.loads((options.model / "config.json").read_text())
        shape["num_hidden_layers"] = layers_that_fit(options.model, options.sequences * (options.context + 16))
        Path(folder, "config.json").write_text(json.dumps(shape))
        print(f"{options.sequences} sequences x {options.context} tokens, {shape['num_hidden_layers']} layers")
        for quantization in ("auto", "fp8"):
            times = {}
            for kind in ("auto", "fp8_e4m3"):
                times[kind], launch = measure_step(Path(folder), options, quantization, kind)
                gc.collect()
                torch.cuda.empty_cache()
                print(
                    f"weights {quantization:5} cache {kind:9} device {times[kind]:8.3f} ms  launch {launch:.3f} ms",
                    flush=True,
                )
            print(
                f"weights {quantization:5} e4m3 takes {times['fp8_e4m3'] / times['auto']:.3f} of bf16's time",
                flush=True,
            )


if __name__ == "__main__":
    main()
