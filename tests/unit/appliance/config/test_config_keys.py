"""Keys as the Structs describe them, and where they stand in a file."""

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from appliance.config.keys import describe_type, unit_of, walk_keys
from appliance.config.locations import find_lines, nearest_line


class Inner(Struct, frozen=True, kw_only=True):
    """A table."""

    timeout_s: Annotated[float, Meta(gt=0, description="How long.")] = 1.0


class Outer(Struct, frozen=True, kw_only=True):
    """A table with tables."""

    names: Annotated[tuple[str, ...], Meta(max_length=3, description="Who.")] = ()
    inner: Inner = Inner()
    entries: Annotated[tuple[Inner, ...], Meta(min_length=1)]


def test_tables_and_arrays_of_tables_are_walked_in_order() -> None:
    """One path a key, in the form that TOML users know."""
    assert [key.path for key in walk_keys(Outer)] == ["names", "inner.timeout_s", "entries[].timeout_s"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, Meta(ge=1, le=9)], "integer, from 1 to 9"),
        (Annotated[float, Meta(gt=0)], "number, more than 0"),
        (Annotated[str, Meta(min_length=1)] | None, "text, length at least 1"),
        (Literal["a", "b"], '"a" or "b"'),
        (tuple[Annotated[str, Meta(max_length=5)], ...], "list of text, length at most 5"),
        (dict[str, int], "table of integer"),
        (bool, "true or false"),
        (Annotated[str, Meta(pattern="^x$")], "text, matching `^x$`"),
    ],
)
def test_types_are_told_in_words_with_their_range(annotation: object, words: str) -> None:
    """What an operator may write, without Python's names for it."""
    assert describe_type(annotation) == words


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("timeout_s", "seconds"),
        ("interval_ms", "milliseconds"),
        ("max_body_bytes", "bytes"),
        ("num_pages", "pages"),
        ("port", ""),
    ],
)
def test_unit_is_taken_from_the_name(name: str, unit: str) -> None:
    """Names carry units, so no second place says them."""
    assert unit_of(name) == unit


def test_lines_of_keys_are_found() -> None:
    """Sections, arrays of tables, dotted keys and comments as people write them."""
    text = 'mode = "x" # a = 1\n\n[gateway] # here\nport = 1\n  host= "h"\n[[engines]]\na.b = 1\n[[engines]]\na = 2\n'
    assert find_lines(text) == {
        "mode": 1,
        "gateway": 3,
        "gateway.port": 4,
        "gateway.host": 5,
        "engines[0]": 6,
        "engines[0].a.b": 7,
        "engines[1]": 8,
        "engines[1].a": 9,
    }


def test_text_that_looks_like_a_key_is_none() -> None:
    """Lines inside a text of several lines are not keys."""
    assert find_lines('a = """\nb = 1\n[c]\n"""\nd = 1\n') == {"a": 1, "d": 5}


def test_key_without_a_line_takes_its_tables() -> None:
    """A missing key is told where its table begins."""
    lines = {"engines[0]": 4, "tls": 9}
    assert nearest_line(lines, "engines[0].model_path") == 4
    assert nearest_line(lines, "tls.extra_names[1]") == 9
    assert nearest_line(lines, "gateway.port") is None
