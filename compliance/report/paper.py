"""Paragraphs, tables and pictures set on pages one after another, with a line on the foot of each, and tagged as what they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from compliance.report.drawing import Drawing, tell
from compliance.report.pdf import PAGE_HEIGHT, PAGE_WIDTH, Mark, Page, encode_pdf, width_of
from compliance.report.tags import Tag

MARGIN, TEXT_WIDTH = 47.0, PAGE_WIDTH - 94.0
HALF_WIDTH = (TEXT_WIDTH - 22.0) / 2
_FLOOR = PAGE_HEIGHT - 50.0
_ROW_BEGINS = 4
"""Lines of a row at the foot of a page, at least, where it has so many; a head or heading is never alone there."""
INK, FAINT, RULE, SHADE = "#263238", "#546e7a", "#cfd8dc", "#f2f5f6"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table with a colour and weight of its own."""

    text: str
    color: str = INK
    is_bold: bool = False


class Paper:
    """A document under way. `y` runs from the top; what does not fit goes onto a new page."""

    def __init__(self, title: str, foot: str) -> None:
        self._title = title
        self._foot = foot
        self._pages: list[Page] = []
        self._marks: list[Mark] = []
        self._document = Tag("Document")
        self.y = 0.0
        self._turn()

    def heading(self, text: str, *, size: float = 13, room: float = 80) -> None:
        """A heading, never the last on its page: behind it there is so much room."""
        self._need(size + room)
        self.y += size + 10
        self._marks.append(Mark(text, len(self._pages) - 1, self.y - size, is_part=size < 13))
        with self._page.within(self._document.add("H1" if size > 13 else "H2" if size == 13 else "H3")):
            self._page.text(MARGIN, self.y, text, size, INK, True)
        self.y += 6

    def paragraph(self, text: str, *, size: float = 9, color: str = INK, is_bold: bool = False) -> None:
        """Text over the whole width."""
        tag = self._document.add("P")
        lines = spaced(text, wrap(text, TEXT_WIDTH, size, is_bold=is_bold))
        while lines:
            self._need(size * 1.4)
            room = max(int((_FLOOR - self.y) / (size * 1.4)), 1)
            with self._page.within(tag):
                for line in lines[:room]:
                    self.y += size * 1.4
                    self._page.text(MARGIN, self.y, line, size, color, is_bold)
            lines = lines[room:]
        self.y += 3

    def picture(self, drawing: Drawing) -> None:
        """A picture as wide as the text."""
        self._need(drawing.height + 12)
        self._draw(drawing, MARGIN, self.y + 6)
        self.y += drawing.height + 12

    def pairs(self, drawings: Sequence[Drawing]) -> None:
        """Pictures of HALF_WIDTH, two beside each other."""
        for left, right in zip_longest(drawings[::2], drawings[1::2]):
            height = max(left.height, right.height if right is not None else 0.0)
            self._need(height + 14)
            self._draw(left, MARGIN, self.y + 7)
            if right is not None:
                self._draw(right, MARGIN + TEXT_WIDTH - HALF_WIDTH, self.y + 7)
            self.y += height + 14

    def table(
        self, heads: Sequence[str], shares: Sequence[int], rows: Sequence[Sequence[str | Cell]], *, size: float = 7.5
    ) -> None:
        """A table whose columns share the width in these proportions; its head, if it has one, stands on each page again."""
        widths = [TEXT_WIDTH * share / sum(shares) for share in shares]
        assert all(
            width_of(head, size, is_bold=True) <= width - 6 for head, width in zip(heads, widths, strict=True)
        ), heads
        table = self._document.add("Table")
        self._head(heads, widths, size, table)
        for row in rows:
            cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            lines = [
                spaced(cell.text, wrap(cell.text, width - 6, size, is_bold=cell.is_bold))
                for cell, width in zip(cells, widths, strict=True)
            ]
            if any(lines):
                line = table.add("TR")
                tags = [line.add("TD") if place or any(heads) else line.add("TH", "Row") for place in range(len(cells))]
            while any(lines):
                room = max(int((_FLOOR - self.y - 5) / (size * 1.3)), 0)
                if room < min(max(map(len, lines)), _ROW_BEGINS):
                    self._turn()
                    self._head(heads, widths, size, None)
                    continue
                self._row(cells, [column[:room] for column in lines], widths, size, tags)
                lines = [column[room:] for column in lines]
            with self._page.within(None):
                self._page.line(MARGIN, self.y + 1.5, MARGIN + TEXT_WIDTH, self.y + 1.5, RULE)
        self.y += 6

    def encode(self, made_at_ms: int) -> bytes:
        """The whole as PDF, with page numbers."""
        for number, page in enumerate(self._pages, start=1):
            of = f"{number} / {len(self._pages)}"
            with page.within(None):
                page.line(MARGIN, PAGE_HEIGHT - 38, MARGIN + TEXT_WIDTH, PAGE_HEIGHT - 38, RULE)
                page.text(MARGIN, PAGE_HEIGHT - 27, self._foot, 7, FAINT)
                page.text(MARGIN + TEXT_WIDTH - width_of(of, 7), PAGE_HEIGHT - 27, of, 7, FAINT)
        return encode_pdf(self._pages, self._marks, title=self._title, made_at_ms=made_at_ms, document=self._document)

    @property
    def _page(self) -> Page:
        return self._pages[-1]

    def _draw(self, drawing: Drawing, x: float, y: float) -> None:
        tag = self._document.add("Figure")
        tag.words = tell(drawing)
        tag.box = (x, PAGE_HEIGHT - y - drawing.height, x + drawing.width, PAGE_HEIGHT - y)
        with self._page.within(tag):
            self._page.drawing(drawing, x, y)

    def _head(self, heads: Sequence[str], widths: Sequence[float], size: float, table: Tag | None) -> None:
        """The head of a table; where it stands there again, `table` is None, and it is not read once more."""
        self._need(size * 1.3 * (1 + _ROW_BEGINS) + 16)
        if not any(heads):
            return
        with self._page.within(None):
            self._page.box(MARGIN, self.y + 2, TEXT_WIDTH, size * 1.7, SHADE)
        row = table.add("TR") if table is not None else None
        tags = [row.add("TH", "Column") if row is not None else None for _ in heads]
        self._row([Cell(head, FAINT, True) for head in heads], [[head] for head in heads], widths, size, tags)
        self.y += 2

    def _row(
        self,
        cells: Sequence[Cell],
        lines: Sequence[Sequence[str]],
        widths: Sequence[float],
        size: float,
        tags: Sequence[Tag | None],
    ) -> None:
        x = MARGIN
        for cell, column, width, tag in zip(cells, lines, widths, tags, strict=True):
            if column:
                with self._page.within(tag):
                    for number, line in enumerate(column, start=1):
                        self._page.text(x + 3, self.y + 1 + number * size * 1.3, line, size, cell.color, cell.is_bold)
            x += width
        self.y += max(map(len, lines), default=0) * size * 1.3 + 4

    def _need(self, height: float) -> None:
        if self.y + height > _FLOOR:
            self._turn()

    def _turn(self) -> None:
        self._pages.append(Page(len(self._pages)))
        self.y = 40.0


def wrap(text: str, width: float, size: float, *, is_bold: bool = False) -> list[str]:
    """Lines that are at most so wide; a word that is wider is broken."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if width_of(longer, size, is_bold=is_bold) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while width_of(word, size, is_bold=is_bold) > width:
            end = next(
                n for n in range(len(word), 0, -1) if n == 1 or width_of(word[:n], size, is_bold=is_bold) <= width
            )
            lines.append(word[:end])
            word = word[end:]
        line = word
    return [*lines, line] if line else lines


def spaced(text: str, lines: Sequence[str]) -> list[str]:
    """The lines of a text with the spaces at which they were broken, so that nobody reads two words as one; none within a word."""
    plain, place, found = " ".join(text.split()), 0, []
    for line in lines:
        place += len(line)
        space = plain[place : place + 1] == " "
        found.append(f"{line} " if space else line)
        place += space
    return found
