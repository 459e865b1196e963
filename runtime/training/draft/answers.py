"""Answers of the target to many prompts, through our own engine.

What a head learns is what its target says, so answers come from the target and not from a data set. Some are greedy, others
sampled, so that the head has seen what follows unlikely tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from runtime.engine.loop import Engine
from runtime.errors import QueueFull, RequestRejected
from runtime.request import GenerationRequest, SamplingParams
from runtime.training.draft.plan import Sampling


@dataclass(frozen=True)
class Answered:
    """A prompt with the target's answer, both as token ids."""

    prompt: list[int]
    answer: list[int]
    kind: str = ""


def sampling_of(sampling: Sampling, number: int) -> SamplingParams:
    """How the prompt of that number is answered: the same whichever others there are."""
    rng = Random((sampling.seed << 32) + number)
    is_sampled = rng.random() < sampling.sampled_share
    return SamplingParams(
        temperature=sampling.temperature if is_sampled else 0.0,
        max_tokens=sampling.max_tokens,
        seed=rng.getrandbits(62),
    )


def answer_prompts(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    first_number: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Let an idle engine answer all prompts; an answer's last token is the one that ended it.

    Args:
        first_number: of the first prompt, see `sampling_of`.
        report: called with the number of prompts answered so far.
    Raises: RequestRejected for a prompt that the engine cannot serve.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    num_submitted = num_done = 0
    while num_submitted < len(prompts) or engine.has_work:
        try:
            while num_submitted < len(prompts):
                params = sampling_of(sampling, first_number + num_submitted)
                prompt = list(prompts[num_submitted])
                engine.submit(GenerationRequest(request_id=num_submitted, prompt=prompt, sampling=params))
                num_submitted += 1
        except QueueFull:
            pass
        output = engine.step()
        for number, _choice, token in output.plain:
            answers[number].append(token)
        for delivery in output.tokens:
            answers[delivery.request_id] += delivery.token_ids
            if delivery.finish is not None and delivery.finish.reason == "error":
                raise RequestRejected(delivery.finish.detail, f"an answer ended in {delivery.finish.detail}")
        if output.summaries:
            num_done += len(output.summaries)
            report(num_done)
    return answers
