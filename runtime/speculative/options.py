"""The options of speculative decoding, named as SGLang names them, and which of them go together. Imports no torch.

SGLang corrects what contradicts itself; here it is an error, as is an option that would be without effect.
"""

from dataclasses import dataclass

from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings

DEFAULT_STEPS = 5
"""Drafts of a chain where nothing is said: at batch 1 the best or near it in SpecForge's table for Llama-3.1-8B."""


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """What an engine with a draft head does."""

    num_steps: int
    """Drafts that are made one after the other."""


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
        if given:
            raise EngineMisconfigured(f"{given[0]}: is set, but speculative_algorithm is not")
        return None
    if not settings.speculative_draft_model_path:
        raise EngineMisconfigured(f"speculative_draft_model_path: {settings.speculative_algorithm} needs a draft head")
    if not given:
        return SpeculationOptions(DEFAULT_STEPS)
    missing = [name for name, value in numbers.items() if not value]
    if missing:
        raise EngineMisconfigured(f"{missing[0]}: of {', '.join(numbers)} set all or none; {given[0]} is set")
    if settings.speculative_eagle_topk != 1:
        raise EngineMisconfigured(
            f"speculative_eagle_topk: expected 1 (drafts in a chain), found {settings.speculative_eagle_topk}"
        )
    if settings.speculative_num_draft_tokens != settings.speculative_num_steps + 1:
        raise EngineMisconfigured(
            f"speculative_num_draft_tokens: a chain of {settings.speculative_num_steps} steps verifies "
            f"{settings.speculative_num_steps + 1} tokens, found {settings.speculative_num_draft_tokens}"
        )
    return SpeculationOptions(settings.speculative_num_steps)
