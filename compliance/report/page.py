"""The report and the matrix as pages: one file each, without a script, a font or a picture from elsewhere. Everything is
escaped.
"""

from functools import cache, partial
from html import escape

from jinja2 import Environment, PackageLoader, StrictUndefined

from compliance.report.charts import shorten
from compliance.report.content import COLORS, HOLDS, Content
from compliance.report.drawing import render_svg
from compliance.scoring import CLOSED_WITHIN_DAYS, CONDITIONAL


def render_report(content: Content) -> bytes:
    """`report.html`."""
    return _render("report.html.jinja", content)


def render_matrix(content: Content) -> bytes:
    """`responsibility-matrix.html`."""
    return _render("matrix.html.jinja", content)


def _render(name: str, content: Content) -> bytes:
    text = (
        _environment()
        .get_template(name)
        .render(
            content=content,
            colors=COLORS,
            holds=HOLDS,
            conditional=CONDITIONAL,
            closed_within_days=CLOSED_WITHIN_DAYS,
        )
    )
    return text.encode("utf-8", "replace") + b"\n"


def mark_code(text: str) -> str:
    """Escaped text whose parts between backticks are code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def mark_breaks(name: str) -> str:
    """An escaped name that may go on in the next line behind each underscore, so that it is not broken within a word."""
    return escape(name).replace("_", "_<wbr>")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("compliance", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "words": mark_code,
        "breakable": mark_breaks,
        "svg": partial(render_svg, tells_values=True),
        "short": shorten,
        "commas": lambda value: f"{value:,}",
    }
    return environment
