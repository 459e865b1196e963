"""`casemate draft`: trains a head that drafts for a model, on your own prompts and the model's own answers.

The table of the report goes to standard output; what goes on meanwhile is told on standard error.
"""

import argparse
import shutil
from pathlib import Path

from appliance.cli.progress import Progress
from appliance.drafting.order import HeadOrder
from appliance.drafting.prompts import load_prompts
from appliance.errors import CommandFailed
from appliance.logging import configure_logging
from runtime.settings import EngineSettings
from runtime.training.draft.plan import HeadPlan, Sampling, Unrolling, default_layers
from runtime.weights.config import ModelConfig, load_model_config

_MEM_FRACTION = 0.6
"""Of a GPU, for the engine that answers: what remains is for the training, should any of it not be given back."""
_BYTES_PER_PARAMETER = 12 + 12
"""Weight and two moments in float32, and the file of before while the new one is written."""
_DRAFT_VOCAB_SIZE = 32_000


def add_draft_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parsers of `draft`."""
    draft = subparsers.add_parser("draft", help="train a head that drafts for a model")
    commands = draft.add_subparsers(metavar="WHAT", required=True)
    train = commands.add_parser(
        "train",
        help="an EAGLE-3 head for a model, from prompts",
        description="The model answers the prompts, greedily and sampled; a head learns to guess its answers several tokens"
        " ahead; what it is worth is measured on prompts that were held out, beside a two-gram draft. Run again after an"
        " interruption, the command goes on where it was.",
    )
    train.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model to draft for")
    train.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"messages": [...]} or {"prompt": "..."}, perhaps with "tools", "kind" and "held_out"',
    )
    train.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the head goes")
    train.add_argument("--state", type=Path, metavar="FOLDER", help="kept while it runs (default: OUT with .state)")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    _add_answers(train)
    _add_head(train)
    train.set_defaults(handler=_train)


def _add_answers(train: argparse.ArgumentParser) -> None:
    answers = train.add_argument_group("answers")
    answers.add_argument("--max-tokens", type=int, default=256, help="of an answer (default: %(default)s)")
    answers.add_argument(
        "--sampled-share",
        type=float,
        default=0.5,
        help="of the prompts; the others are answered greedily (default: %(default)g)",
    )
    answers.add_argument("--temperature", type=float, default=1.0, help="of sampled answers (default: %(default)g)")
    answers.add_argument("--batch", type=int, default=256, help="answers generated at once (default: %(default)s)")
    answers.add_argument(
        "--attention-backend",
        choices=("auto", "flashinfer", "triton", "reference"),
        default="auto",
        help="of the engine (default: %(default)s)",
    )


def _add_head(train: argparse.ArgumentParser) -> None:
    head = train.add_argument_group("head and training")
    head.add_argument(
        "--draft-vocab", type=int, default=_DRAFT_VOCAB_SIZE, help="tokens that can be drafted (default: %(default)s)"
    )
    head.add_argument("--intermediate-size", type=int, help="of the head's feed-forward (default: the model's)")
    head.add_argument(
        "--layers",
        type=int,
        nargs=3,
        metavar="N",
        help="the three hidden states that it reads, by how many layers they have passed (default: 2, half, all but 3)",
    )
    head.add_argument("--unroll", type=int, default=7, help="steps of drafting that are learnt (default: %(default)s)")
    head.add_argument(
        "--decay", type=float, default=0.8, help="weight of a step, of the one before (default: %(default)g)"
    )
    head.add_argument("--epochs", type=int, default=3, help="passes over all answers (default: %(default)s)")
    head.add_argument(
        "--tokens-per-step", type=int, default=16_384, help="of one optimizer step (default: %(default)s)"
    )
    head.add_argument("--muon-lr", type=float, default=0.02, help="of matrices (default: %(default)g)")
    head.add_argument(
        "--adam-lr",
        type=float,
        help="of the rest (default: 0.004 at hidden size 256, less in proportion for wider ones)",
    )
    head.add_argument("--drafts", type=int, default=5, help="of a round that is measured (default: %(default)s)")
    head.add_argument("--threads", type=int, default=1, help="of a CPU (default: %(default)s)")
    head.add_argument(
        "--bfloat16", action="store_true", help="on a CPU, round products to bfloat16, which may be faster"
    )
    head.add_argument("--no-graphs", action="store_true", help="on a GPU, launch every kernel anew")


def _train(arguments: argparse.Namespace) -> int:
    config = load_model_config(arguments.model)
    _verify(arguments, config)
    prompts = load_prompts(
        arguments.prompts,
        arguments.model,
        vocab_size=config.vocab_size,
        max_tokens=config.max_position - arguments.max_tokens,
    )
    # Only here, as it draws in torch: a wrong file is told at once.
    from appliance.drafting.report import format_table, write_report
    from appliance.drafting.training import train_on_prompts

    configure_logging("draft")
    with Progress("draft train") as progress:
        report = train_on_prompts(_order(arguments), prompts, on_progress=progress.advance)
    write_report(report, arguments.out)
    print(format_table(report.kinds))
    print(
        f"\n{arguments.out}: {report.size_bytes / 1e6:.1f} MB, {report.draft_vocab_size:,} tokens can be drafted "
        f"({100 * report.coverage:.2f} % of what the model says)"
    )
    return 0


def _verify(arguments: argparse.Namespace, config: ModelConfig) -> None:
    """Raises: CommandFailed for what cannot be meant, and for a disk that is too small; EngineMisconfigured for the layers."""
    for name in ("max_tokens", "batch", "draft_vocab", "unroll", "epochs", "tokens_per_step", "drafts", "threads"):
        if getattr(arguments, name) < 1:
            raise CommandFailed(f"--{name.replace('_', '-')}: expected at least 1, found {getattr(arguments, name)}")
    if not 0.0 <= arguments.sampled_share <= 1.0:
        raise CommandFailed(f"--sampled-share: expected 0 to 1, found {arguments.sampled_share:g}")
    if not 0.0 <= arguments.temperature <= 100.0 or (arguments.sampled_share and not arguments.temperature):
        raise CommandFailed(f"--temperature: expected more than 0, at most 100, found {arguments.temperature:g}")
    if not 0.0 < arguments.decay <= 1.0:
        raise CommandFailed(f"--decay: expected more than 0, at most 1, found {arguments.decay:g}")
    if arguments.max_tokens >= config.max_position:
        raise CommandFailed(f"--max-tokens: expected fewer than the model's {config.max_position} positions")
    if arguments.layers and not 1 <= min(arguments.layers) <= max(arguments.layers) <= config.num_layers:
        raise CommandFailed(f"--layers: expected numbers from 1 to {config.num_layers}, found {arguments.layers}")
    if arguments.layers and arguments.layers != sorted(set(arguments.layers)):
        raise CommandFailed(f"--layers: expected three different ones, ascending, found {arguments.layers}")
    if (arguments.out / "model.safetensors").exists() and not _state_of(arguments).exists():
        raise CommandFailed(f"{arguments.out} holds a head: remove it, or name another folder")
    _verify_space(arguments, config)
    if not arguments.layers:
        default_layers(config.num_layers)  # Else it would be told when all answers are there.


def _verify_space(arguments: argparse.Namespace, config: ModelConfig) -> None:
    """Raises: CommandFailed where the state and the head will not fit."""
    hidden, attended = config.hidden_size, config.num_heads * config.head_dim
    inner = arguments.intermediate_size or config.intermediate_size
    num_parameters = hidden * (
        3 * hidden + 3 * attended + 4 * config.num_kv_heads * config.head_dim + 3 * inner + arguments.draft_vocab
    )
    needed = num_parameters * _BYTES_PER_PARAMETER
    place = next(folder for folder in (arguments.out.absolute(), *arguments.out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CommandFailed(
            f"{place}: {needed / 1e9:.1f} GB are needed for head and state, {free / 1e9:.1f} GB are free"
        )


def _state_of(arguments: argparse.Namespace) -> Path:
    state: Path = arguments.state or arguments.out.with_name(arguments.out.name + ".state")
    return state


def _order(arguments: argparse.Namespace) -> HeadOrder:
    plan = HeadPlan(
        draft_vocab_size=arguments.draft_vocab,
        intermediate_size=arguments.intermediate_size,
        layers=tuple(arguments.layers or ()),
        unrolling=Unrolling(arguments.unroll, arguments.decay),
        epochs=arguments.epochs,
        tokens_per_step=arguments.tokens_per_step,
        muon_lr=arguments.muon_lr,
        adam_lr=arguments.adam_lr,
        seed=arguments.seed,
        num_threads=arguments.threads,
        cpu_in_bfloat16=arguments.bfloat16,
        graphs=not arguments.no_graphs,
    )
    return HeadOrder(
        model=arguments.model,
        out=arguments.out,
        state=_state_of(arguments),
        settings=_engine_settings(arguments),
        sampling=Sampling(arguments.max_tokens, arguments.sampled_share, arguments.temperature, arguments.seed),
        plan=plan,
        num_drafts=arguments.drafts,
    )


def _engine_settings(arguments: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        model_path=str(arguments.model),
        device=arguments.device,
        attention_backend=arguments.attention_backend,
        max_running_requests=arguments.batch,
        cuda_graph_max_bs=arguments.batch,
        mem_fraction_static=_MEM_FRACTION,
        num_threads=arguments.threads,
    )
