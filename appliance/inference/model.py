"""Loads the model that an `[[engines]]` entry names, and says of it what gateways and records must know."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from appliance.messages.engine import ModelFacts
from runtime.runner import Runner, build_runner
from runtime.settings import EngineSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to run."""

    runner: Runner
    facts: ModelFacts

    @property
    def name(self) -> str:
        """The served name, which tickets and records name."""
        return self.facts.name
