"""A writer of PDF for text, boxes, lines, bookmarks and tags: two fonts that every reader has, no pictures, compression or links.

What always holds: the same calls give the same bytes; the file's id is a digest of its content, its dates are what the
caller says. Text is in WinAnsiEncoding; what that does not have becomes a question mark. Source: ISO 32000-1:2008, sections
7.5, 9.6.2.2, 12.3.3, 14.7 and annex D.
"""

import datetime
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from compliance.report.drawing import Anchor, Box, Drawing, Label, Stroke
from compliance.report.metrics import BOLD, REGULAR
from compliance.report.tags import Tag, encode_tags

PAGE_WIDTH, PAGE_HEIGHT = 595.0, 842.0
"""A4, in points."""
_REPLACED = str.maketrans({"→": ">", "≥": ">=", "≤": "<=", "\t": " ", "\n": " "})


@dataclass(slots=True)
class Page:
    """One page, as the operators that draw it. The origin of what it takes is the upper left corner."""

    number: int = 0
    """From 0."""
    operators: list[str] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    """Of each piece of content the part that it belongs to."""

    @contextmanager
    def within(self, tag: Tag | None) -> Iterator[None]:
        """What is drawn is a piece of this part of the document; of none, and not read aloud, where it is None. Never nested."""
        if tag is None:
            self.operators.append("/Artifact BMC")
        else:
            self.operators.append(f"/{tag.kind} << /MCID {len(self.tags)} >> BDC")
            tag.kids.append((self.number, len(self.tags)))
            self.tags.append(tag)
        yield
        self.operators.append("EMC")

    def text(self, x: float, y: float, text: str, size: float, color: str = "#000000", is_bold: bool = False) -> None:
        """A line of text, from x on, on the baseline y."""
        font = "F2" if is_bold else "F1"
        self.operators.append(
            f"BT {_color(color)} rg /{font} {_number(size)} Tf {_number(x)} {_number(PAGE_HEIGHT - y)} Td {_string(text)} Tj ET"
        )

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """A filled rectangle."""
        corner = f"{_number(x)} {_number(PAGE_HEIGHT - y - height)}"
        self.operators.append(f"{_color(color)} rg {corner} {_number(width)} {_number(height)} re f")

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, width: float = 0.5) -> None:
        """A straight line."""
        start, end = (f"{_number(x)} {_number(PAGE_HEIGHT - y)}" for x, y in ((x1, y1), (x2, y2)))
        self.operators.append(f"{_color(color)} RG {_number(width)} w {start} m {end} l S")

    def drawing(self, drawing: Drawing, x: float, y: float) -> None:
        """A picture, with its upper left corner there."""
        for shape in drawing.shapes:
            if isinstance(shape, Box):
                self.box(x + shape.x, y + shape.y, shape.width, shape.height, shape.color)
            elif isinstance(shape, Stroke):
                self.line(x + shape.x1, y + shape.y1, x + shape.x2, y + shape.y2, shape.color, shape.width)
            else:
                self._label(shape, x, y)

    def _label(self, label: Label, x: float, y: float) -> None:
        width = width_of(label.text, label.size, is_bold=label.is_bold)
        back: dict[Anchor, float] = {"start": 0.0, "middle": width / 2, "end": width}
        left = x + label.x - back[label.anchor]
        self.text(left, y + label.y, label.text, label.size, label.color, label.is_bold)


@dataclass(frozen=True, slots=True)
class Mark:
    """A bookmark: a heading, on which page (from 0) and how far from its top; `is_part` where it stands under the one before."""

    text: str
    page: int
    y: float
    is_part: bool = False


def width_of(text: str, size: float, *, is_bold: bool = False) -> float:
    """How wide a line of text is."""
    widths = BOLD if is_bold else REGULAR
    return sum(widths[code - 32] for code in _encode(text)) * size / 1000


def encode_pdf(
    pages: list[Page], marks: Sequence[Mark] = (), *, title: str, made_at_ms: int, document: Tag | None = None
) -> bytes:
    """The file; with `document`, in which the parts of all pages are, it can be read aloud."""
    contents = ["\n".join(page.operators).encode("cp1252") for page in pages]
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    box = f"[0 0 {_number(PAGE_WIDTH)} {_number(PAGE_HEIGHT)}]"
    moment = datetime.datetime.fromtimestamp(made_at_ms // 1000, datetime.UTC)
    date = f"(D:{moment:%Y%m%d%H%M%S}Z)"
    first_mark = 6 + 2 * len(pages)
    outlines = f"/Outlines {first_mark} 0 R /PageMode /UseOutlines " if marks else ""
    mark_objects = _encode_marks(marks, first_mark)
    first_tag = first_mark + len(mark_objects)
    tagged = f"/MarkInfo << /Marked true >> /StructTreeRoot {first_tag} 0 R " if document is not None else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {outlines}{tagged}/Lang (en) /ViewerPreferences << /DisplayDocTitle true >> >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox {box} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
        f"<< /Title {_text(title)} /Producer (Casemate) /CreationDate {date} /ModDate {date} >>".encode("cp1252"),
    ]
    for number, content in enumerate(contents):
        fonts = "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
        parts = f" /StructParents {number} /Tabs /S" if document is not None else ""
        objects.append(f"<< /Type /Page /Parent 2 0 R {fonts} /Contents {7 + 2 * number} 0 R{parts} >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content))
    tags = (
        encode_tags(document, [page.tags for page in pages], first_tag, lambda number: 6 + 2 * number, _text)
        if document is not None
        else []
    )
    return _assemble([*objects, *mark_objects, *(text.encode("cp1252") for text in tags)])


def _encode_marks(marks: Sequence[Mark], first: int) -> list[bytes]:
    """The outline and its items, closed, as objects numbered from `first` on."""
    if not marks:
        return []
    above: list[int | None] = []  # Of each mark the one that it stands under.
    for mark in marks:
        above.append(
            next((n for n in range(len(above) - 1, -1, -1) if not marks[n].is_part), None) if mark.is_part else None
        )
    below: dict[int | None, list[int]] = {}
    for number, parent in enumerate(above):
        below.setdefault(parent, []).append(number)
    tops = below[None]
    objects = [
        f"<< /Type /Outlines /First {first + 1 + tops[0]} 0 R /Last {first + 1 + tops[-1]} 0 R /Count {len(tops)} >>"
    ]
    for number, (mark, parent) in enumerate(zip(marks, above, strict=True)):
        siblings, parts = below[parent], below.get(number, [])
        place = siblings.index(number)
        links = {"Parent": first if parent is None else first + 1 + parent}
        if place > 0:
            links["Prev"] = first + 1 + siblings[place - 1]
        if place + 1 < len(siblings):
            links["Next"] = first + 1 + siblings[place + 1]
        if parts:
            links |= {"First": first + 1 + parts[0], "Last": first + 1 + parts[-1]}
        words = " ".join(f"/{name} {to} 0 R" for name, to in links.items())
        count = f" /Count -{len(parts)}" if parts else ""
        spot = f"[{6 + 2 * mark.page} 0 R /XYZ 0 {_number(PAGE_HEIGHT - mark.y)} 0]"
        objects.append(f"<< /Title {_text(mark.text)} {words}{count} /Dest {spot} >>")
    return [text.encode("cp1252") for text in objects]


def _assemble(objects: list[bytes]) -> bytes:
    """Header, objects, the table of where they stand, trailer."""
    data = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(data)
    digest = hashlib.sha256(data).hexdigest()[:32]
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 5 0 R /ID [<{digest}> <{digest}>] >>\n".encode()
    return bytes(data) + b"startxref\n%d\n%%%%EOF\n" % table


def _encode(text: str) -> bytes:
    plain = text.translate(_REPLACED).encode("cp1252", "replace")
    return bytes(code if code >= 32 else 63 for code in plain)


def _string(text: str) -> str:
    """A literal string, as the bytes that are meant."""
    escaped = _encode(text).replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
    return f"({escaped.decode('cp1252', 'replace')})"


def _text(text: str) -> str:
    """A text that is told and not set in a font: as it is, or where it is no ASCII in UTF-16 (7.9.2.2)."""
    return _string(text) if text.isascii() else f"<FEFF{text.encode('utf-16-be', 'replace').hex().upper()}>"


def _color(color: str) -> str:
    return " ".join(_number(int(color[start : start + 2], 16) / 255) for start in (1, 3, 5))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
