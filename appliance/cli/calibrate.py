"""`casemate calibrate`: measures the scales of a KV cache in e4m3, on your own prompts.

The table goes to standard output; what goes on meanwhile is told on standard error.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from appliance.cli.progress import Progress
from appliance.drafting.prompts import load_token_ids
from appliance.errors import CommandFailed
from appliance.logging import configure_logging
from runtime.identifiers import PAGE_SIZE
from runtime.settings import EngineSettings
from runtime.weights.cache_scales_file import LayerScales, encode_cache_scales
from runtime.weights.config import load_model_config


def add_calibrate_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of `calibrate`."""
    calibrate = subparsers.add_parser(
        "calibrate",
        help="measure the scales of a KV cache in e4m3",
        description="Computes the prompts as they are served, and measures how large keys and values get in each layer. The file"
        ' goes to engines.quantization_param_path, beside kv_cache_dtype = "fp8_e4m3"; SGLang reads it, too.',
    )
    calibrate.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model that will be served")
    calibrate.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"messages": [...]} or {"prompt": "..."}, as `casemate draft train` takes them',
    )
    calibrate.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the scales go")
    calibrate.add_argument(
        "--percentile",
        type=float,
        default=100.0,
        help="of all magnitudes, that still fits; the rest is cut off (default: %(default)g, the largest)",
    )
    calibrate.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    calibrate.add_argument(
        "--quantization", choices=("auto", "fp8"), default="auto", help="as it will be served (default: %(default)s)"
    )
    calibrate.add_argument(
        "--attention-backend",
        choices=("auto", "triton", "reference"),
        default="auto",
        help="of the engine (default: %(default)s)",
    )
    calibrate.add_argument("--threads", type=int, default=1, help="of a CPU (default: %(default)s)")
    calibrate.set_defaults(handler=_calibrate)


def _calibrate(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.percentile <= 100:
        raise CommandFailed(f"--percentile: expected more than 0, at most 100, found {arguments.percentile:g}")
    if arguments.threads < 1:
        raise CommandFailed(f"--threads: expected at least 1, found {arguments.threads}")
    if arguments.out.exists():
        raise CommandFailed(f"{arguments.out} exists: remove it, or name another file")
    config = load_model_config(arguments.model)
    prompts = load_token_ids(
        arguments.prompts, arguments.model, vocab_size=config.vocab_size, max_tokens=config.max_position
    )
    # Only here, as they draw in torch: a wrong file is told at once.
    from appliance.inference.model import load_model
    from runtime.runner.calibration import calibrate

    configure_logging("calibrate")
    with Progress("calibrate") as progress:
        progress.say("loading the model")
        settings = _engine_settings(arguments, max(map(len, prompts)))
        model = load_model(settings, "calibrated", progress=lambda: None)
        found = calibrate(
            model.runner,
            prompts,
            chunk=settings.prefill_sizes[0],
            percentile=arguments.percentile,
            on_progress=lambda done, total: progress.advance("prompts", done, total),
        )
    origin: dict[str, str | int | float] = {
        "statistic": "amax" if arguments.percentile == 100 else "percentile",
        "percentile": arguments.percentile,
        "num_prompts": len(prompts),
        "num_tokens": found.num_tokens,
        "prompts_sha256": hashlib.sha256(arguments.prompts.read_bytes()).hexdigest(),
        "weights_sha256": model.runner.weights_digest,
        "engine_build": model.facts.engine_build,
    }
    content = encode_cache_scales(found.layers, config, origin)
    arguments.out.write_bytes(content)
    print(_table(found.layers))
    print(
        f"\n{arguments.out}: {found.num_tokens:,} tokens of {len(prompts):,} prompts, SHA-256 {hashlib.sha256(content).hexdigest()}"
    )
    return 0


def _engine_settings(arguments: argparse.Namespace, longest: int) -> EngineSettings:
    return EngineSettings(
        model_path=str(arguments.model),
        device=arguments.device,
        quantization=arguments.quantization,
        attention_backend=arguments.attention_backend,
        max_total_tokens=-(-longest // PAGE_SIZE) * PAGE_SIZE,
        context_length=longest,
        max_running_requests=1,
        cuda_graph_max_bs=0,
        num_threads=arguments.threads,
    )


def _table(layers: Sequence[LayerScales]) -> str:
    lines = ["| layer | k_scale | v_scale |", "|---:|---:|---:|"]
    lines += [f"| {index} | {scales.key:.6g} | {scales.value:.6g} |" for index, scales in enumerate(layers)]
    return "\n".join(lines)
