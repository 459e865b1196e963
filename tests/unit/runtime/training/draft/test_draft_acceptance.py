"""Rounds that are walked through on paper are those that an engine would run."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.training.draft.acceptance import Rounds, TwoGrams


def play(answer: Sequence[int], guesses: Sequence[Sequence[int]]) -> tuple[int, int, list[int]]:
    """Run rounds as an engine does: rounds, tokens given by them, and how often each draft was taken.

    Args:
        guesses: for each place of the answer what is drafted after it.
    """
    num_rounds = num_tokens = 0
    taken = [0] * len(guesses[0])
    place = 0
    while place + 1 < len(answer):
        num_rounds += 1
        for step, guess in enumerate(guesses[place]):
            place += 1
            num_tokens += 1
            if place + 1 >= len(answer) or guess != answer[place]:
                taken[step] += guess == answer[place]
                break
            taken[step] += 1
        else:
            place += 1
            num_tokens += 1
    return num_rounds, num_tokens, taken


tokens = st.integers(0, 2)


@given(st.lists(tokens, min_size=1, max_size=20), st.data(), st.integers(1, 4))
def test_walked_rounds_are_those_that_are_played(answer: list[int], data: st.DataObject, num_drafts: int) -> None:
    """Same rounds, tokens and accepted drafts, whatever is drafted; the end cuts the last round short."""
    row = st.lists(tokens, min_size=num_drafts, max_size=num_drafts)
    guesses = data.draw(st.lists(row, min_size=len(answer), max_size=len(answer)))
    hits = np.zeros((num_drafts, len(answer) - 1), bool)
    for place in range(len(answer) - 1):
        for step in range(num_drafts):
            follows = place + step + 1
            hits[step, place] = follows >= len(answer) or guesses[place][step] == answer[follows]
    rounds = Rounds(num_drafts)
    rounds.add(hits)
    num_rounds, num_tokens, taken = play(answer, guesses)
    assert (rounds.num_rounds, rounds.num_tokens, rounds.accepted) == (num_rounds, num_tokens, taken)
    assert rounds.num_tokens == len(answer) - 1


def test_length_and_rates_are_over_rounds() -> None:
    """A round of three tokens with two of two drafts taken, then one of one token with none of them."""
    rounds = Rounds(2)
    rounds.add(np.array([[True, False, False, False], [True, False, False, True]]))
    assert rounds.num_rounds == 2
    assert rounds.length == pytest.approx(2.0)
    assert rounds.reached == [2, 1]
    assert rounds.rates == [0.5, 1.0]
    assert Rounds(2).length == 0.0


def test_two_grams_are_what_most_often_follows_in_answers() -> None:
    """The prompt's inside is not learnt, its end is; among equals the lowest id counts."""
    grams = TwoGrams([([9, 8, 1, 5, 1, 6], 2), ([7, 1, 6], 1)])
    hits = grams.hits([8, 1, 6, 9], 3)
    assert hits.tolist() == [[True, True, False], [True, False, False], [False, False, False]]
    assert not grams.hits([9, 8], 1).any()
    assert TwoGrams([([1, 3], 1), ([1, 2], 1)]).hits([1, 2], 1).all()
