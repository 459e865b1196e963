"""What a user has asked to be trained, in plain values. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from runtime.settings import EngineSettings
from runtime.training.draft.plan import HeadPlan, Sampling


@dataclass(frozen=True)
class HeadOrder:
    """What is to be trained, and where it goes."""

    model: Path
    out: Path
    state: Path
    settings: EngineSettings
    """Of the engine that answers."""
    sampling: Sampling
    plan: HeadPlan
    num_drafts: int = 5
    save_every: int = 100
