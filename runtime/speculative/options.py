"""The options of speculative decoding, named as SGLang names them, and which of them go together. Imports no torch.

SGLang corrects what contradicts itself; here it is an error, as is an option that would be without effect.
"""

from dataclasses import dataclass

from runtime.draft_shape import DraftShape, draft_chain, num_candidates
from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings

DEFAULT_STEPS = 5
"""Drafts of a chain where nothing is said: at batch 1 the best or near it in SpecForge's table for Llama-3.1-8B."""


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """What an engine with a draft head does."""

    shape: DraftShape

    @property
    def num_steps(self) -> int:
        """Drafts that are made one after the other."""
        return self.shape.num_steps


def speculation_options(settings: EngineSettings) -> SpeculationOptions | None:
    """What the settings ask for; None: no speculation.

    Raises: EngineMisconfigured for options that contradict each other, or that nobody would read.
    """
    numbers = {
        "speculative_num_steps": settings.speculative_num_steps,
        "speculative_eagle_topk": settings.speculative_eagle_topk,
        "speculative_num_draft_tokens": settings.speculative_num_draft_tokens,
    }
    given = [name for name, value in numbers.items() if value]
    if not settings.speculative_algorithm:
        given += ["speculative_draft_model_path"] * bool(settings.speculative_draft_model_path)
        given += ["speculative_adaptive"] * (not settings.speculative_adaptive)
        if given:
            raise EngineMisconfigured(f"{given[0]}: is set, but speculative_algorithm is not")
        return None
    if not settings.speculative_draft_model_path:
        raise EngineMisconfigured(f"speculative_draft_model_path: {settings.speculative_algorithm} needs a draft head")
    if not given:
        return SpeculationOptions(draft_chain(DEFAULT_STEPS))
    missing = [name for name, value in numbers.items() if not value]
    if missing:
        raise EngineMisconfigured(f"{missing[0]}: of {', '.join(numbers)} set all or none; {given[0]} is set")
    steps, topk = settings.speculative_num_steps, settings.speculative_eagle_topk
    tokens = settings.speculative_num_draft_tokens
    if topk == 1 and tokens != steps + 1:
        raise EngineMisconfigured(
            f"speculative_num_draft_tokens: a chain of {steps} steps verifies {steps + 1} tokens, found {tokens}"
        )
    if not steps + 1 <= tokens <= num_candidates(steps, topk) + 1:
        raise EngineMisconfigured(
            f"speculative_num_draft_tokens: {steps} steps with speculative_eagle_topk {topk} verify {steps + 1} (one path) to "
            f"{num_candidates(steps, topk) + 1} tokens (every node), found {tokens}"
        )
    return SpeculationOptions(DraftShape(steps, topk, tokens - 1))
