"""A whole training of a head from answers: vocabulary, head, steps, checkpoint, and the figures on held-out answers.

(1) The draft vocabulary is chosen from the answers, (2) the head begins as the target ends, (3) epochs over all answers in an
order that follows from the seed, (4) the weights are stored in bfloat16, (5) read back and measured on held-out answers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from runtime.errors import TrainingStopped
from runtime.training.documents import Documents, row_width
from runtime.training.draft.acceptance import TwoGrams
from runtime.training.draft.answers import Answered
from runtime.training.draft.checkpoint import load_head_tensors, save_head
from runtime.training.draft.head import DraftHead, shape_for
from runtime.training.draft.measuring import KindFigures, measure_head
from runtime.training.draft.plan import HeadPlan, default_layers
from runtime.training.draft.state import TrainingState
from runtime.training.draft.target import Target, load_target
from runtime.training.draft.trainee import DraftTrainee
from runtime.training.draft.vocabulary import DraftVocabulary, choose_vocabulary
from runtime.training.gradients import CapturedGradients, GradientSum, ThreadedGradients
from runtime.training.loop import Progress, Training, TrainingPlan

_LOGITS_PER_BLOCK = 1 << 28
_TOKENS_PER_BLOCK = {"cpu": 1024, "cuda": 8_192}
_ADAM_LR, _ADAM_HIDDEN_SIZE = 0.004, 256


@dataclass(frozen=True)
class HeadReport:
    """How a training ended."""

    size_bytes: int
    num_answers: int
    num_answer_tokens: int
    draft_vocab_size: int
    coverage: float
    """Share of the answers' tokens that can be drafted."""
    num_steps: int
    elapsed_s: float
    kinds: list[KindFigures]
    """The last is of all kinds together."""


def train_head(
    folder: Path,
    answered: Sequence[Answered],
    held_out: Sequence[Answered],
    plan: HeadPlan,
    *,
    device: str,
    out: Path,
    state: TrainingState,
    report: Callable[[Progress], None],
    save_every: int = 100,
    num_drafts: int = 5,
) -> HeadReport:
    """Train a head for the model in `folder` and write it to `out`.

    Args:
        held_out: greedy answers to other prompts; none of them is learnt.
        num_drafts: of the rounds that are measured.
    Raises: CheckpointRejected and EngineMisconfigured for the model, TrainingStopped.
    """
    texts = [one for one in answered if len(one.answer) > 1]
    if not texts:
        raise TrainingStopped("no answer has two tokens: there is nothing to learn")
    longest = max(len(one.prompt) + len(one.answer) for one in (*texts, *held_out))
    num_steps = max(plan.unrolling.num_steps, num_drafts)
    target = load_target(folder, device=device, num_positions=row_width(longest) + num_steps)
    vocabulary = choose_vocabulary(  # (1)
        (one.answer for one in texts),
        vocab_size=target.config.vocab_size,
        draft_vocab_size=plan.draft_vocab_size,
        always=target.config.eos_token_ids,
    )
    head = build_head(target, vocabulary, plan).to(device)  # (2)
    trainee = DraftTrainee(head, target, vocabulary.to(device), plan.unrolling)
    steps = list(cut_steps(texts, plan))
    training = Training(  # (3)
        trainee,
        steps,
        training_plan(plan, target, device, len(steps)),
        _gradient_sum(trainee, plan, device),
        state=state.weights,
    )
    training.run(report, report_every=1 if device == "cpu" else 10, save_every=save_every)
    size_bytes = save_head(head, vocabulary, target.config, out)  # (4)
    load_head_tensors(head, out)
    two_grams = TwoGrams((one.prompt + one.answer, len(one.prompt)) for one in texts)
    kinds = measure_head(trainee, held_out, two_grams, num_drafts)  # (5)
    num_answer_tokens = sum(len(one.answer) for one in texts)
    return HeadReport(
        size_bytes=size_bytes,
        num_answers=len(texts),
        num_answer_tokens=num_answer_tokens,
        draft_vocab_size=len(vocabulary),
        coverage=_num_drafted(vocabulary, texts) / num_answer_tokens,
        num_steps=len(steps),
        elapsed_s=training.elapsed_s,
        kinds=kinds,
    )


def build_head(target: Target, vocabulary: DraftVocabulary, plan: HeadPlan) -> DraftHead:
    """A head that has learnt nothing yet, on the CPU."""
    shape = shape_for(
        target.config,
        draft_vocab_size=len(vocabulary),
        intermediate_size=plan.intermediate_size,
        captured_layers=plan.layers or default_layers(target.config.num_layers),
    )
    head = DraftHead(shape, plan.seed)
    head.start_from(target.head[vocabulary.target_ids.to(target.head.device)].cpu(), target.norm.cpu())
    return head


def cut_steps(texts: Sequence[Answered], plan: HeadPlan) -> Iterator[Documents]:
    """The documents of every step of all epochs; a step has about `tokens_per_step` tokens."""
    for epoch in range(plan.epochs):
        order = list(range(len(texts)))
        Random((plan.seed << 16) + epoch).shuffle(order)
        block: list[Answered] = []
        num_tokens = 0
        for index in order:
            block.append(texts[index])
            num_tokens += len(texts[index].prompt) + len(texts[index].answer)
            if num_tokens >= plan.tokens_per_step:
                yield as_documents(block)
                block, num_tokens = [], 0
        if block:
            yield as_documents(block)


def as_documents(texts: Sequence[Answered]) -> Documents:
    """Prompt and answer behind one another; the answer is learnt."""
    return Documents.of((one.prompt + one.answer, [0] * len(one.prompt) + [1] * len(one.answer)) for one in texts)


def training_plan(plan: HeadPlan, target: Target, device: str, num_steps: int) -> TrainingPlan:
    """The terms of the training loop. A block's logits, over the target's whole vocabulary, fit into a gigabyte."""
    most = _TOKENS_PER_BLOCK[device.partition(":")[0]]
    adam_lr = plan.adam_lr or _ADAM_LR * min(1.0, _ADAM_HIDDEN_SIZE / target.config.hidden_size)
    return TrainingPlan(
        cycles=(num_steps,),
        tokens_per_block=max(1, min(most, _LOGITS_PER_BLOCK // target.config.vocab_size)),
        muon_lr=plan.muon_lr,
        adam_lr=adam_lr,
        num_warmup=min(50, max(1, num_steps // 10)),
    )


def _gradient_sum(trainee: DraftTrainee, plan: HeadPlan, device: str) -> GradientSum:
    if device.startswith("cuda"):
        return CapturedGradients(trainee, device=device, captures=plan.graphs)
    return ThreadedGradients(trainee, device=device, num_threads=plan.num_threads, in_bfloat16=plan.cpu_in_bfloat16)


def _num_drafted(vocabulary: DraftVocabulary, texts: Sequence[Answered]) -> int:
    """Of the answers' tokens, how many can be drafted."""
    drafted = vocabulary.is_drafted
    return sum(int(drafted[torch.tensor(one.answer)].sum()) for one in texts)
