"""The learning rate over a run: warm up, hold, decay linearly to zero.

The held part does not depend on the length of the run, so a run that has to end early can start its decay at any step,
and a longer one can be continued from any held checkpoint. Source: WSD, Hu et al. 2024 (MiniCPM); the linear decay to
zero: Bergsma et al. 2025.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmHoldDecay:
    """Steps are counted from 0; the last step still learns a little."""

    num_steps: int
    num_warmup: int = 50
    decay_share: float = 0.5

    def scale(self, step: int) -> float:
        """The factor on the learning rates at `step`, in (0, 1]."""
        num_decay = max(1, round(self.num_steps * self.decay_share))
        return min(1.0, (step + 1) / self.num_warmup, (self.num_steps - step) / num_decay)
