"""Which sequences of a step are found to begin with the same pages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.attention.shared_prefixes import MEMBERS, SharedPrefixes, find_shared_prefixes
from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE


def tables_of(sequences: list[tuple[list[int], int]]) -> tuple[Int32, Int32]:
    """Page tables and context lengths of sequences, each given as the pages that it begins with and tokens of its own."""
    next_page = 1_000_000
    rows, lengths = [], []
    for stem, own_tokens in sequences:
        num_own = -(-own_tokens // PAGE_SIZE)
        rows.append([*stem, *range(next_page, next_page + num_own)])
        lengths.append(len(stem) * PAGE_SIZE + own_tokens)
        next_page += num_own
    tables = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for table, row in zip(tables, rows, strict=True):
        table[: len(row)] = row
    return tables, np.array(lengths, np.int32)


def groups_of(prefixes: SharedPrefixes | None) -> list[tuple[set[int], int]]:
    if prefixes is None:
        return []
    found = [
        (set(members[members >= 0].tolist()), int(tokens))
        for members, tokens in zip(prefixes.members, prefixes.tokens, strict=True)
    ]
    return sorted(found, key=lambda group: min(group[0]))


def stem(number: int, num_pages: int) -> list[int]:
    return list(range(1000 * number, 1000 * number + num_pages))


STEMS = st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(1, 3), st.integers(0, 60)).map(
    lambda given: stem(given[0], given[1]) + [10_000 * given[2] + page for page in stem(given[0], given[3])]
)
"""Pages of one of three trunks, then of one of its three branches; where they end differs."""


@given(st.lists(st.tuples(STEMS, st.integers(1, 100)), min_size=1, max_size=40))
def test_members_have_in_common_what_is_said(sequences: list[tuple[list[int], int]]) -> None:
    """Whole pages that are equal, more than a few, with a token behind; nobody is in two groups."""
    tables, lengths = tables_of(sequences)
    prefixes = find_shared_prefixes(tables, lengths)
    groups = groups_of(prefixes)
    members = [member for group, _ in groups for member in group]
    assert len(members) == len(set(members))
    for group, tokens in groups:
        assert 3 <= len(group) <= MEMBERS
        assert tokens >= 16 * PAGE_SIZE
        assert tokens % PAGE_SIZE == 0
        pages = tables[list(group), : tokens // PAGE_SIZE]
        assert (pages == pages[0]).all()
        assert (lengths[list(group)] > tokens).all()
    if prefixes is not None:
        assert (np.sort(prefixes.members < 0, axis=1) == (prefixes.members < 0)).all()
        spread = prefixes.tokens_of(len(sequences))
        assert {(i, int(tokens)) for i, tokens in enumerate(spread) if tokens} == {
            (member, tokens) for group, tokens in groups for member in group
        }
        assert prefixes.num_saved_tokens == sum((len(group) - 1) * tokens for group, tokens in groups)


def test_sequences_are_found_wherever_they_stand() -> None:
    """Two stems, interleaved, and two sequences that nobody shares with."""
    sequences = [(stem(number, 40), 30) for number in (1, 2, 1, 3, 2, 1, 4, 2)]
    assert groups_of(find_shared_prefixes(*tables_of(sequences))) == [({0, 2, 5}, 640), ({1, 4, 7}, 640)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(2, []), (3, [3]), (4, [4]), (5, [4]), (6, [3, 3]), (7, [3, 4]), (9, [3] * 3), (64, [4] * 16)]
)
def test_a_large_class_is_cut_evenly(count: int, sizes: list[int]) -> None:
    """Pairs are left alone; one of five is left over, since two and three would be a pair."""
    found = groups_of(find_shared_prefixes(*tables_of([(stem(1, 20), 5)] * count)))
    assert sorted(len(group) for group, _ in found) == sizes
    assert {tokens for _, tokens in found} <= {320}


def test_a_long_beginning_is_not_given_up_for_a_short_one() -> None:
    """All share a system prompt, every third a document behind it."""
    sequences = [(stem(1, 20) + stem(document, 100), 5) for document in (2, 3, 2, 3, 3, 2)]
    assert groups_of(find_shared_prefixes(*tables_of(sequences))) == [({0, 2, 5}, 1920), ({1, 3, 4}, 1920)]


def test_what_is_shared_ends_before_the_newest_token() -> None:
    """Of a table that another one goes on from, the last token is the sequence's own, though its page is not."""
    shared = stem(1, 20)
    tables, _ = tables_of([(shared, 5)] * 3)
    lengths = np.array([325, 320, 325], np.int32)
    assert groups_of(find_shared_prefixes(tables, lengths)) == [({0, 1, 2}, 304)]


def test_little_in_common_makes_no_group() -> None:
    """A short system prompt; and nothing at all."""
    assert find_shared_prefixes(*tables_of([(stem(1, 15), 500)] * 8)) is None
    assert find_shared_prefixes(*tables_of([(stem(i, 1), 500) for i in range(8)])) is None
    assert find_shared_prefixes(*tables_of([(stem(1, 50), 500)])) is None
