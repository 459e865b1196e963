"""Train the demo model's draft head: `python -m appliance.demo.draft --out appliance/demo/head`.

Prompts are those of the corpus: the generator's examples up to their last answer, and for the figures the held-out templates,
kind by kind. The model gives the answers. The shape is what fits into 12 MB together with the model and drafts best.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Literal

from appliance.cli.progress import Progress
from appliance.demo.chat import prompt_text
from appliance.demo.corpus.example import Example
from appliance.demo.corpus.mixture import SEED, held_out_examples, training_example
from appliance.demo.evaluate import MODEL
from appliance.demo.vocabulary import load_tokenizer
from appliance.drafting.order import HeadOrder
from appliance.drafting.prompts import Prompt, PromptSet
from appliance.drafting.report import format_table, write_report
from appliance.drafting.training import train_on_prompts
from runtime.settings import EngineSettings
from runtime.training.draft.plan import HeadPlan, Sampling, Unrolling
from runtime.training.loop import pick_device

NUM_PROMPTS = 24_000
_MAX_TOKENS = 256
_BATCH = {"cpu": 64, "cuda": 256}
_TOTAL_TOKENS = {"cpu": 0, "cuda": 1 << 19}
"""Of the cache: 256 answers with their prompts, and room for the rest of a GPU's users."""

_CARD = """\
# Draft head of the Casemate demo model

An EAGLE-3 head (one decoder layer, {draft_vocab_size:,} of the model's tokens) in the form that SGLang and vLLM load, trained by
this project on the demo model's own answers. It guesses what the model is going to say; texts are the model's with it and without.

## Measured

Greedy answers to the held-out templates, chains of 5 drafts: tokens that a round of drafting and verifying gives, and in which
share of the rounds the first, the first two, … drafts were taken; beside it a two-gram table of the same answers.

{table}

## Made by

    python -m appliance.demo.draft --out appliance/demo/head --prompts {prompts} --epochs {epochs} \\
        --tokens-per-step {tokens_per_step}

on the model beside it: {num_answers:,} answers of {num_answer_tokens:,} tokens, a quarter of them sampled; {num_steps:,} steps in
{elapsed_s:.0f} s. Licence: Apache-2.0, as the project.
"""

Device = Literal["cpu", "cuda"]


def corpus_prompts(model: Path, count: int, *, held_out_every: int = 1) -> PromptSet:
    """The prompts of the first `count` examples that are conversations, and of the held-out templates."""
    tokenizer = load_tokenizer(model)

    def prompt(example: Example) -> Prompt:
        return Prompt(tokenizer.encode(prompt_text(example)).ids, example.kind)

    examples = (training_example(SEED, number) for number in range(count))
    training = [prompt(example) for example in examples if example.messages]
    return PromptSet(training, [prompt(example) for example in list(held_out_examples())[::held_out_every]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m appliance.demo.draft", description="Train the demo model's draft head."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the head")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the model (default: the shipped one)")
    parser.add_argument("--prompts", type=int, default=NUM_PROMPTS, help="to learn from (default: %(default)s)")
    parser.add_argument("--held-out-every", type=int, default=1, help="measure on one in so many (default: all)")
    parser.add_argument("--state", type=Path, help="folder that keeps the state of an interrupted run")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--attention-backend", default="auto", help="of the engine that answers (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the answers (default: %(default)s)")
    parser.add_argument("--tokens-per-step", type=int, default=16_384, help="(default: %(default)s)")
    parser.add_argument("--draft-vocab", type=int, default=1536, help="(default: %(default)s)")
    parser.add_argument("--intermediate-size", type=int, default=768, help="(default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs=3, default=(1, 3, 5), help="(default: 1 3 5)")
    parser.add_argument(
        "--unroll", type=int, default=5, help="steps of drafting that are learnt (default: %(default)s)"
    )
    parser.add_argument(
        "--decay", type=float, default=0.9, help="weight of a step, of the one before (default: %(default)s)"
    )
    parser.add_argument("--no-graphs", action="store_true", help="on a GPU, launch every kernel anew")
    options = parser.parse_args()
    device: Device = "cuda" if (options.device or pick_device()) == "cuda" else "cpu"
    prompts = corpus_prompts(options.model, options.prompts, held_out_every=options.held_out_every)
    with Progress("draft head") as progress:
        report = train_on_prompts(_order(options, device), prompts, on_progress=progress.advance)
    write_report(report, options.out)
    table = format_table(report.kinds)
    (options.out / "README.md").write_text(_CARD.format(table=table, **vars(report), **vars(options)), encoding="utf-8")
    print(table)
    print(f"{options.out}: {report.size_bytes / 1e6:.2f} MB after {report.elapsed_s:.0f} s", file=sys.stderr)


def _order(options: argparse.Namespace, device: Device) -> HeadOrder:
    num_threads = (os.cpu_count() or 1) if device == "cpu" else 1
    return HeadOrder(
        model=options.model,
        out=options.out,
        state=options.state or options.out.with_name(options.out.name + ".state"),
        settings=EngineSettings(
            model_path=str(options.model),
            device=device,
            attention_backend=options.attention_backend,
            max_running_requests=_BATCH[device],
            cuda_graph_max_bs=_BATCH["cuda"],
            piecewise_cuda_graph_max_tokens=0,
            max_total_tokens=_TOTAL_TOKENS[device],
            max_queued_requests=1 << 16,
        ),
        sampling=Sampling(max_tokens=_MAX_TOKENS, sampled_share=0.25, temperature=0.7, seed=SEED),
        plan=HeadPlan(
            draft_vocab_size=options.draft_vocab,
            intermediate_size=options.intermediate_size,
            layers=tuple(options.layers),
            unrolling=Unrolling(options.unroll, options.decay),
            epochs=options.epochs,
            tokens_per_step=options.tokens_per_step,
            seed=SEED,
            num_threads=num_threads,
            cpu_in_bfloat16=True,
            graphs=not options.no_graphs,
        ),
    )


if __name__ == "__main__":
    main()
