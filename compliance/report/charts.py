"""The charts of the report: a bar of shares, columns over time, bars by name. Values are whole numbers, so no scale has
fractions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compliance.report.drawing import Box, Drawing, Label, Stroke
from compliance.report.pdf import width_of

INK, FAINT, GRID = "#37474f", "#546e7a", "#e0e5e8"
WIDTH = 500.0
_LEFT, _TOP, _BOTTOM = 30.0, 20.0, 16.0
_COLUMNS_HEIGHT, _LABEL_GAP, _NAMES_SHARE = 116.0, 14.0, 0.6
_WIDER = 1.18
"""Text is measured as Helvetica, and a browser that has none may take a font that is so much wider."""


@dataclass(frozen=True, slots=True)
class Series:
    """What the columns are stacked of: a name, its colour, one value a column."""

    name: str
    color: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole."""

    name: str
    color: str
    value: int


def draw_shares(title: str, shares: Sequence[Share]) -> Drawing:
    """One bar, cut in proportion, with a legend below."""
    drawing = Drawing(WIDTH, 46, title)
    total = sum(share.value for share in shares) or 1
    x = 0.0
    for share in shares:
        width = WIDTH * share.value / total
        drawing.shapes.append(Box(x, 0, width, 20, share.color, f"{share.name}: {share.value}"))
        if width > 18:
            drawing.shapes.append(Label(x + width / 2, 14, str(share.value), 9, "#ffffff", "middle", True))
        x += width
    _draw_legend(drawing, [(share.name, share.color) for share in shares], 0, 38)
    return drawing


def draw_columns(title: str, labels: Sequence[str], series: Sequence[Series], width: float = WIDTH) -> Drawing:
    """Columns over time, stacked of the series; every label that fits."""
    height = _COLUMNS_HEIGHT
    drawing = Drawing(width, height, title)
    drawing.shapes.append(Label(0, 9, title, 9, INK, "start", True))
    if len(series) > 1:
        legend = [(one.name, one.color) for one in series]
        _draw_legend(drawing, legend, width - sum(_legend_width(name) for name, _ in legend) + 6, 9)
    floor, room = height - _BOTTOM, height - _BOTTOM - _TOP
    top = round_up(max((sum(values) for values in zip(*(one.values for one in series), strict=True)), default=0))
    for step in range(3):
        y = floor - room * step / 2
        drawing.shapes.append(Stroke(_LEFT, y, width, y, GRID))
        drawing.shapes.append(Label(_LEFT - 4, y + 3, shorten(top * step // 2), 7.5, FAINT, "end"))
    pitch = (width - _LEFT) / max(len(labels), 1)
    wide = min(max(pitch * 0.8, 0.4), 28.0)
    every = math.ceil((max((_WIDER * width_of(label, 7.5) for label in labels), default=0) + _LABEL_GAP) / pitch)
    for column, label in enumerate(labels):
        x, y = _LEFT + column * pitch, floor
        for one in series:
            tall = room * one.values[column] / top
            y -= tall
            if one.values[column]:
                words = f"{label}: {one.values[column]} {one.name}"
                drawing.shapes.append(Box(x + (pitch - wide) / 2, y, wide, tall, one.color, words))
        if column % every == 0 and (column + every / 2) * pitch <= width - _LEFT:
            drawing.shapes.append(Label(x + pitch / 2, height - 4, label, 7.5, FAINT, "middle"))
    return drawing


def draw_bars(title: str, rows: Sequence[tuple[str, int]], color: str, width: float = WIDTH) -> Drawing:
    """A bar for each name, the longest first; at most ten."""
    shown = list(rows)[:10]
    names = min(max((_WIDER * width_of(name, 8) for name, _ in shown), default=0.0) + 6, _NAMES_SHARE * width)
    numbers = max((_WIDER * width_of(f"{value:,}", 8) for _, value in shown), default=0.0) + 6
    drawing = Drawing(width, 18 + 15 * max(len(shown), 1), title)
    drawing.shapes.append(Label(0, 9, title, 9, INK, "start", True))
    most = max((value for _, value in shown), default=1) or 1
    for number, (name, value) in enumerate(shown):
        y = 18 + 15 * number
        long = (width - names - numbers) * value / most
        drawing.shapes.append(Label(0, y + 8.5, fit(name, names - 6, 8), 8, INK))
        drawing.shapes.append(Box(names, y + 1, max(long, 1), 10, color, f"{name}: {value}"))
        drawing.shapes.append(Label(names + long + 4, y + 9, f"{value:,}", 8, FAINT))
    if not shown:
        drawing.shapes.append(Label(0, 26, "none in this period", 8, FAINT))
    return drawing


def round_up(value: int) -> int:
    """The next of 2, 4, 6, 10, 20, 40, 60, 100, … that is not less, so that half of it is whole."""
    scale = 1
    while True:
        for step in (2, 4, 6, 10):
            if step * scale >= value:
                return step * scale
        scale *= 10


def shorten(value: int) -> str:
    """`1.5M`, `20k`, `7`."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            tenths = value * 10 // unit
            return f"{tenths // 10}{letter}" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}{letter}"
    return str(value)


def fit(text: str, width: float, size: float) -> str:
    """As much of it as is no wider."""
    if _WIDER * width_of(text, size) <= width:
        return text
    end = next((end for end in range(len(text), 0, -1) if _WIDER * width_of(f"{text[:end]}…", size) <= width), 0)
    return f"{text[:end]}…"


def _draw_legend(drawing: Drawing, entries: Sequence[tuple[str, str]], x: float, y: float) -> None:
    for name, color in entries:
        drawing.shapes.append(Box(x, y - 7, 7, 7, color))
        drawing.shapes.append(Label(x + 10, y, name, 8, INK))
        x += _legend_width(name)


def _legend_width(name: str) -> float:
    return 17 + _WIDER * width_of(name, 8)
