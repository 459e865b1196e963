"""The learning rate over a run: warm up, hold, decay linearly to zero; and again, where there are several cycles.

The held part does not depend on the length of the run, so a run that has to end early can start its decay at any step. A
finished run is made better by another cycle that starts from its end, which loses little against one long cycle. Source:
WSD, Hu et al. 2024 (MiniCPM); cycles of it, Wen et al. 2024 (WSD-S); the linear decay to zero, Bergsma et al. 2025.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmHoldDecay:
    """Cycles of the given numbers of steps; steps are counted from 0, and each cycle's last still learns a little."""

    cycles: tuple[int, ...]
    num_warmup: int = 50
    decay_share: float = 0.5

    def scale(self, step: int) -> float:
        """The factor on the learning rates at `step`, in (0, 1]."""
        for num_steps in self.cycles:
            if step < num_steps:
                num_decay = max(1, round(num_steps * self.decay_share))
                return min(1.0, (step + 1) / self.num_warmup, (num_steps - step) / num_decay)
            step -= num_steps
        raise ValueError(f"the schedule of {sum(self.cycles)} steps ended {step + 1} steps ago")
