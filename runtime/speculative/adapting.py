"""How much to speculate: as much as pays, by the engine's own measurements.

Speculation trades arithmetic for passes. While the device waits for weights the rows of drafts are free; with many answers in a
batch they are not, and at some size a pass over drafts takes longer than the tokens that it saves. Where that is depends on
the device, the model and on how good the drafts are for the texts of the hour. So the engine measures both sides:

- how long steps that only decode take, for each level and each range of batch sizes;
- how often the draft at each place of a chain is accepted, given that those before it were.

A level is a number of steps in which drafts are made, for each of which one may be accepted; its worth is the tokens that a pass is
expected to give, over its time. The best level is taken; one with more drafts only if it is better by `MARGIN`, one with fewer by
`MARGIN_DOWN`, so that it stays within that of plain decoding.

What is not known is tried, by steps that only decode: those with prompts say nothing of it.

- *At first*: a range that nobody knows begins with the level of a neighbour, or without drafts where there is none; up to
  `FEW_ANSWERS` begin with all of them. Plain steps and those of the level taken are measured at once, another level as
  soon as what that may lose is within what may be lost on learning: `LEARNING_S` or the time of `LEARNING_STEPS` plain steps,
  and `TRIAL_SHARE` of all time. So a crowd that comes to an engine that has just started is answered by plain steps.
- *Again*, from time to time for a few steps, as texts change. What such a trial is expected to lose, in time and in drafts
  made in vain, is at most `TRIAL_SHARE` of the time since the one before it: where a pass over drafts takes eight times as
  long as a plain one, trials are rarer.

Imports no torch. Deterministic but for the times it is told.
"""

import numpy as np

from runtime.batch import Int64
from runtime.draft_shape import DraftShape

NUM_TRIALS = 3
"""Steps of a level before it is judged: the first ones may load and allocate."""
TRIAL_INTERVAL = 400
"""Steps after which another level is tried again, at the earliest."""
TRIAL_SHARE = 0.005
"""Of the time, that trials may lose; as much again, that first measurements may."""
LEARNING_S = 0.1
LEARNING_STEPS = 8
"""What first measurements may lose beside that: the longer of both. Eight plain steps are what the first trial of half a chain
of 7 may lose at worst, so a slow device makes it as well."""
GROWTH = 1.5
"""By how much more a level's time over that of a plain step grows from one range of sizes to the next, at most."""
FEW_ANSWERS = 4
"""Whose drafts are worth their rows, as long as nobody knows better: weights take longer to read."""
FEW_OBSERVATIONS = 20
MARGIN = 0.03
MARGIN_DOWN = 0.005
TIME_WEIGHT = 0.1
ACCEPTANCE_WEIGHT = 0.02
"""Of each new observation in the running averages."""


def speculation_levels(num_steps: int) -> tuple[int, ...]:
    """How many drafts may be made at a time, ascending: none, half of the chain, all of it."""
    return tuple(sorted({0, num_steps // 2, num_steps}))


class AcceptanceEstimate:
    """Chances that the draft at each place of a chain is accepted, given that those before it were.

    Plain means at first, running averages once there is more than they remember. Of a place that was hardly ever reached the
    chance is taken to be that of the place before it.
    """

    def __init__(self, num_steps: int) -> None:
        self._chances = [0.5] * num_steps
        self._counts = [0] * num_steps

    @property
    def chances(self) -> list[float]:
        """By place."""
        result: list[float] = []
        for chance, count in zip(self._chances, self._counts, strict=True):
            result.append(result[-1] if result and count < FEW_OBSERVATIONS else chance)
        return result

    def observe(self, num_verified: Int64, num_accepted: Int64) -> None:
        """A pass verified so many drafts of each of some chains, of which the first so many were right."""
        for place in range(len(self._chances)):
            tried = (num_verified > place) & (num_accepted >= place)
            count = int(np.count_nonzero(tried))
            if not count:
                break
            share = float(np.count_nonzero(num_accepted[tried] > place)) / count
            self._counts[place] += count
            weight = max(count / self._counts[place], 1 - (1 - ACCEPTANCE_WEIGHT) ** count)
            self._chances[place] += weight * (share - self._chances[place])

    def num_tokens(self, level: int) -> float:
        """Tokens that a pass over so many drafts is expected to give."""
        expected, chance = 1.0, 1.0
        for accepted in self.chances[:level]:
            chance *= accepted
            expected += chance
        return expected


class _Range:
    """What is known of one range of batch sizes."""

    def __init__(self, levels: tuple[int, ...], level: int) -> None:
        self.times: dict[int, float] = {}
        self.num_seen = dict.fromkeys(levels, 0)
        self.level = level
        """That is taken."""
        self.measured_now: int | None = None
        """The level that is being measured for the first time."""
        self.trial = level
        self.num_trial_steps = 0
        """That are left of a trial."""
        self.num_steps = 0
        self.seconds = 0.0
        """Both since the last trial."""
        self.num_trials = 0
        self.catching_up_s = 0.0
        """That the first step in which drafts were made again took longer, the last time."""

    def knows(self, level: int) -> bool:
        """Whether it was measured."""
        return self.num_seen[level] >= NUM_TRIALS

    def start_trial(self, level: int) -> None:
        self.trial, self.num_trial_steps = level, NUM_TRIALS
        self.num_steps, self.seconds = 0, 0.0
        self.num_trials += 1

    def observe(self, level: int, seconds: float) -> None:
        self.num_seen[level] += 1
        self.seconds += seconds
        known = self.times.get(level, seconds)
        if self.num_seen[level] <= NUM_TRIALS:
            self.times[level] = min(known, seconds)  # The first ones load and allocate: they are no measure.
        else:
            self.times[level] += TIME_WEIGHT * (seconds - known)


class SpeculationPolicy:
    """Chooses a level for each step."""

    def __init__(self, shape: DraftShape, *, is_adaptive: bool) -> None:
        """
        Args:
            shape: of what is drafted at most.
            is_adaptive: False always takes all of it.
        """
        self.shape, num_steps = shape, shape.num_steps
        self._levels = speculation_levels(num_steps)
        self._is_adaptive = is_adaptive and num_steps > 0
        self._num_steps = num_steps
        self._ranges: dict[int, _Range] = {}
        self._pinned: int | None = None
        self._seconds = self._lost_s = 0.0
        """Of all steps that only decoded, and what first measurements lost."""
        self.acceptance = AcceptanceEstimate(num_steps)

    @property
    def levels(self) -> tuple[int, ...]:
        """All that may be chosen, ascending."""
        return self._levels

    def pin(self, level: int) -> None:
        """Choose so many drafts from now on, whatever is measured; for measurements."""
        assert 0 <= level <= self._num_steps, f"{level} drafts of at most {self._num_steps}"
        self._pinned = level

    def choose(self, num_decodes: int, *, has_prompts: bool = False) -> int:
        """How many drafts the next step makes for each of its answers, and verifies at most."""
        if self._pinned is not None:
            return self._pinned
        if not self._is_adaptive or not num_decodes:
            return self._num_steps
        known = self._range(num_decodes)
        if has_prompts:
            return known.level
        if known.measured_now is None or known.knows(known.measured_now):
            known.measured_now = self._find_unmeasured(_range_of(num_decodes), known)
        if known.measured_now is not None:
            return known.measured_now
        self._settle(known)
        known.num_steps += 1
        others = [level for level in self._levels if level != known.level and known.knows(level)]
        if others and not known.num_trial_steps and known.num_steps > TRIAL_INTERVAL:
            other = others[known.num_trials % len(others)]
            if self._trial_loss(known, other, known.times[other]) <= TRIAL_SHARE * known.seconds:
                known.start_trial(other)
        if known.num_trial_steps:
            known.num_trial_steps -= 1
            return known.trial
        return known.level

    def level_at(self, num_decodes: int) -> int:
        """How many drafts a batch of this size makes as far as it is known, trials aside: for steps that decode nothing yet."""
        if self._pinned is not None:
            return self._pinned
        if not self._is_adaptive:
            return self._num_steps
        key = _range_of(num_decodes)
        return self._ranges[key].level if key in self._ranges else self._presumed(key)

    def observe_step(self, num_decodes: int, level: int, seconds: float) -> None:
        """A step that only decoded, and verified and made `level` drafts for each answer, took so long."""
        if self._is_adaptive and num_decodes and seconds > 0 and level in self._levels:
            known = self._range(num_decodes)
            known.observe(level, seconds)
            self._count(known, level, seconds)

    def observe_catching_up(self, num_decodes: int, level: int, seconds: float) -> None:
        """The same of one that made entries for earlier steps as well: what that takes is a part of what a trial costs."""
        if self._is_adaptive and num_decodes and level in self._levels:
            known = self._range(num_decodes)
            known.catching_up_s = max(0.0, seconds - known.times.get(level, seconds))
            known.seconds += seconds
            self._count(known, level, seconds)

    def _count(self, known: _Range, level: int, seconds: float) -> None:
        self._seconds += seconds
        if level == known.measured_now and 0 in known.times:
            self._lost_s += max(0.0, seconds - known.times[0])

    def _find_unmeasured(self, key: int, known: _Range) -> int | None:
        """The level to measure now, of those that were not."""
        for level in (known.level, 0):
            if not known.knows(level):
                return level
        allowed = max(LEARNING_S, LEARNING_STEPS * self._plain_s()) + TRIAL_SHARE * self._seconds - self._lost_s
        for level in self._levels:
            if not known.knows(level):
                return level if self._trial_loss(known, level, self._longest_s(key, known, level)) <= allowed else None
        return None

    def _plain_s(self) -> float:
        """Of the shortest plain step that is known."""
        return min(known.times[0] for known in self._ranges.values() if 0 in known.times)

    def _longest_s(self, key: int, known: _Range, level: int) -> float:
        """What a step of a level takes at most that was never measured here, by what was."""
        plain_s = known.times[0]
        bounds = [plain_s * (self.shape.drafts_at(level) + 1)]  # Where rows are the bound.
        bounds += [
            plain_s + GROWTH * (seconds - plain_s) * level / other for other, seconds in known.times.items() if other
        ]
        smaller = self._ranges.get(_smaller(key))
        if smaller is not None and smaller.knows(level) and smaller.knows(0):
            bounds.append(GROWTH * plain_s * smaller.times[level] / smaller.times[0])
        return min(bounds)

    def _presumed(self, key: int) -> int:
        """The level of a range of which nothing is known: what pays in a larger batch does in a smaller one."""
        for neighbour in (_larger(key), _smaller(key)):
            known = self._ranges.get(neighbour)
            if known is not None and known.knows(known.level) and (known.level or neighbour < key):
                return known.level
        return self._num_steps if key <= FEW_ANSWERS else 0

    def _settle(self, known: _Range) -> None:
        """Take the best level, if it is better enough than the one that is taken."""
        best = max(filter(known.knows, self._levels), key=lambda level: self._worth(known, level))
        margin = MARGIN if best > known.level else MARGIN_DOWN
        if self._worth(known, best) > (1 + margin) * self._worth(known, known.level):
            known.level = best

    def _trial_loss(self, known: _Range, other: int, seconds: float) -> float:
        """Seconds that a trial is expected to cost beyond what the level that is taken needs for as many tokens.

        The first step of each level verifies no drafts, as the step before made none, or none that it keeps.

        Args:
            seconds: that a step of the other level takes.
        """
        token_s = 1 / self._worth(known, known.level)
        given = 1 + (NUM_TRIALS - 1) * self.acceptance.num_tokens(other)
        drafts_lost = self.acceptance.num_tokens(known.level) - 1
        late_s = 0.0 if known.level else known.catching_up_s
        return late_s + NUM_TRIALS * seconds - (given - drafts_lost) * token_s

    def _worth(self, known: _Range, level: int) -> float:
        return self.acceptance.num_tokens(level) / known.times[level]

    def _range(self, num_decodes: int) -> _Range:
        key = _range_of(num_decodes)
        if key not in self._ranges:
            self._ranges[key] = _Range(self._levels, self._presumed(key))
        return self._ranges[key]


def _range_of(num_decodes: int) -> int:
    """Sizes up to 4 by themselves, larger ones up to each power of 2."""
    return num_decodes if num_decodes <= 4 else 1 << (num_decodes - 1).bit_length()


def _smaller(key: int) -> int:
    """The range below; 0 is none."""
    return key - 1 if key <= 4 else key // 2


def _larger(key: int) -> int:
    return key + 1 if key < 4 else 2 * key
