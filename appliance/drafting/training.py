"""From a model and prompts to a head: (1) the engine answers all prompts, (2) it is let go, (3) the head is trained.

Answers are stored a chunk at a time, so a run that was interrupted asks again only for the chunk that it was in. The engine
gives back its memory before the training takes any.
"""

import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from appliance.drafting.order import HeadOrder
from appliance.drafting.prompts import Prompt, PromptSet
from appliance.errors import CommandFailed
from appliance.inference.model import load_model
from runtime.engine.loop import Engine
from runtime.errors import RequestRejected
from runtime.settings import EngineSettings
from runtime.training.draft.answers import Answered, answer_prompts
from runtime.training.draft.course import HeadReport, train_head
from runtime.training.draft.memory import release_device_memory
from runtime.training.draft.plan import Sampling
from runtime.training.draft.state import TrainingState
from runtime.training.loop import Progress, pin_arithmetic
from runtime.weights.config import load_model_config

_PROMPTS_AT_ONCE = 512
_GREEDY = 0.0

OnProgress = Callable[[str, int, int, str], None]


def train_on_prompts(
    order: HeadOrder,
    prompts: PromptSet,
    *,
    on_progress: OnProgress,
) -> HeadReport:
    """All of it, going on where the state says.

    Args:
        on_progress: called with the stage, how far it is, how far it goes, and a detail.
    Raises: CheckpointRejected, EngineMisconfigured, TrainingStopped, CommandFailed.
    """
    state = TrainingState(order.state, _describe(order, prompts))
    answers = _AnswerBook(order, state, on_progress)
    answered = answers.of("training", prompts.training, order.sampling.sampled_share)  # (1)
    held_out = answers.of("held-out", prompts.held_out, _GREEDY)
    answers.close()  # (2)
    pin_arithmetic(order.settings.num_threads or None)
    report = train_head(  # (3)
        order.model,
        answered,
        held_out,
        order.plan,
        device=order.settings.device,
        out=order.out,
        state=state,
        report=lambda step: _tell(step, on_progress),
        save_every=order.save_every,
        num_drafts=order.num_drafts,
    )
    state.remove()
    return report


class _AnswerBook:
    """Answers to prompts: from the state where it has them, else from an engine that is started when it is needed."""

    def __init__(self, order: HeadOrder, state: TrainingState, report: OnProgress) -> None:
        self._order, self._state, self._report = order, state, report
        self._engine: Engine | None = None

    def of(self, name: str, prompts: Sequence[Prompt], sampled_share: float) -> list[Answered]:
        """The answers to all prompts, in their order."""
        sampling = replace(self._order.sampling, sampled_share=sampled_share)
        answers: list[list[int]] = []
        for chunk, part in enumerate(_chunks(prompts)):
            found = self._state.load_answers(name, chunk)
            if found is None:
                found = self._ask(name, part, sampling, len(answers), len(prompts))
                self._state.store_answers(name, chunk, found)
            answers += found
            self._report(f"{name} answers", len(answers), len(prompts), "")
        return [
            Answered(prompt.token_ids, answer, prompt.kind) for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def close(self) -> None:
        """Let the engine go, and what it held on the device."""
        self._engine = None
        gc.collect()
        release_device_memory()

    def _ask(
        self, name: str, prompts: Sequence[Prompt], sampling: Sampling, num_before: int, num_all: int
    ) -> list[list[int]]:
        if self._engine is None:
            self._engine = _start_engine(self._order.settings)
        try:
            return answer_prompts(
                self._engine,
                [prompt.token_ids for prompt in prompts],
                sampling,
                first_number=num_before,
                report=lambda done: self._report(f"{name} answers", num_before + done, num_all, ""),
            )
        except RequestRejected as error:
            raise CommandFailed(f"the engine does not answer a prompt: {error}") from error


def _start_engine(settings: EngineSettings) -> Engine:
    model = load_model(settings, "target", progress=lambda: None)
    return Engine(model.runner, settings, model.facts.eos_token_ids, model.facts.context_length, time.monotonic)


def _tell(step: Progress, on_progress: OnProgress) -> None:
    minutes, seconds = divmod(round(step.remaining_s), 60)
    detail = f"loss {step.loss:.3f}  {step.tokens_per_s:,.0f} tokens/s  {minutes}:{seconds:02} left"
    on_progress("steps", step.step, step.num_steps, detail)


def _chunks(prompts: Sequence[Prompt]) -> Iterator[Sequence[Prompt]]:
    for first in range(0, len(prompts), _PROMPTS_AT_ONCE):
        yield prompts[first : first + _PROMPTS_AT_ONCE]


def _describe(order: HeadOrder, prompts: PromptSet) -> dict[str, str]:
    """Everything that decides the head."""
    digest = hashlib.sha256()
    for prompt in (*prompts.training, *prompts.held_out):
        digest.update(f"{prompt.token_ids}\n".encode())
    weights = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in order.model.glob("*.safetensors")
    )
    return {
        "model": str([*load_model_config(order.model).file_digests, *weights]),
        "prompts": f"{len(prompts.training)} and {len(prompts.held_out)}, {digest.hexdigest()}",
        "answers": f"{order.sampling} on {order.settings.device}, {order.settings.quantization}",
        **order.plan.describe(),
    }
