"""How busy the engines are: numbers of `GET /metrics`, and rates between two looks at it.

Counters are read by their documented names. A rate needs two looks: whoever comes first sees none, and the text says so rather than
a zero. Counters that went back belong to an engine that was started again: no rate is made of them.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable

import msgspec

MIN_SPAN_S = 1.0
MAX_SPAN_S = 300.0
"""Between two looks that make a rate."""
_SAMPLE = re.compile(r"casemate_([a-z_]+)\{([^}]*)\} ([-+0-9.eE]+)")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
_GAUGES = ("num_running_reqs", "num_queue_reqs", "token_usage", "cache_hit_rate")
_COUNTERS = ("prompt_tokens_total", "generation_tokens_total")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, now."""

    model: str
    engine: str
    running: float
    queued: float
    token_usage: float
    cache_hit_rate: float
    prompt_rate: float | None
    """Tokens a second since the last look; None where there was none."""
    output_rate: float | None


class Capacity:
    """Reads the metrics, and remembers the last look."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = 0.0
        self._counted: dict[tuple[str, str], dict[str, float]] = {}

    def read(self, exposition: str) -> list[Load]:
        """The engines of a scrape, by model and number."""
        found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for name, labels, value in _SAMPLE.findall(exposition):
            if name in _GAUGES or name in _COUNTERS:
                named = dict(_LABEL.findall(labels))
                found[named.get("model_name", ""), named.get("engine", "")][name] = float(value)
        now = self._clock()
        span = now - self._looked_at
        loads = [self._describe(key, values, span) for key, values in sorted(found.items())]
        if span >= MIN_SPAN_S:
            self._looked_at, self._counted = now, dict(found)
        return loads

    def _describe(self, key: tuple[str, str], values: dict[str, float], span: float) -> Load:
        return Load(
            model=key[0],
            engine=key[1],
            running=values.get("num_running_reqs", 0),
            queued=values.get("num_queue_reqs", 0),
            token_usage=values.get("token_usage", 0),
            cache_hit_rate=values.get("cache_hit_rate", 0),
            prompt_rate=self._rate(key, "prompt_tokens_total", values, span),
            output_rate=self._rate(key, "generation_tokens_total", values, span),
        )

    def _rate(self, key: tuple[str, str], name: str, values: dict[str, float], span: float) -> float | None:
        before, now = self._counted.get(key, {}).get(name), values.get(name)
        if before is None or now is None or now < before or not MIN_SPAN_S <= span <= MAX_SPAN_S:
            return None
        return (now - before) / span
