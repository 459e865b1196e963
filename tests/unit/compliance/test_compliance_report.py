"""The report: complete, harmless whatever names it holds, and drawn to scale."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.activity import DAY_MS, HOUR_MS, Activity, Bucket
from compliance.pack import WrittenPack
from compliance.period import Period
from compliance.report.charts import Series, Share, draw_bars, draw_columns, draw_shares, fit, round_up, shorten
from compliance.report.content import COLORS
from compliance.report.drawing import Box, Drawing, Label, render_svg
from compliance.report.matrix import encode_csv
from compliance.report.page import mark_code, render_report
from compliance.report.paper import FAINT, HALF_WIDTH, TEXT_WIDTH, Cell, Paper, wrap
from compliance.report.pdf import Page, encode_pdf, width_of
from compliance.report.pictures import draw_pictures

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page(month: Path, made: WrittenPack) -> str:
    """`report.html`."""
    return (month / "shared" / "report.html").read_text()


def test_every_control_is_told_with_its_verdict(page: str, made: WrittenPack) -> None:
    """Each has a row of its own."""
    for one in made.content.judgements:
        label = made.content.framework.label_of(one.control)
        row = page.partition(f'id="c-{one.control.id}"')[2].partition("</tr>")[0]
        assert f"<b>{label}</b>" in row
        assert f">{one.verdict}</span>" in row


def test_names_from_outside_are_text(page: str) -> None:
    """A person called `Person <0>` stays so."""
    assert "Person &lt;0&gt;" in page
    assert "Person <0>" not in page


def test_a_page_loads_nothing_and_runs_nothing(page: str, month: Path) -> None:
    """No script, no address but those in the text, a policy that forbids the rest."""
    for text in (page, (month / "shared" / "responsibility-matrix.html").read_text()):
        assert "default-src 'none'" in text
        assert not re.search(r"<(script|link|img|iframe|object|form)\b|\bon[a-z]+=|@import|url\(|src=", text)


def test_a_page_is_whole(page: str) -> None:
    """Every table and row is closed; nothing of the template is left."""
    for tag in ("table", "tr", "td", "div", "svg", "main", "p"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert "{{" not in page
    assert "{%" not in page


def test_links_lead_to_headings(page: str) -> None:
    """Of the page itself."""
    targets = re.findall(r'href="#([^"]+)"', page)
    assert targets
    for target in targets:
        assert f'id="{target}"' in page


def test_evidence_leads_to_what_it_is(page: str, month: Path, made: WrittenPack) -> None:
    """Each test by name with its outcome, each fact to what was found, each kind of record to records in the pack."""
    for one in made.content.judgements:
        row = page.partition(f'id="c-{one.control.id}"')[2].partition("</tr>")[0].replace("<wbr>", "")
        assert all(f"<li>{test}: {outcome}</li>" in row for test, outcome in one.tests)
        assert all(f'href="#f-{name}"' in row for name, _ in one.facts)
        assert all((f'href="log/extracts/{kind}.jsonl"' in row) == (count > 0) for kind, count in one.kinds)
    files = set(re.findall(r'href="(log/[^"]+)"', page))
    assert files
    assert all((month / "shared" / name).is_file() for name in files)


def test_without_results_no_test_is_said_to_have_failed(made: WrittenPack) -> None:
    """`0 of 6 tests passed` reads like six failures."""
    judged = next(one for one in made.content.judgements if len(one.tests) > 1)
    assert judged.tests_in_words == f"{len(judged.tests)} of {len(judged.tests)} tests passed"
    missing = replace(judged, tests=tuple((test, "missing") for test, _ in judged.tests))
    assert missing.tests_in_words == f"no result of its {len(judged.tests)} tests"


def test_silences_of_the_log_are_told(page: str, made: WrittenPack) -> None:
    """A record each 43 minutes, in this made-up month; and of a log without a silence that there was none."""
    assert re.search(
        r"silent for more than two minutes 999 times, 29 d 23 h 59 min in all; the longest from 2026-01", page
    )
    quiet = replace(made.content.activity, silences=0)
    assert b"no two minutes passed without one" in render_report(replace(made.content, activity=quiet))


def test_charts_say_of_which_time_they_are(page: str) -> None:
    """Labels are hours or days; the date, the year and the zone stand above them."""
    assert "Columns from 2026-01-01 00:00:00 UTC to 2026-01-31 00:00:00 UTC; times are in UTC." in page


def test_without_controls_to_plan_the_plan_says_so(made: WrittenPack) -> None:
    """An empty table would look like a mistake."""
    met = [one for one in made.content.judgements if one.is_satisfied]
    assert b"Nothing." in render_report(replace(made.content, judgements=met))


@pytest.mark.parametrize("width", [HALF_WIDTH, 380.0])
def test_charts_are_well_formed_and_within_their_frame(made: WrittenPack, width: float) -> None:
    """Each shape of each."""
    for drawing in made.content.draw_pictures(width).drawings:
        assert drawing.width == width
        tree = ElementTree.fromstring(render_svg(drawing, tells_values=True))  # Our own text.
        label = str(tree.get("aria-label"))
        assert label.startswith(drawing.title)
        told = [shape.words for shape in drawing.shapes if isinstance(shape, Box) and shape.words]
        assert label == drawing.title or all(words in label for words in told)
        for box in (shape for shape in drawing.shapes if isinstance(shape, Box)):
            assert -0.01 <= box.x <= box.x + box.width <= drawing.width + 0.01
            assert -0.01 <= box.y <= box.y + box.height <= drawing.height + 0.01


def titles_of(activity: Activity, start_ms: int, end_ms: int) -> tuple[list[str], list[str]]:
    """What is drawn of a period, and what is said to be absent."""
    pictures = draw_pictures(activity, Period(start_ms, end_ms), end_ms, 380.0)
    return [drawing.title for drawing in pictures.drawings], pictures.absent


def test_what_there_was_none_of_is_said_and_not_drawn() -> None:
    """A day on which somebody was refused, and nobody asked."""
    quiet = Activity(0, 1, bucket_ms=HOUR_MS, buckets={0: Bucket(refused=2)}, refusals=Counter({"token_rejected": 2}))
    titles, absent = titles_of(quiet, 0, DAY_MS)
    assert titles == ["Refused sign-ins, tokens, requests per hour", "Refusals by reason"]
    assert absent == ["requests", "changes"]
    nothing = Activity(0, 1, bucket_ms=HOUR_MS, buckets={0: Bucket()})
    assert titles_of(nothing, 0, DAY_MS) == ([], ["requests", "refusals", "changes"])


def columns_of(hours: list[int], start_h: int, end_h: int) -> list[str]:
    """The labels of a chart of requests, one in each of these hours, in a period of so many."""
    buckets = {hour * HOUR_MS: Bucket(requests=1) for hour in hours}
    activity = Activity(0, 1, last_ms=hours[-1] * HOUR_MS, bucket_ms=HOUR_MS, buckets=buckets)
    period = Period(start_h * HOUR_MS, end_h * HOUR_MS)
    (chart,) = (
        drawing
        for drawing in draw_pictures(activity, period, period.end_ms, 5000.0).drawings
        if "Requests" in drawing.title
    )
    return [shape.text for shape in chart.shapes if isinstance(shape, Label) and shape.anchor == "middle"]


def test_few_columns_are_filled_up_within_the_period_only() -> None:
    """Outside of it there may be records that were not counted: a column of nothing would be untrue."""
    assert columns_of([5], 3, 6) == ["03:00", "04:00", "05:00"]
    assert columns_of([5], 0, 6) == [f"{hour:02d}:00" for hour in range(6)]
    assert len(columns_of([5], 0, 6000)) == 24, "no more than fill the frame"
    assert len(columns_of([0, 40], 0, 6000)) == 41, "none of its own is left out"


def test_a_record_that_is_dated_years_away_does_not_make_a_column_a_minute() -> None:
    """Its clock had gone astray; all are counted, by the week."""
    buckets = {time * HOUR_MS: Bucket(requests=1, tokens=2) for time in (0, 1, 100_000)}
    activity = Activity(0, 3, bucket_ms=HOUR_MS, buckets=buckets)
    drawings = draw_pictures(activity, Period(0, 100_001 * HOUR_MS), 100_001 * HOUR_MS, 380.0).drawings
    assert [drawing.title for drawing in drawings] == ["Requests per week", "Tokens per week"]
    words = [shape.words for shape in drawings[0].shapes if isinstance(shape, Box) and shape.words]
    assert words == ["1970-01-01: 2 answered", "1981-05-28: 1 answered"], (
        "of several years: a day alone could be of any"
    )


@given(st.text(max_size=60), st.floats(20, 300))
def test_a_name_that_is_too_long_is_cut_to_its_place(text: str, width: float) -> None:
    """And says so."""
    fitting = fit(text, width, 8)
    assert fitting == text or (fitting.endswith("…") and text.startswith(fitting[:-1]))
    assert width_of(fitting, 8) <= width or fitting == "…"


def test_columns_are_to_scale() -> None:
    """Twice as many are twice as tall, and stacked ones stand on each other."""
    drawing = draw_columns("T", ["a", "b"], [Series("x", "#000000", (2, 4)), Series("y", "#ff0000", (2, 0))])
    first, second, other = (shape for shape in drawing.shapes if isinstance(shape, Box) and shape.words)
    assert first.height == pytest.approx(second.height)
    assert other.height == pytest.approx(2 * first.height)
    assert second.y + second.height == pytest.approx(first.y)


def test_shares_are_to_scale() -> None:
    """And fill the bar."""
    drawing = draw_shares("T", [Share("a", "#000000", 1), Share("b", "#000000", 3)])
    first, second = [shape for shape in drawing.shapes if isinstance(shape, Box)][:2]
    assert second.width == pytest.approx(3 * first.width)
    assert first.width + second.width == pytest.approx(500)


def test_nothing_is_said_to_be_nothing() -> None:
    """In words."""
    assert any(isinstance(shape, Label) and "none" in shape.text for shape in draw_bars("T", [], "#000000").shapes)


@given(st.integers(0, 10**15))
def test_the_top_of_a_scale_is_round_even_and_not_far(value: int) -> None:
    """So that its half is whole."""
    top = round_up(value)
    assert max(value, 2) <= top
    assert top % 2 == 0
    assert value <= 2 or top < 3 * value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (1550, "1.5k"), (2_000_000, "2M"), (10**10, "10G")]
)
def test_large_numbers_are_short(value: int, text: str) -> None:
    """And never larger than they are."""
    assert shorten(value) == text


def test_text_in_pictures_is_escaped() -> None:
    """Names of programs are drawn."""
    drawing = Drawing(10, 10, '"<t>', [Label(0, 0, "<script>&"), Box(0, 0, 1, 1, "#000000", "<b>")])
    tree = ElementTree.fromstring(render_svg(drawing))
    assert [text.text for text in tree.iter(f"{SVG}text")] == ["<script>&"]


@given(st.text(max_size=40))
def test_code_is_marked_and_everything_escaped(text: str) -> None:
    """Whatever stands between backticks."""
    marked = mark_code(text)
    assert re.sub(r"</?code>", "", marked).count("<") == 0


# --- paper


def parse_pdf(data: bytes) -> list[bytes]:
    """The objects, each found where the table says that it is."""
    assert data.startswith(b"%PDF-1.4\n")
    assert data.endswith(b"%%EOF\n")
    start = int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    count = int(re.match(rb"xref\n0 (\d+)\n", data[start:]).group(1))  # type: ignore[union-attr]
    lines = data[start:].split(b"\n")[3 : 2 + count]
    objects = []
    for number, line in enumerate(lines, start=1):
        place = int(line[:10])
        head = b"%d 0 obj\n" % number
        assert data[place:].startswith(head)
        objects.append(data[place + len(head) : data.index(b"\nendobj\n", place)])
    return objects


def test_a_pdf_has_every_object_where_its_table_says(month: Path, made: WrittenPack) -> None:
    """Of the whole report; streams are as long as they say."""
    objects = parse_pdf((month / "shared" / "report.pdf").read_bytes())
    streams = [one for one in objects if b"stream\n" in one]
    assert len(streams) > 5
    for one in streams:
        length = int(re.search(rb"/Length (\d+)", one).group(1))  # type: ignore[union-attr]
        assert len(one.partition(b"stream\n")[2].rpartition(b"\nendstream")[0]) == length


def test_bookmarks_lead_through_the_paper(month: Path, made: WrittenPack) -> None:
    """Forwards, backwards and down: every one is met once, and each goes to a page."""
    objects = parse_pdf((month / "shared" / "report.pdf").read_bytes())

    def follow(number: int, name: str) -> int:
        found = re.search(rb"/%b (\d+) 0 R" % name.encode(), objects[number - 1])
        return int(found.group(1)) if found else 0

    def walk(parent: int) -> Iterator[bytes]:
        number, before = follow(parent, "First"), 0
        while number:
            assert (follow(number, "Parent"), follow(number, "Prev")) == (parent, before)
            page = int(re.search(rb"/Dest \[(\d+) 0 R", objects[number - 1]).group(1))  # type: ignore[union-attr]
            assert b"/Type /Page " in objects[page - 1]
            yield re.search(rb"/Title \((.*?)\) /", objects[number - 1]).group(1)  # type: ignore[union-attr]
            yield from walk(number)
            number, before = follow(number, "Next"), number
        assert before == follow(parent, "Last")

    titles = list(walk(follow(1, "Outlines")))
    assert len(titles) == len(set(titles)) == sum(b"/Dest" in one for one in objects)
    assert titles[6:9] == [b"Every control", b"3.1 Access control", b"3.2 Awareness and training"]


_PART = re.compile(rb"<< /S /(\w+) /P (\d+) 0 R /K \[(.*?)\](?: /A|>>| >>)")
_KID = re.compile(rb"<< /Type /MCR /Pg (\d+) 0 R /MCID (\d+) >>|(\d+) 0 R")
_PIECE = re.compile(
    rb"(?:/Artifact BMC|/(\w+) << /MCID (\d+) >> BDC)\n(?:(?!.* BDC$|.*BMC$).*\n)+?EMC(?:\n|$)", re.MULTILINE
)


def read_aloud(objects: list[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """The pieces of content as a reader meets them: the kind of their part, the object of their page, their number on it."""

    def walk(number: int, above: int) -> Iterator[tuple[bytes, int, int]]:
        kind, parent, kids = _PART.match(objects[number - 1]).groups()  # type: ignore[union-attr]
        assert int(parent) == above
        for page, piece, kid in _KID.findall(kids):
            if kid:
                yield from walk(int(kid), number)
            else:
                assert page_parts[int(page)][int(piece)] == number, "found from the page as well"
                yield kind, int(page), int(piece)

    def named(name: bytes, text: bytes) -> int:
        return int(re.search(rb"/%b (\d+) 0 R" % name, text).group(1))  # type: ignore[union-attr]

    root = named(b"StructTreeRoot", objects[0])
    rows = re.findall(rb"(\d+) \[(.*?)\]", objects[named(b"ParentTree", objects[root - 1]) - 1])
    numbers = {key: [int(one) for one in re.findall(rb"(\d+) 0 R", row)] for key, row in rows}
    page_parts = {
        number: numbers[re.search(rb"/StructParents (\d+)", one).group(1)]  # type: ignore[union-attr]
        for number, one in enumerate(objects, start=1)
        if b"/Type /Page " in one
    }
    yield from walk(named(b"K", objects[root - 1]), root)


def test_the_paper_can_be_read_aloud(month: Path, made: WrittenPack) -> None:
    """All that is drawn is one piece of one part, or marked as of none; a picture has its words, a table its heads."""
    objects = parse_pdf((month / "shared" / "report.pdf").read_bytes())
    told = list(read_aloud(objects))
    drawn = []
    for number, one in enumerate(objects, start=1):
        if b"/Type /Page " in one:
            stream = objects[number].partition(b"stream\n")[2].rpartition(b"\nendstream")[0]
            drawn += [(piece[1], number, int(piece[2])) for piece in _PIECE.finditer(stream) if piece[1]]
            assert _PIECE.sub(b"", stream) == b"", "nothing is drawn outside of a piece, and no piece lies in another"
    assert len(set(told)) == len(told)
    assert sorted(told) == sorted(drawn)
    kinds = Counter(kind for kind, *_ in told)
    assert set(kinds) == {b"H1", b"H2", b"H3", b"P", b"TH", b"TD", b"Figure"}
    assert told[0][0] == b"H1"
    assert kinds[b"H1"] == 1
    figures = [one for one in objects if one.startswith(b"<< /S /Figure")]
    assert len(figures) == kinds[b"Figure"]
    assert all(b" /Alt (" in one and b" /BBox [" in one for one in figures)
    assert all(b" /Scope /" in one for one in objects if one.startswith(b"<< /S /TH"))


def test_a_part_goes_on_over_pages() -> None:
    """A row that is longer than a page is one row; the head that stands there again is not read once more."""
    paper = Paper("T", "foot")
    paper.table(["Head"], [1], [["word " * 8000]])
    objects = parse_pdf(paper.encode(0))
    told = list(read_aloud(objects))
    assert [kind for kind, *_ in told] == [b"TH"] + [b"TD"] * (len(told) - 1)
    pages = [page for _, page, _ in told[1:]]
    assert len(pages) > 2
    assert pages == sorted(set(pages))
    assert sum(one.startswith(b"<< /S /TR") for one in objects) == 2
    stream = objects[told[1][1]]
    assert b"word ) Tj" in stream, "lines end with the space at which they were broken"


def test_what_is_told_and_not_set_may_have_any_letters() -> None:
    """Titles and the words of pictures are no text of the fonts; outside of ASCII they are UTF-16."""
    paper = Paper("A – 中", "F")
    paper.heading("Ä (b", size=10)
    data = paper.encode(0)
    assert f"/Title <FEFF{'A – 中'.encode('utf-16-be').hex().upper()}>".encode() in data
    assert f"/Title <FEFF{'Ä (b'.encode('utf-16-be').hex().upper()}>".encode() in data


def test_no_heading_is_the_last_on_its_page() -> None:
    """Nor the head of a table: wherever it falls, a row stands below."""
    for filler in range(60):
        paper = Paper("T", "F")
        for _ in range(filler):
            paper.paragraph("x")
        paper.heading("Heading", size=10)
        paper.table(["Head"], [1], [["row " * 200]], size=7)
        pages = paper.encode(0).decode("cp1252").split("endstream")
        (page,) = [one for one in pages if "(Heading) Tj" in one]
        assert "(Head) Tj" in page
        assert page.count("(row ") >= 4


@pytest.mark.parametrize("color", sorted({*COLORS.values(), FAINT}))
def test_text_is_readable_on_its_ground(color: str) -> None:
    """White on the badges, and each colour on white: a contrast of 4.5 at least (WCAG 2.2, 1.4.3)."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5


def test_the_paper_tells_what_the_page_tells(month: Path, made: WrittenPack) -> None:
    """Every control by its label, the verdicts by their numbers."""
    text = (month / "shared" / "report.pdf").read_bytes().decode("cp1252", "replace")
    for one in made.content.judgements:
        assert f"({made.content.framework.label_of(one.control)}" in text


def test_text_on_paper_cannot_leave_its_string() -> None:
    """Parentheses, backslashes, control characters, and what the fonts have not."""
    page = Page()
    page.text(0, 0, "a) Tj ET\\ (\x00\n\u2192\u4e2d\x9d", 9)
    data = encode_pdf([page], title="t)(\\", made_at_ms=0)
    (stream,) = [one for one in parse_pdf(data) if b"stream\n" in one]
    assert rb"(a\) Tj ET\\ \(? >??) Tj ET" in stream


@given(st.text(max_size=300), st.floats(20, 500))
def test_lines_are_no_wider_than_the_place_and_lose_no_word(text: str, width: float) -> None:
    """Whatever the words; only spaces are lost, and a word that is too wide is broken."""
    lines = wrap(text, width, 9)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    for line in lines:
        assert width_of(line, 9) <= width or len(line) == 1


def test_widths_are_those_of_the_fonts() -> None:
    """A few that everybody who sets type knows: thousandths of the size."""
    assert width_of("iW0 ", 1000) == 222 + 944 + 556 + 278
    assert width_of("iW0 ", 1000, is_bold=True) == 278 + 944 + 556 + 278
    assert width_of("€ä", 1000) == 556 + 556


def test_a_table_goes_on_over_pages_under_its_head() -> None:
    """And a row that is longer than a page too."""
    paper = Paper("T", "foot")
    paper.table(["Head", "Other"], [1, 1], [["word " * 2000, Cell("x", "#000000", True)], *[["a", "b"]] * 60])
    data = paper.encode(0)
    pages = data.count(b"/Type /Page ")
    assert pages > 3
    assert data.count(b"(Head)") == pages
    assert data.count(f"(1 / {pages})".encode()) == 1
    assert TEXT_WIDTH > 400


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_cells_begin_no_formula(text: str) -> None:
    """For the spreadsheets that would run it."""
    row = encode_csv(("a",), [(text,)]).split(b"\r\n", 1)[1]
    assert row.startswith((b"'", b"\"'"))


def test_no_cell_begins_a_formula_where_semicolons_separate() -> None:
    """As for the log's own exports: a person may be called anything."""
    assert encode_csv(("a",), [("Bob;=1+1;x",), ("\uff1d1",)]) == "a\r\nBob;'=1+1;x\r\n'\uff1d1\r\n".encode()
