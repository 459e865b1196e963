"""`casemate eval`: what a form of a model costs in accuracy.

The table goes to standard output; what goes on meanwhile is told on standard error.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from appliance.cli.progress import Progress
from appliance.errors import CommandFailed
from appliance.gateway.text.tokenizer import load_tokenizer
from appliance.logging import configure_logging
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig, load_model_config

Tasks = Mapping[str, Mapping[str, int]]

_WINDOW = 1024


def add_evaluation_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of `eval`."""
    evaluation = subparsers.add_parser("eval", help="what a form of a model costs in accuracy")
    commands = evaluation.add_subparsers(metavar="WHAT", required=True)
    quant = commands.add_parser(
        "quant",
        help="a quantized model beside its bf16 self",
        description="Reads a text with both and compares their next-token distributions. The quantized form is a checkpoint of"
        ' its own (--quantized), or the model as `quantization = "fp8"` serves it. Arithmetic is the reference\'s, with e4m3'
        " emulated to the bit of its rounding, on every device; the cache is not quantized.",
    )
    quant.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model in bf16")
    quant.add_argument(
        "--quantized", type=Path, metavar="FOLDER", help="its quantized checkpoint (default: FP8 at load)"
    )
    quant.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text to read")
    quant.add_argument(
        "--window", type=int, help=f"tokens that are read together (default: {_WINDOW}, or as many as the model takes)"
    )
    quant.add_argument("--max-tokens", type=int, default=0, help="of the text, at most (default: all)")
    quant.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    quant.add_argument("--threads", type=int, default=1, help="of a CPU (default: %(default)s)")
    quant.add_argument(
        "--demo-tasks",
        type=int,
        metavar="N",
        help="for the demo model: let both forms answer one in N of its held-out questions",
    )
    quant.set_defaults(handler=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    config = load_model_config(arguments.model)
    window = _choose_window(arguments, config)
    token_ids = _read_text(arguments)
    # Only here, as it draws in torch: a wrong file is told at once.
    from runtime.evaluation.comparison import compare_models
    from runtime.runner.whole_texts import load_whole_texts
    from runtime.training.loop import pin_arithmetic

    configure_logging("eval")
    pin_arithmetic(arguments.threads)
    changed_folder = arguments.quantized or arguments.model
    _verify_forms(arguments)
    with Progress("eval quant") as progress:
        reference, quantized = (
            load_whole_texts(folder, device=arguments.device, num_positions=window, quantization=quantization)
            for folder, quantization in ((arguments.model, "auto"), (changed_folder, _quantization(arguments)))
        )
        comparison = compare_models(
            reference,
            quantized,
            token_ids,
            window=window,
            report=lambda done, total: progress.advance("text", done, total),
        )
        tasks = _measure_tasks(arguments, progress)
    rows = [
        ("perplexity", f"{comparison.reference_perplexity:.4f}", f"{comparison.perplexity:.4f}"),
        ("top-1 agreement", "", f"{100 * comparison.agreement:.2f} %"),
        ("KL divergence, mean", "", f"{comparison.mean_divergence:.6f}"),
        ("KL divergence, 99th percentile", "", f"{comparison.p99_divergence:.6f}"),
        *_task_rows(*tasks),
    ]
    print(f"{comparison.num_tokens:,} tokens of {arguments.text}; divergences in nats a token\n")
    print(format_table(rows))
    return 0


def format_table(rows: list[tuple[str, str, str]]) -> str:
    """The figures as a Markdown table."""
    return "\n".join(("| | bf16 | quantized |", "|---|---:|---:|", *(f"| {' | '.join(row)} |" for row in rows)))


def _choose_window(arguments: argparse.Namespace, config: ModelConfig) -> int:
    """Raises: CommandFailed."""
    if arguments.window is None:
        return min(_WINDOW, config.max_position)
    if not 2 <= arguments.window <= config.max_position:
        raise CommandFailed(f"--window: expected 2 to the model's {config.max_position}, found {arguments.window}")
    return int(arguments.window)


def _read_text(arguments: argparse.Namespace) -> list[int]:
    """Raises: CommandFailed for options and text that cannot be meant."""
    if arguments.max_tokens < 0 or arguments.threads < 1 or (arguments.demo_tasks or 1) < 1:
        raise CommandFailed("--max-tokens starts at 0, --threads and --demo-tasks at 1")
    try:
        text = arguments.text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{arguments.text}: not UTF-8: {error}") from error
    token_ids = load_tokenizer(arguments.model).encode_prompt(text)
    if len(token_ids) < 2:
        raise CommandFailed(f"{arguments.text}: {len(token_ids)} tokens, at least 2 are needed")
    return token_ids[: arguments.max_tokens or None]


def _verify_forms(arguments: argparse.Namespace) -> None:
    """Raises: CommandFailed where one is not of the form that it is given as."""
    if load_model_config(arguments.model).quantization is not None:
        raise CommandFailed(f"{arguments.model} is quantized itself: it is no reference")
    if arguments.quantized and load_model_config(arguments.quantized).quantization is None:
        raise CommandFailed(f"{arguments.quantized} is not quantized")


def _quantization(arguments: argparse.Namespace) -> str:
    return "auto" if arguments.quantized else "fp8"


def _measure_tasks(arguments: argparse.Namespace, progress: Progress) -> tuple[Tasks, Tasks]:
    """Of both forms; nothing unless it is asked for."""
    if not arguments.demo_tasks:
        return {}, {}
    from appliance.demo.tasks import choose_cases, measure_tasks

    cases = choose_cases(arguments.demo_tasks)
    measured = []
    for name, folder, quantization in (
        ("bf16", arguments.model, "auto"),
        ("quantized", arguments.quantized or arguments.model, _quantization(arguments)),
    ):
        settings = EngineSettings(
            model_path=str(folder),
            device=arguments.device,
            quantization="fp8" if quantization == "fp8" else "auto",
            num_threads=arguments.threads,
        )

        def report(done: int, stage: str = f"{name} tasks") -> None:
            progress.advance(stage, done, len(cases))

        measured.append(measure_tasks(settings, cases, report))
    return measured[0], measured[1]


def _task_rows(reference: Tasks, changed: Tasks) -> list[tuple[str, str, str]]:
    return [
        (f"{kind}, right of {figure['cases']}", str(figure["right"]), str(changed[kind]["right"]))
        for kind, figure in reference.items()
    ]
