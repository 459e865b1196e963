"""The demo model's held-out tasks, answered through our own engine: what a form of the model gets right when it is served."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.demo.chat import prompt_text
from appliance.demo.corpus.example import Example
from appliance.demo.corpus.mixture import held_out_examples
from appliance.demo.evaluate import Answered, measure
from appliance.demo.scoring import is_right
from appliance.demo.vocabulary import load_tokenizer
from appliance.inference.model import load_model
from runtime.engine.loop import Engine
from runtime.settings import EngineSettings
from runtime.training.draft.answers import answer_prompts
from runtime.training.draft.plan import Sampling

_MAX_TOKENS = 256


def choose_cases(every: int) -> list[Example]:
    """One in `every` of the held-out cases of each kind."""
    by_kind: dict[str, list[Example]] = {}
    for example in held_out_examples():
        by_kind.setdefault(example.kind, []).append(example)
    return [example for examples in by_kind.values() for example in examples[::every]]


def measure_tasks(
    settings: EngineSettings, cases: Sequence[Example], report: Callable[[int], None]
) -> dict[str, dict[str, int]]:
    """Right answers and cases of each kind, for the model as the settings serve it; `report` gets the number answered so far."""
    tokenizer = load_tokenizer(Path(settings.model_path))
    model = load_model(settings, "tasks", progress=lambda: None)
    ends = frozenset(model.facts.eos_token_ids)
    engine = Engine(model.runner, settings, ends, model.facts.context_length, time.monotonic)
    prompts = [tokenizer.encode(prompt_text(example)).ids for example in cases]
    answers = answer_prompts(engine, prompts, Sampling(max_tokens=_MAX_TOKENS, sampled_share=0.0), report=report)
    texts = [
        tokenizer.decode([token for token in answer if token not in ends], skip_special_tokens=False)
        for answer in answers
    ]
    return measure(
        [Answered(example, text, is_right(example, text)) for example, text in zip(cases, texts, strict=True)]
    )
