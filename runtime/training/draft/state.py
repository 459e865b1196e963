"""What a training keeps on disk while it runs, so that it can go on: the answers, and the weights with their optimizer.

`plan.json` says what is trained from what; a folder that belongs to another training is refused. Answers are stored a chunk of
prompts at a time. Every file is replaced in one move, so a run that was killed leaves whole ones.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import TrainingStopped
from runtime.training.storing import store_text

_PLAN = "plan.json"


class TrainingState:
    """The folder of one training."""

    def __init__(self, folder: Path, plan: Mapping[str, str]) -> None:
        """Begin, or go on where the folder says.

        Args:
            plan: everything that decides the result, by name.
        Raises: TrainingStopped if the folder is of another plan or cannot be written.
        """
        self._folder = folder
        kept = self._read(_PLAN)
        if kept is None:
            self._write(_PLAN, dict(plan))
        elif kept != dict(plan):
            differing = sorted(name for name in {*kept, *plan} if kept.get(name) != plan.get(name))
            raise TrainingStopped(
                f"{folder} is the state of another training (other {', '.join(differing)}): remove it, or name another folder"
            )

    @property
    def weights(self) -> Path:
        """Where the training loop keeps its own."""
        return self._folder / "training.safetensors"

    def load_answers(self, name: str, chunk: int) -> list[list[int]] | None:
        """The answers to a chunk of prompts, if they are there."""
        found: list[list[int]] | None = self._read(f"{name}-{chunk:06}.json")
        return found

    def store_answers(self, name: str, chunk: int, answers: list[list[int]]) -> None:
        """Keep the answers to a chunk of prompts. Raises: TrainingStopped."""
        self._write(f"{name}-{chunk:06}.json", answers)

    def remove(self) -> None:
        """The training has ended: nothing of it is needed any more."""
        for path in (*self._folder.glob("*-*.json"), self.weights, self._folder / _PLAN):
            path.unlink(missing_ok=True)
        self._folder.rmdir()

    def _read(self, name: str) -> Any:
        path = self._folder / name
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise TrainingStopped(f"{path}: cannot be read: {error}") from error

    def _write(self, name: str, content: object) -> None:
        store_text(json.dumps(content, separators=(",", ":")), self._folder / name)
