"""Pictures as a handful of shapes, which SVG and PDF draw alike. The origin is the upper left corner, the unit a point."""

from dataclasses import dataclass, field
from html import escape
from typing import Literal

Anchor = Literal["start", "middle", "end"]


_MOST_TOLD = 31


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle; `words` tell what it stands for, where a reader can show that."""

    x: float
    y: float
    width: float
    height: float
    color: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Stroke:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    color: str
    width: float = 0.5


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text on its baseline."""

    x: float
    y: float
    text: str
    size: float = 8
    color: str = "#37474f"
    anchor: Anchor = "start"
    is_bold: bool = False


@dataclass(slots=True)
class Drawing:
    """A picture; `title` says what it shows to those who do not see it."""

    width: float
    height: float
    title: str
    shapes: list[Box | Stroke | Label] = field(default_factory=list)


def tell(drawing: Drawing) -> str:
    """What a picture shows to those who do not see it: its title, and what each box stands for, where these are not too many."""
    told = [shape.words for shape in drawing.shapes if isinstance(shape, Box) and shape.words]
    return f"{drawing.title}: {'; '.join(told)}" if 0 < len(told) <= _MOST_TOLD else drawing.title


def render_svg(drawing: Drawing, *, tells_values: bool = False) -> str:
    """The picture for a page: as wide as its place, with text that can be read aloud.

    Args:
        tells_values: what each box stands for is read aloud with the title, where these are not too many.
    """
    label = tell(drawing) if tells_values else drawing.title
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_number(drawing.width)} {_number(drawing.height)}" '
        f'role="img" aria-label="{escape(label)}" font-family="sans-serif">'
    ]
    return "".join([*parts, *map(_render, drawing.shapes), "</svg>"])


def _render(shape: Box | Stroke | Label) -> str:
    if isinstance(shape, Box):
        title = f"<title>{escape(shape.words)}</title>" if shape.words else ""
        return (
            f'<rect x="{_number(shape.x)}" y="{_number(shape.y)}" width="{_number(shape.width)}" '
            f'height="{_number(shape.height)}" fill="{shape.color}">{title}</rect>'
        )
    if isinstance(shape, Stroke):
        return (
            f'<line x1="{_number(shape.x1)}" y1="{_number(shape.y1)}" x2="{_number(shape.x2)}" y2="{_number(shape.y2)}" '
            f'stroke="{shape.color}" stroke-width="{_number(shape.width)}"/>'
        )
    weight = ' font-weight="bold"' if shape.is_bold else ""
    return (
        f'<text x="{_number(shape.x)}" y="{_number(shape.y)}" font-size="{_number(shape.size)}" fill="{shape.color}" '
        f'text-anchor="{shape.anchor}"{weight}>{escape(shape.text)}</text>'
    )


def _number(value: float) -> str:
    """At most two decimals, and no zeroes behind them."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
