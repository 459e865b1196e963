"""Line plots as self-contained SVG: no script, no font, no library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 28, 42
_COLOURS = ("#1b6ca8", "#c44536", "#2a8c55", "#8a5aab", "#b07d12", "#3c3c3c")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, and how far."""

    label: str
    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands, 0 to 1; values outside stand at the edge."""
        if self.is_log:
            low, high, value = math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Round values, four to ten of them."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            candidates = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
            if last - first > 3:
                candidates = [10.0**power for power in range(first, last + 1)]
        else:
            step = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
            while (self.high - self.low) / step > 6:
                step *= 2 if step / 10.0 ** math.floor(math.log10(step)) != 2 else 2.5
            first_step = math.ceil(self.low / step)
            candidates = [step * place for place in range(first_step, math.floor(self.high / step) + 1)]
        return [value for value in candidates if self.low <= value <= self.high]


def line_plot(title: str, x: Axis, y: Axis, series: dict[str, Points]) -> str:
    """One plot; each series is a line with its name in the legend, if there are several."""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}" font-family="sans-serif" font-size="11">',
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="bold">{escape(title)}</text>',
        *(_vertical(x, value) for value in x.ticks()),
        *(_horizontal(y, value) for value in y.ticks()),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>',
        f'<text transform="translate(12 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>",
    ]
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{_x(x, left):.1f},{_y(y, up):.1f}" for left, up in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(series) > 1:
            at = _TOP + 14 * number + 10
            parts.append(
                f'<text x="{_WIDTH - _RIGHT - 6}" y="{at}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
            )
    return "\n".join([*parts, "</svg>"])


def cumulative(values: Sequence[float], most_points: int = 200) -> Points:
    """The share of values up to each, in percent: from many values some that stand for all."""
    ordered = sorted(values)
    count = len(ordered)
    places = sorted({min(count - 1, round(place * (count - 1) / most_points)) for place in range(most_points + 1)})
    return [(ordered[place], 100 * (place + 1) / count) for place in places]


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _vertical(axis: Axis, value: float) -> str:
    at = _x(axis, value)
    return (
        f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>'
        f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{value:g}</text>'
    )


def _horizontal(axis: Axis, value: float) -> str:
    at = _y(axis, value)
    return (
        f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    )
