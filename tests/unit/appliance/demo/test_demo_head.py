"""The shipped draft head: it fits the model and the size, and drafts as well as it says."""

import json
from pathlib import Path

import pytest

from appliance.config.defaults import DEMO_HEAD_DIR, DEMO_MODEL_DIR
from appliance.demo.draft import corpus_prompts
from appliance.drafting.report import REPORT_FILE
from runtime.request import RequestSummary
from runtime.runner.building import build_runner
from runtime.speculative.config import load_head_config
from runtime.speculative.source import HeadSource
from runtime.weights.config import load_model_config
from tests.support.engine_runs import ask, build_engine

MAX_BYTES = 12_000_000
KINDS = ("product", "arithmetic", "extraction", "tool")
SPECULATION = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_adaptive": False,
}


def acceptance(every: int) -> dict[str, float]:
    """Acceptance length of each kind over one in `every` of its held-out prompts, served by the engine with chains of 5."""
    config = load_model_config(DEMO_MODEL_DIR)
    runner = build_runner(DEMO_MODEL_DIR, num_pages=2000, head=HeadSource(DEMO_HEAD_DIR))
    engine = build_engine(runner, eos_token_ids=config.eos_token_ids, context_length=1024, **SPECULATION)
    by_kind: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number, prompt in enumerate(corpus_prompts(DEMO_MODEL_DIR, 0).held_out):
        by_kind[prompt.kind].append(number)
    chosen = {number: kind for kind, numbers in by_kind.items() for number in numbers[::every]}
    prompts = corpus_prompts(DEMO_MODEL_DIR, 0).held_out
    for number in chosen:
        engine.submit(ask(number, prompts[number].token_ids, temperature=0.0, max_tokens=256))
    summaries: list[RequestSummary] = []
    while engine.has_work:
        summaries += engine.step().summaries
    tokens, passes = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for summary in summaries:
        kind = chosen[summary.request_id]
        tokens[kind] += summary.output_tokens - 1
        passes[kind] += summary.num_verified
    return {kind: tokens[kind] / passes[kind] for kind in KINDS}


def test_model_and_head_fit_into_12_megabytes() -> None:
    """So that a clone stays small."""
    sizes = [path.stat().st_size for folder in (DEMO_MODEL_DIR, DEMO_HEAD_DIR) for path in folder.glob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) <= MAX_BYTES


def test_head_fits_the_model() -> None:
    """By serving's own check of its configuration."""
    config = load_head_config(DEMO_HEAD_DIR, load_model_config(DEMO_MODEL_DIR))
    assert config.draft_vocab_size < config.vocab_size
    assert len(config.captured_layers) == 3


def report() -> dict[str, dict[str, float]]:
    """Figures by kind, as the training stated them."""
    written = json.loads((DEMO_HEAD_DIR / REPORT_FILE).read_text())
    return {figures["kind"]: figures for figures in written["held_out"]}


def test_report_and_card_name_every_kind() -> None:
    """The card shows what the report says."""
    card = Path(DEMO_HEAD_DIR / "README.md").read_text()
    for kind in KINDS:
        assert f"| {kind} | {report()[kind]['answers']} | {report()[kind]['acceptance_length']:.2f} |" in card


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drafted_well(kind: str) -> None:
    """As the report says: 3.5 tokens a round, and half as many again as a two-gram table gives."""
    figures = report()[kind]
    assert figures["acceptance_length"] >= 3.5
    assert figures["acceptance_length"] >= 1.5 * figures["two_gram_acceptance_length"]


@pytest.mark.long
def test_engine_drafts_as_the_report_says() -> None:
    """Over one in four held-out prompts, served with the head: the engine's passes are the report's rounds."""
    for kind, length in acceptance(4).items():
        assert length == pytest.approx(report()[kind]["acceptance_length"], rel=0.01)
