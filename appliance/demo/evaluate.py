"""Measure the demo model on held-out templates: `python -m appliance.demo.evaluate`.

Greedy decoding by a plain loop that shares nothing with the serving engine, from the stored bfloat16 weights. The figures
are printed as a table; `--write` keeps them in `evaluation.json` beside the weights, and the model card quotes them.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from appliance.demo.chat import END_OF_TEXT, TURN_END, prompt_text
from appliance.demo.corpus.development import development_examples
from appliance.demo.corpus.example import ARITHMETIC, EXTRACTION, PRODUCT, TOOL, Example
from appliance.demo.corpus.mixture import SEED, held_out_examples
from appliance.demo.scoring import is_right
from appliance.demo.vocabulary import load_tokenizer, token_id
from runtime.training.checkpoint import load_llama
from runtime.training.decode import decode_greedily
from runtime.training.llama import Llama
from runtime.training.loop import pin_arithmetic

MODEL = Path(__file__).parent / "model"
REQUIRED_PERCENT = {PRODUCT: 90, EXTRACTION: 90, TOOL: 90, ARITHMETIC: 60}


@dataclass(frozen=True)
class Answered:
    """A held-out example and what the model said."""

    example: Example
    answer: str
    right: bool


def answer(model: Llama, tokenizer: Tokenizer, examples: list[Example], *, batch_size: int = 64) -> list[str]:
    """Let the model give the last turn of every example, greedily."""
    prompts = [tokenizer.encode(prompt_text(example)).ids for example in examples]
    ends = frozenset((token_id(tokenizer, TURN_END), token_id(tokenizer, END_OF_TEXT)))

    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{len(prompts)} answered", end="", file=sys.stderr, flush=True)

    found = decode_greedily(model, prompts, ends=ends, max_new_tokens=256, batch_size=batch_size, report=show)
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in found]


def measure(answered: list[Answered]) -> dict[str, dict[str, int]]:
    """Right and all cases of each kind; those without a bar stand last, where there are any."""
    cases = Counter(one.example.kind for one in answered)
    right = Counter(one.example.kind for one in answered if one.right)
    kinds = (*REQUIRED_PERCENT, *(kind for kind in cases if kind not in REQUIRED_PERCENT))
    return {kind: {"right": right[kind], "cases": cases[kind]} for kind in kinds}


def format_table(figures: dict[str, dict[str, int]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| kind | right | held-out cases | accuracy | required |", "|---|---:|---:|---:|---:|"]
    for kind, figure in figures.items():
        percent = 100 * figure["right"] / max(1, figure["cases"])
        required = f"{REQUIRED_PERCENT[kind]} %" if kind in REQUIRED_PERCENT else "–"
        lines.append(f"| {kind} | {figure['right']} | {figure['cases']} | {percent:.1f} % | {required} |")
    return "\n".join(lines)


def write_figures(figures: dict[str, dict[str, int]], folder: Path) -> None:
    """Write `evaluation.json` beside the weights."""
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def is_sufficient(figures: dict[str, dict[str, int]]) -> bool:
    """Whether every kind reaches what is required of it."""
    return all(
        100 * figures[kind]["right"] >= percent * figures[kind]["cases"] for kind, percent in REQUIRED_PERCENT.items()
    )


def format_report(held_out: list[Answered], development: list[Answered]) -> str:
    """What to look at when the generator is to become better.

    Held-out cases are counted by template family and not shown; wrong answers come from the development set.
    """
    cases = Counter(one.example.family for one in held_out)
    right = Counter(one.example.family for one in held_out if one.right)
    families = [
        f"{family:<40} {right[family]:>3} of {cases[family]}" for family in cases if right[family] < cases[family]
    ]
    parts = (format_table(measure(held_out)), *families, "", format_table(measure(development)), "")
    return "\n".join((*parts, *map(describe, wrong(development)))) + "\n"


def wrong(answered: list[Answered]) -> list[Answered]:
    """Those that were answered wrongly."""
    return [one for one in answered if not one.right]


def describe(one: Answered) -> str:
    """A wrong answer in words."""
    asked, expected = one.example.messages[-2].content, one.example.messages[-1].content
    return f"{one.example.family}\n  asked    {asked}\n  expected {expected}\n  answered {one.answer}"


def evaluate(folder: Path, *, device: str = "cpu", examples: list[Example] | None = None) -> list[Answered]:
    """Answer and judge the whole held-out set, or other examples, with the model in `folder`."""
    asked = list(held_out_examples()) if examples is None else examples
    batch_size = 16 if device == "cpu" else 256
    answers = answer(load_llama(folder, device=device), load_tokenizer(folder), asked, batch_size=batch_size)
    return [Answered(example, said, is_right(example, said)) for example, said in zip(asked, answers, strict=True)]


def main() -> int:
    """The command line; the exit status is 1 where a kind falls short."""
    parser = argparse.ArgumentParser(prog="python -m appliance.demo.evaluate", description="Measure the demo model.")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the model (default: the shipped one)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s; more help little)")
    parser.add_argument(
        "--report", action="store_true", help="measure the development set, too, and show its wrong answers"
    )
    parser.add_argument("--write", action="store_true", help="write the figures to evaluation.json beside the weights")
    options = parser.parse_args()
    pin_arithmetic(options.threads)
    answered = evaluate(options.model)
    figures = measure(answered)
    if options.report:
        print(format_report(answered, evaluate(options.model, examples=list(development_examples(SEED)))))
    else:
        print(format_table(figures))
    if options.write:
        write_figures(figures, options.model)
    return 0 if is_sufficient(figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
