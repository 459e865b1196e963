"""Train the demo model: `python -m appliance.demo.train --out appliance/demo/model`.

(1) The corpus is generated and hashed, (2) the tokenizer is trained on it, (3) the model is trained, (4) the folder is
written in Hugging Face layout, (5) the held-out templates are measured and the model card is written. The same command
works on a CPU and on a GPU; an interrupted run continues where it was saved if it is given the same `--state`.
"""

import argparse
import hashlib
import os
import sys
from pathlib import Path

from tokenizers import Tokenizer

from appliance.demo.card import TrainingFacts, write_card
from appliance.demo.chat import END_OF_TEXT, TURN_END, TURN_START, mark_learnt, training_text
from appliance.demo.corpus.example import Example, corpus_hash
from appliance.demo.corpus.mixture import NUM_EXAMPLES, SEED, training_examples
from appliance.demo.evaluate import evaluate, format_table, measure, write_figures
from appliance.demo.vocabulary import save_tokenizer, token_id, train_tokenizer
from runtime.training.checkpoint import save_llama
from runtime.training.documents import Documents
from runtime.training.llama import Llama, LlamaShape
from runtime.training.loop import (
    Progress,
    Training,
    TrainingPlan,
    describe_device,
    pick_device,
    pin_arithmetic,
)

VOCAB_SIZE = 2048
CYCLES = (4500,)
_TOKENIZER_EXAMPLES = 40_000


def encode(tokenizer: Tokenizer, examples: list[Example]) -> Documents:
    """Turn examples into documents whose answers are learnt."""
    opening = tokenizer.encode(f"{TURN_START}assistant\n").ids
    turn_end = token_id(tokenizer, TURN_END)
    encodings = tokenizer.encode_batch([training_text(example) for example in examples])
    return Documents.of((found.ids, mark_learnt(found.ids, opening, turn_end)) for found in encodings)


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


def train(out: Path, *, cycles: tuple[int, ...], device: str, num_workers: int, state: Path | None) -> TrainingFacts:
    """Steps 1 to 4."""
    print("Generating the corpus ...", file=sys.stderr, flush=True)
    # (1)
    examples = list(training_examples(SEED, NUM_EXAMPLES))
    digest = corpus_hash(examples)
    print(f"Corpus: {len(examples):,} examples, SHA-256 {digest}", flush=True)
    # (2)
    tokenizer = train_tokenizer((training_text(example) for example in examples[:_TOKENIZER_EXAMPLES]), VOCAB_SIZE)
    documents = encode(tokenizer, examples)
    print(f"Corpus: {documents.num_tokens:,} tokens, vocabulary {tokenizer.get_vocab_size():,}", flush=True)
    # (3)
    shape = LlamaShape(vocab_size=VOCAB_SIZE)
    model = Llama(shape, SEED).to(device)
    # Small blocks fit a core's cache; a GPU wants few launches.
    plan = (
        TrainingPlan(cycles) if device == "cpu" else TrainingPlan(cycles, tokens_per_block=TrainingPlan.tokens_per_step)
    )
    training = Training(model, documents, plan, device=device, num_workers=num_workers, state=state)
    training.run(show)
    # (4)
    text_end, turn_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, TURN_END)
    save_tokenizer(tokenizer, out, max_length=shape.max_position_embeddings)
    size = save_llama(model, out, bos=text_end, ends=[turn_end, text_end], pad=text_end)
    print(f"\nWrote {out}: {size / 1e6:.1f} MB of weights, after {training.elapsed_s / 60:.0f} minutes", flush=True)
    return TrainingFacts(
        corpus_sha256=digest,
        num_examples=len(examples),
        num_tokens=documents.num_tokens,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        cycles=cycles,
        tokens_per_step=plan.tokens_per_step,
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
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--state", type=Path, default=None, help="file that keeps the state of an interrupted run")
    options = parser.parse_args()
    pin_arithmetic(options.threads)
    device = options.device or pick_device()
    num_workers = options.threads if device == "cpu" else 1
    facts = train(options.out, cycles=tuple(options.steps), device=device, num_workers=num_workers, state=options.state)
    # (5) One row at a time is too little work to be worth more threads.
    pin_arithmetic(1)
    figures = measure(evaluate(options.out))
    write_figures(figures, options.out)
    write_card(facts, format_table(figures), options.out)
    print(format_table(figures))


if __name__ == "__main__":
    main()
