"""The model card of the demo model, written by the training itself so that it states what was done and measured."""

# A row of a Markdown table stands on one line.
# ruff: noqa: E501

from dataclasses import dataclass
from pathlib import Path

from runtime.training.llama import LlamaShape

_CARD = """\
# Casemate demo model

A {millions:.1f}-million-parameter Llama model, trained from scratch by this project on text that the project generates.
It is there so that a fresh clone can show the whole appliance at work, on a CPU, without a download. It is not a general
assistant: it answers questions about Casemate, solves small word problems with the working shown, extracts JSON, calls
tools and tells short stories, in English. To anything else it should answer that it does not know; it may be wrong.

## Measured

Greedy decoding from the stored bfloat16 weights, on templates that never occur in training (`python -m
appliance.demo.evaluate`, which also says which rule counts an answer as right; see `appliance/demo/scoring.py`):

{table}

The held-out templates are the `held_out` entries of `appliance/demo/corpus/product.toml`, `HELD_OUT` in `arithmetic.py`,
the `held_out` sentences of `records.py` with `_HELD_OUT_REQUESTS` of `extraction.py`, and the `held_out` requests in
`toolbox.py`. No held-out wording occurs in training, but its forms do ("Tell me ...", "Please explain ..."), and the
tools themselves and the product's topics are those of training: what is measured is the phrasing, not new knowledge.

Wrong answers were read in the development set only (`appliance/demo/corpus/development.py`), never those to held-out cases.
But the held-out wordings stand in the source that was edited, and how many of each family earlier models got right was known
while the generator was written; templates that came close to a held-out one were taken out again.

## Form

| | |
|---|---|
| architecture | `LlamaForCausalLM`: {shape.num_hidden_layers} layers, hidden {shape.hidden_size}, {shape.num_attention_heads} query and {shape.num_key_value_heads} key/value heads of {shape.head_dim}, feed-forward {shape.intermediate_size}, tied embeddings |
| context | trained on conversations of 180 tokens on average, 999 in 1,000 of them under 800; `max_position_embeddings` is 2,048 |
| tokenizer | byte-level BPE of 2,048 tokens, trained on the corpus; all 256 bytes, one token a digit |
| chat | ChatML turns (`system`, `user`, `assistant`, `tool`); tools as JSON lines; calls as `<tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>` |
| licence | Apache-2.0, as the project |

## Made by

    python -m appliance.demo.train --out appliance/demo/model --steps {steps} --step-size {step_size}

| | |
|---|---|
| corpus | {num_examples:,} examples, {num_tokens:,} tokens, generated from a fixed seed; no text from elsewhere |
| SHA-256 of the corpus | `{corpus_sha256}` |
| SHA-256 of its first {num_opening} shards | `{opening_sha256}` |
| training | {num_steps:,} steps in {num_cycles} cycle(s) of about {tokens_per_step:,} tokens each, every example used once; Muon and AdamW; in each cycle the learning rate is held, then falls to zero |
| hardware | {hardware} |
| time | {minutes:.0f} minutes |
| SHA-256 of the weights | `{weights_sha256}` |

The corpus hash is the same on every machine. On a CPU the weights are the same on equal hardware with equal versions and number
of threads; on a GPU that is not promised, as the backward pass of cuDNN's attention need not add in one order. Where weights
differ the answers may; `python -m appliance.demo.evaluate` measures them anew.

## Limits

Numbers in word problems are small (operands up to 40, results up to 120). Facts about Casemate were learnt in one wording
each. Names in the training text are common names in any pairing or made-up syllables; no person is meant.
Do not use it for decisions.
"""


# A hash of these is soon made again, one of the whole corpus is not.
OPENING_SHARDS = 32


@dataclass(frozen=True)
class TrainingFacts:
    """What a training states about itself."""

    corpus_sha256: str
    opening_sha256: str
    step_size: int
    num_examples: int
    num_tokens: int
    num_parameters: int
    shape: LlamaShape
    cycles: tuple[int, ...]
    minutes: float
    hardware: str
    weights_sha256: str


def write_card(facts: TrainingFacts, table: str, folder: Path) -> None:
    """Write `README.md` into the model's folder."""
    text = _CARD.format(
        table=table,
        millions=facts.num_parameters / 1e6,
        steps=" ".join(str(num_steps) for num_steps in facts.cycles),
        num_steps=sum(facts.cycles),
        num_cycles=len(facts.cycles),
        num_opening=OPENING_SHARDS,
        tokens_per_step=round(facts.num_tokens / sum(facts.cycles)),
        **vars(facts),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
