"""`casemate bench speculative`: which drafts are fastest on your own prompts, at which batch size.

The table goes to standard output, or JSON lines with `--json`; what goes on meanwhile is told on standard error.
"""

import argparse
import json
import sys
from pathlib import Path

from appliance.bench.speculation import (
    Row,
    Shape,
    Shapes,
    best_rows,
    choose_shape,
    configuration_lines,
    describe,
    find_shapes,
    format_table,
)
from appliance.cli.progress import Progress
from appliance.drafting.prompts import load_token_ids
from appliance.errors import CommandFailed
from appliance.logging import configure_logging
from runtime.errors import RequestRejected
from runtime.identifiers import PAGE_SIZE
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig, load_model_config

_BATCH_SIZES = [1, 2, 4, 8, 16, 32, 64]
_STEPS = [1, 2, 3, 5, 7]


def add_speculative(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of `bench speculative`."""
    parser = commands.add_parser(
        "speculative",
        help="which drafts are fastest on your own prompts, at which batch size",
        description="Loads a model and its draft head, on a GPU once for chains and once for each tree, lets them answer the"
        " prompts with every combination of the options and at every batch size, beside plain decoding, and prints a table, the"
        " best of each batch size and the lines for the configuration. What the engine refuses is skipped, and told.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model that will be served")
    parser.add_argument("--head", type=Path, required=True, metavar="FOLDER", help="its draft head")
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"messages": [...]} or {"prompt": "..."}, as `casemate draft train` takes them',
    )
    numbers = {
        "batch-sizes": (_BATCH_SIZES, "answers computed at a time"),
        "steps": (_STEPS, "of speculative_num_steps"),
        "topk": ([1], "of speculative_eagle_topk"),
        "draft-tokens": ([], "of speculative_num_draft_tokens"),
    }
    for name, (default, told) in numbers.items():
        shown = " ".join(map(str, default)) or "of a chain its steps and 1, of trees 8 and 16"
        parser.add_argument(f"--{name}", type=int, nargs="+", default=default, help=f"{told} (default: {shown})")
    parser.add_argument("--answers", type=int, default=32, help="to measure, at least (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of answers (default: greedy)")
    _add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print JSON lines: one a measurement, then the best")
    parser.set_defaults(handler=_measure)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument(
        "--quantization", choices=("auto", "fp8"), default="auto", help="as it will be served (default: %(default)s)"
    )
    parser.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8_e4m3"), default="auto", help="as it will be (default: %(default)s)"
    )
    parser.add_argument(
        "--quantization-param-path", default="", metavar="FILE", help="scales of the cache, as it will be served"
    )
    parser.add_argument(
        "--attention-backend",
        choices=("auto", "flashinfer", "triton", "reference"),
        default="auto",
        help="of the engine (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default: %(default)s)")


def _measure(arguments: argparse.Namespace) -> int:
    config = load_model_config(arguments.model)
    _verify(arguments)
    prompts = load_token_ids(
        arguments.prompts,
        arguments.model,
        vocab_size=config.vocab_size,
        max_tokens=config.max_position - arguments.max_tokens,
    )
    settings = _engine_settings(arguments, config, max(map(len, prompts)))
    # Only here, as it draws in torch: a wrong file is told at once.
    from appliance.drafting.tuning import Questions, search_all, split_shapes, verify_shape

    found = find_shapes(settings, arguments.steps, arguments.topk, arguments.draft_tokens, verify_shape)
    _tell_refused(found)
    configure_logging("bench")
    groups = split_shapes(found.accepted, settings)
    num_all, num_done = len(arguments.batch_sizes) * sum(1 + len(group) for group in groups), 0

    def on_row(row: Row) -> None:
        nonlocal num_done
        num_done += 1
        if arguments.json:
            print(json.dumps(describe(row)), flush=True)

    with Progress("bench speculative") as progress:

        def report(shape: Shape, batch_size: int, done: int, total: int) -> None:
            progress.advance(f"{num_done + 1} of {num_all}: batch size {batch_size}, {shape.name}", done, total)

        try:
            rows = search_all(
                settings,
                groups,
                arguments.batch_sizes,
                Questions(prompts, arguments.answers, arguments.max_tokens, arguments.temperature),
                on_loading=lambda: progress.say("loading the model and its head"),
                report=report,
                on_row=on_row,
            )
        except RequestRejected as error:
            raise CommandFailed(f"the engine does not answer a prompt: {error}") from error
    (_print_json if arguments.json else _print_text)(rows, str(arguments.head))
    return 0


def _verify(arguments: argparse.Namespace) -> None:
    """Raises: CommandFailed for options that cannot be meant."""
    for name in ("batch_sizes", "steps", "topk", "draft_tokens", "answers", "max_tokens", "threads"):
        given = getattr(arguments, name)
        least = min(given, default=1) if isinstance(given, list) else given
        if least < 1:
            raise CommandFailed(f"--{name.replace('_', '-')}: expected at least 1, found {least}")
    if not 0.0 <= arguments.temperature <= 100.0:
        raise CommandFailed(f"--temperature: expected 0 to 100, found {arguments.temperature:g}")


def _engine_settings(arguments: argparse.Namespace, config: ModelConfig, longest: int) -> EngineSettings:
    """Of an engine that has room for the largest batch of the longest prompts, its drafts included."""
    largest = max(arguments.batch_sizes)
    context_length = min(config.max_position, longest + arguments.max_tokens)
    most_drafts = max(*arguments.steps, *arguments.draft_tokens, 16)
    room = -(-(context_length + 3 * most_drafts + 1) // PAGE_SIZE) * PAGE_SIZE
    return EngineSettings(
        model_path=str(arguments.model),
        device=arguments.device,
        quantization=arguments.quantization,
        kv_cache_dtype=arguments.kv_cache_dtype,
        quantization_param_path=arguments.quantization_param_path,
        attention_backend=arguments.attention_backend,
        context_length=context_length,
        max_total_tokens=largest * room,
        max_running_requests=largest,
        cuda_graph_max_bs=largest,
        num_threads=arguments.threads,
        speculative_algorithm="EAGLE3",
        speculative_draft_model_path=str(arguments.head),
    )


def _tell_refused(shapes: Shapes) -> None:
    """Raises: CommandFailed where nothing is left."""
    for shape, reason in shapes.refused.items():
        sys.stderr.write(f"skipped: {shape.name}: {reason}\n")
    if not shapes.accepted:
        raise CommandFailed("the engine refuses every combination of --steps, --topk and --draft-tokens")


def _print_json(rows: list[Row], head: str) -> None:
    best = [describe(row) for row in best_rows(rows).values()]
    print(json.dumps({"best": best, "configuration": configuration_lines(choose_shape(rows), head)}))


def _print_text(rows: list[Row], head: str) -> None:
    print(format_table(rows))
    print()
    for row in best_rows(rows).values():
        print(f"batch size {row.batch_size}: {row.shape.name}, {row.speedup:.2f} of plain decoding")
    lines = configuration_lines(choose_shape(rows), head)
    if not lines:
        print("\nDrafts do not pay at any of these sizes: leave speculative_algorithm out of [[engines]].")
        return
    print(
        "\nIn the configuration, below [[engines]]; where they lose, the engine makes fewer drafts or none by itself:\n"
    )
    print("\n".join(lines))
