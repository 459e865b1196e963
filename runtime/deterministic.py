"""What an engine that is to be `deterministic` on a GPU cannot have. Imports no torch."""

from collections.abc import Iterator
from typing import Protocol

from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings


class Weights(Protocol):
    """What is needed of `runtime.weights.config.ModelConfig`, which every process would import else."""

    @property
    def quantization(self) -> object | None:
        """How they are quantized in the checkpoint."""


def find_excluded(settings: EngineSettings) -> Iterator[tuple[str, str]]:
    """Options that `deterministic` excludes: each key, and what was expected instead of what it is."""
    if not settings.deterministic or settings.device == "cpu":
        return
    if settings.attention_backend not in ("auto", "triton"):
        yield (
            "attention_backend",
            f'expected "auto" or "triton", as deterministic is set, got "{settings.attention_backend}"',
        )
    if settings.quantization != "auto":
        yield "quantization", f'expected "auto", as deterministic is set, got "{settings.quantization}"'
    if settings.speculative_algorithm and settings.speculative_eagle_topk > 1:
        yield (
            "speculative_eagle_topk",
            f"expected 1, a chain, as deterministic is set, got {settings.speculative_eagle_topk}",
        )


def verify_deterministic(settings: EngineSettings, config: Weights) -> None:
    """The settings and the model's weights allow it, if it is asked for. Raises: EngineMisconfigured."""
    for key, problem in find_excluded(settings):
        raise EngineMisconfigured(f"{key}: {problem}")
    if settings.deterministic and settings.device != "cpu" and config.quantization is not None:
        raise EngineMisconfigured("deterministic: expected weights in bfloat16 or float16, found a checkpoint in FP8")
