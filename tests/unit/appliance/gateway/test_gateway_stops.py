"""Stop strings: found wherever the text is cut, and never delivered in part."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.text.stops import StopStrings

texts = st.text(alphabet="abc", max_size=24)
stop_lists = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=4)


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[left:right] for left, right in itertools.pairwise(edges)]


def first_completed(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The slow and obvious reference: grow the text by one character until it ends with a stop string."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(text=texts, stops=stop_lists, places=st.lists(st.integers(0, 30), max_size=8))
def test_cut_of_the_text_does_not_matter(text: str, stops: list[str], places: list[int]) -> None:
    """However a text comes in pieces, it ends where its first completed stop string begins."""
    watcher = StopStrings(stops)
    delivered, matched = "", None
    for piece in cut(text, places):
        progress = watcher.feed(piece)
        delivered += progress.text
        if progress.matched is not None:
            matched = progress.matched
            break
    else:
        delivered += watcher.finish()
    assert (delivered, matched) == first_completed(text, stops)


@given(text=texts, stops=stop_lists)
def test_nothing_of_a_stop_string_is_delivered_early(text: str, stops: list[str]) -> None:
    """At every moment, what was delivered is a beginning of what is delivered in the end."""
    final, _ = first_completed(text, stops)
    watcher = StopStrings(stops)
    delivered = ""
    for character in text:
        progress = watcher.feed(character)
        delivered += progress.text
        assert final.startswith(delivered)
        if progress.matched is not None:
            break


def test_rest_is_what_follows_the_match() -> None:
    """Whoever goes on after a match gets all that was fed beyond it."""
    watcher = StopStrings(["<end>"])
    assert watcher.feed("text<e").text == "text"
    progress = watcher.feed("nd>more")
    assert (progress.text, progress.matched, progress.rest) == ("", "<end>", "more")


def test_without_stop_strings_nothing_is_held_back() -> None:
    """The common case delivers every piece as it comes."""
    watcher = StopStrings([])
    assert watcher.feed("a").text == "a"
    assert watcher.finish() == ""
