"""The parts of a paper as they are read aloud, in order: headings, paragraphs, tables by row and cell, pictures with their words.

What belongs to no part (rules, shades, the foot of a page, a table's head that stands there again) is marked as such where it is
drawn, and is not read. Not PDF/UA, which wants fonts embedded. Source: ISO 32000-1:2008, sections 14.7 (structure) and 14.8.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Tag:
    """One part.

    Attributes:
        kind: ISO 32000's word for it: Document, H1, P, Table, TR, TH, TD, Figure.
        scope: of a TH: which cells it is about, Row or Column.
        words: of a Figure: what it shows to those who do not see it.
        box: of a Figure: its place on the page, left, bottom, right, top.
        kids: the parts of it, and the pieces of its content as (page, from 0; number on the page).
    """

    kind: str
    scope: str = ""
    words: str = ""
    box: tuple[float, float, float, float] | None = None
    kids: list["Tag | tuple[int, int]"] = field(default_factory=list)

    def add(self, kind: str, scope: str = "") -> "Tag":
        """A new part, behind the others."""
        self.kids.append(tag := Tag(kind, scope))
        return tag

    def walk(self) -> Iterator["Tag"]:
        """This part and all in it."""
        yield self
        for kid in self.kids:
            if isinstance(kid, Tag):
                yield from kid.walk()


def encode_tags(
    document: Tag,
    pages: list[list[Tag]],
    first: int,
    page_object: Callable[[int], int],
    encode_text: Callable[[str], str],
) -> list[str]:
    """The tree of parts, as objects numbered from `first` on: its root, the way from content to parts, the parts.

    Args:
        pages: for each page the parts that its pieces of content belong to, in order.
        page_object: the number of a page's object.
        encode_text: a text as PDF writes it.
    """
    numbers = {tag: first + 2 + place for place, tag in enumerate(document.walk())}
    above = {kid: numbers[tag] for tag in numbers for kid in tag.kids if isinstance(kid, Tag)}
    rows = (f"{page} [{' '.join(f'{numbers[tag]} 0 R' for tag in tags)}]" for page, tags in enumerate(pages))
    objects = [
        f"<< /Type /StructTreeRoot /K {numbers[document]} 0 R /ParentTree {first + 1} 0 R /ParentTreeNextKey {len(pages)} >>",
        f"<< /Nums [{' '.join(rows)}] >>",
    ]
    for tag in numbers:
        kids = " ".join(
            f"{numbers[kid]} 0 R"
            if isinstance(kid, Tag)
            else f"<< /Type /MCR /Pg {page_object(kid[0])} 0 R /MCID {kid[1]} >>"
            for kid in tag.kids
        )
        words = f" /Alt {encode_text(tag.words)}" if tag.words else ""
        objects.append(f"<< /S /{tag.kind} /P {above.get(tag, first)} 0 R /K [{kids}]{words}{_attributes(tag)} >>")
    return objects


def _attributes(tag: Tag) -> str:
    if tag.scope:
        return f" /A << /O /Table /Scope /{tag.scope} >>"
    if tag.box is not None:
        return f" /A << /O /Layout /Placement /Block /BBox [{' '.join(f'{place:.2f}' for place in tag.box)}] >>"
    return ""
