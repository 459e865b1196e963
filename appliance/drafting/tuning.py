"""A model with its head in memory, measured with one shape of drafts after the other.

Each shape has an engine of its own over the same runner, which costs a table of pages; the cache starts empty for each. On a GPU
graphs are captured for every number of drafts that will be asked for, and buffers and graphs are for chains or for one tree: there
the model is let go and read again for each tree.
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from appliance.bench.speculation import PLAIN, Row, Shape, merge_plain, search
from appliance.inference.model import LoadedModel, load_model
from runtime.bench.speculation import AnswerPlan, DecodeSpeed, measure_decoding
from runtime.engine.loop import Engine
from runtime.errors import EngineMisconfigured
from runtime.runner.building import runs_on_reference
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options
from runtime.training.draft.memory import release_device_memory


def verify_shape(settings: EngineSettings) -> None:
    """Whether an engine with these settings would start, as far as drafts go. Raises: EngineMisconfigured."""
    try:
        msgspec.convert(msgspec.structs.asdict(settings), EngineSettings)
    except msgspec.ValidationError as error:  # Whoever makes settings in a program is not held to their bounds.
        raise EngineMisconfigured(f"the configuration would not take it: {error}") from error
    speculation_options(settings)


def split_shapes(shapes: Iterable[Shape], settings: EngineSettings) -> list[list[Shape]]:
    """Groups of shapes that one runner can be asked for: all; on a GPU all chains, and each tree by itself."""
    shapes = list(shapes)
    if runs_on_reference(settings):
        return [shapes]
    chains = [shape for shape in shapes if shape.topk == 1]
    return [*([chains] if chains else []), *([shape] for shape in shapes if shape.topk > 1)]


def largest_of(shapes: Iterable[Shape]) -> Shape:
    """The one that needs most room."""
    return max(shapes, key=lambda shape: (shape.num_draft_tokens, shape.num_steps))


@dataclass(frozen=True, slots=True)
class Questions:
    """What every shape answers."""

    prompts: Sequence[Sequence[int]]
    num_answers: int
    """At least; twice the batch size where that is more."""
    max_tokens: int
    temperature: float


class TuningBench:
    """One loaded model and head."""

    def __init__(self, settings: EngineSettings, shapes: Iterable[Shape], advance: Callable[[], None]) -> None:
        """
        Args:
            settings: with speculation; its largest batch is `max_running_requests`.
            shapes: all that will be measured.
            advance: called from time to time while the model is read.
        Raises: CheckpointRejected, EngineMisconfigured.
        """
        shapes = list(shapes)
        self._largest = largest_of(shapes)
        # Where a launch computes the step, it is timed alone; a GPU computes while the next one is planned.
        self._settings = msgspec.structs.replace(
            self._largest.applied(settings), speculative_adaptive=False, overlap_schedule=settings.device == "cuda"
        )
        levels = tuple(sorted({0, *(shape.num_steps for shape in shapes)}))
        self._model: LoadedModel | None = load_model(self._settings, "tuned", advance, draft_levels=levels)

    def warm_up(self, questions: Questions) -> None:
        """What is loaded and allocated on first use should be nobody's measurement. Raises: as `measure`."""
        for shape in (PLAIN, self._largest):
            plan = AnswerPlan(questions.prompts, 1, 1, min(16, questions.max_tokens))
            self._measure(shape, plan)

    def measure(
        self, shape: Shape, batch_size: int, questions: Questions, report: Callable[[int, int], None]
    ) -> DecodeSpeed:
        """One line of the table.

        Args:
            report: called with the answers that have ended, and how many there are.
        Raises: RequestRejected for a prompt that the engine cannot serve; EngineMisconfigured for a shape.
        """
        num_answers = max(questions.num_answers, 2 * batch_size)
        plan = AnswerPlan(
            questions.prompts, num_answers, batch_size, questions.max_tokens, temperature=questions.temperature
        )
        return self._measure(shape, plan, lambda done: report(done, num_answers))

    def close(self) -> None:
        """Let the model go, and what it held on the device."""
        self._model = None
        gc.collect()
        release_device_memory()

    def _measure(
        self, shape: Shape, plan: AnswerPlan, report: Callable[[int], None] = lambda done: None
    ) -> DecodeSpeed:
        return measure_decoding(self._engine(shape), plan, overlaps=self._settings.overlap_schedule, report=report)

    def _engine(self, shape: Shape) -> Engine:
        assert self._model is not None, "closed"
        facts = self._model.facts
        settings = (self._largest if shape == PLAIN else shape).applied(self._settings)
        engine = Engine(self._model.runner, settings, facts.eos_token_ids, facts.context_length, time.monotonic)
        if shape == PLAIN:
            engine.pin_drafts(0)
        return engine


def search_all(
    settings: EngineSettings,
    groups: Iterable[Sequence[Shape]],
    batch_sizes: Sequence[int],
    questions: Questions,
    *,
    on_loading: Callable[[], None],
    report: Callable[[Shape, int, int, int], None],
    on_row: Callable[[Row], None],
) -> list[Row]:
    """Every shape of every group at every batch size, by batch size, beside plain decoding, which each group's runner does once.

    Args:
        groups: see `split_shapes`.
        on_loading: called before the model is read.
        report: called with shape, batch size, the answers that have ended, and how many there are.
        on_row: called with each line as it is measured, beside the plain decoding of its own group.
    Returns: what `merge_plain` makes of them.
    Raises: as `TuningBench`.
    """
    rows: list[Row] = []
    for group in groups:
        on_loading()
        rows += _search_group(TuningBench(settings, group, lambda: None), group, batch_sizes, questions, report, on_row)
    return merge_plain(sorted(rows, key=lambda row: batch_sizes.index(row.batch_size)))


def _search_group(
    bench: TuningBench,
    group: Sequence[Shape],
    batch_sizes: Sequence[int],
    questions: Questions,
    report: Callable[[Shape, int, int, int], None],
    on_row: Callable[[Row], None],
) -> list[Row]:
    def measure(shape: Shape, batch_size: int) -> DecodeSpeed:
        return bench.measure(shape, batch_size, questions, partial(report, shape, batch_size))

    try:
        bench.warm_up(questions)
        return search(group, batch_sizes, measure, on_row)
    finally:
        bench.close()
