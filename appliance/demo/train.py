"""Train the demo model: `python -m appliance.demo.train --out appliance/demo/model`.

(1) The tokenizer is trained on the first shards of the corpus, (2) the model on all of them, generated and hashed while
it learns, (3) the folder is written in Hugging Face layout, (4) the held-out templates are measured, and the figures and
the model card are written. The same command works on a CPU and on a GPU; an interrupted run continues
where it was saved if it is given the same `--state`.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

from appliance.demo.card import OPENING_SHARDS, TrainingFacts, write_card
from appliance.demo.chat import END_OF_TEXT, TURN_END
from appliance.demo.corpus.development import development_examples
from appliance.demo.corpus.mixture import EXAMPLES_PER_SHARD, SEED
from appliance.demo.evaluate import evaluate, format_report, format_table, measure, write_figures
from appliance.demo.feed import CorpusFeed
from appliance.demo.vocabulary import save_tokenizer, token_id, train_tokenizer
from runtime.training.checkpoint import save_llama
from runtime.training.gradients import CapturedGradients, GradientSum, ThreadedGradients
from runtime.training.llama import Llama, LlamaShape
from runtime.training.loop import Progress, Training, TrainingPlan, describe_device, pick_device, pin_arithmetic

SHAPE = LlamaShape(vocab_size=2048, intermediate_size=576, num_hidden_layers=6)
# The run that is shipped.
CYCLES = (3500,)
TOKENIZER_SHARDS = 32
_TOKENS_PER_BLOCK = {"cpu": 1024, "cuda": 16_384}


def show(progress: Progress) -> None:
    """Draw one line of progress; where there is no terminal, one line every fifty steps."""
    terminal = sys.stderr.isatty()
    if not terminal and progress.step % 50 and progress.step != progress.num_steps:
        return
    bar = "#" * (30 * progress.step // progress.num_steps)
    minutes, seconds = divmod(round(progress.remaining_s), 60)
    line = (
        f"[{bar:<30}] {progress.step}/{progress.num_steps}  loss {progress.loss:.4f}  "
        f"{progress.tokens_per_s:,.0f} tokens/s  {minutes}:{seconds:02} left"
    )
    print(f"\r{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


def gradient_sum(model: Llama, device: str, *, num_threads: int, captures: bool) -> GradientSum:
    """The way that suits the device."""
    if device.startswith("cuda"):
        return CapturedGradients(model, device=device, captures=captures)
    return ThreadedGradients(model, device=device, num_threads=num_threads)


def train(
    out: Path,
    *,
    cycles: tuple[int, ...],
    step_size: int,
    device: str,
    num_workers: int,
    captures: bool,
    state: Path | None,
) -> TrainingFacts:
    """Steps 1 to 3."""
    feed = CorpusFeed(num_workers, step_size)
    # (1)
    print("Training the tokenizer ...", file=sys.stderr, flush=True)
    tokenizer = train_tokenizer(feed.texts(min(TOKENIZER_SHARDS, sum(cycles))), SHAPE.vocab_size)
    # (2)
    model = Llama(SHAPE, SEED).to(device)
    plan = TrainingPlan(cycles, tokens_per_block=_TOKENS_PER_BLOCK[device.partition(":")[0]])
    training = Training(
        model,
        feed.documents(tokenizer, plan.num_steps),
        plan,
        gradient_sum(model, device, num_threads=num_workers, captures=captures),
        state=state,
    )
    training.run(show, report_every=1 if device == "cpu" else 10)
    feed.close()
    # (3)
    text_end, turn_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, TURN_END)
    save_tokenizer(tokenizer, out, max_length=SHAPE.max_position_embeddings)
    size = save_llama(model, out, bos=text_end, ends=[turn_end, text_end], pad=text_end)
    print(f"\nCorpus: {feed.num_examples:,} examples, {feed.num_tokens:,} tokens, SHA-256 {feed.sha256()}", flush=True)
    print(f"Wrote {out}: {size / 1e6:.1f} MB of weights, after {training.elapsed_s / 60:.1f} minutes", flush=True)
    return TrainingFacts(
        corpus_sha256=feed.sha256(),
        opening_sha256=feed.sha256(OPENING_SHARDS),
        step_size=step_size,
        num_examples=feed.num_examples,
        num_tokens=feed.num_tokens,
        shape=SHAPE,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        cycles=cycles,
        minutes=training.elapsed_s / 60,
        hardware=describe_device(device),
        weights_sha256=hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m appliance.demo.train", description="Train the demo model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=CYCLES, help="optimizer steps of each cycle of the schedule"
    )
    parser.add_argument(
        "--step-size", type=int, default=EXAMPLES_PER_SHARD, help="examples of each step (default: %(default)s)"
    )
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that generate text (default: %(default)s)"
    )
    parser.add_argument("--no-graphs", action="store_true", help="on a GPU, launch every kernel anew")
    parser.add_argument("--state", type=Path, default=None, help="file that keeps the state of an interrupted run")
    parser.add_argument("--report", type=Path, default=None, help="file for wrong answers to the development set")
    options = parser.parse_args()
    pin_arithmetic(1)
    started, device = time.monotonic(), options.device or pick_device()
    facts = train(
        options.out,
        cycles=tuple(options.steps),
        step_size=options.step_size,
        device=device,
        num_workers=options.workers,
        captures=not options.no_graphs,
        state=options.state,
    )
    # (4)
    answered = evaluate(options.out, device=device)
    figures = measure(answered)
    write_figures(figures, options.out)
    if options.report is not None:
        developed = evaluate(options.out, device=device, examples=list(development_examples(SEED)))
        options.report.write_text(format_report(answered, developed), encoding="utf-8")
    write_card(facts, format_table(figures), options.out)
    print(format_table(figures))
    print(f"Everything took {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
